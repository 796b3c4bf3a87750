//! Contexts: which cluster to speak to, and as whom; kept in a file that only its owner reads.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::failure::Failure;

/// The file's content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// The one that is used unless said otherwise.
    #[serde(default)]
    pub(crate) current: Option<String>,
    /// All of them by name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

/// One cluster, and as whom.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    /// `host:port` of admin APIs; tried in turn.
    pub(crate) addresses: Vec<String>,
    /// An admin token.
    pub(crate) token: String,
    /// The cluster's CA certificate, PEM.
    pub(crate) ca: String,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Where the file is: `$PHALANX_CONTEXT`, or `phalanx/contexts.toml` in the user's configuration directory.
pub(crate) fn path() -> Result<PathBuf, Failure> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("PHALANX_CONTEXT")
        .or_else(|| set("XDG_CONFIG_HOME").map(|dir| dir.join("phalanx/contexts.toml")))
        .or_else(|| set("HOME").map(|dir| dir.join(".config/phalanx/contexts.toml")))
        .ok_or_else(|| {
            Failure::usage("neither PHALANX_CONTEXT nor XDG_CONFIG_HOME nor HOME is set")
                .hint("set PHALANX_CONTEXT")
        })
}

impl Contexts {
    /// Reads the file; one that is not there is empty.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let bad = |what: String| Failure::refused(format!("{}: {what}", path.display()));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(bad(error.to_string())),
        };
        let mode = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(bad("others may read it, and it holds tokens".into())
                .hint(format!("chmod 600 {}", path.display())));
        }
        // The parser's own message quotes the line, which may be the token's.
        toml::from_str(&text).map_err(|error| bad(error.message().to_owned()))
    }

    /// Replaces the file in one step, readable by its owner alone.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let write = || -> std::io::Result<()> {
            let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            std::fs::create_dir_all(dir)?;
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(format!(".{}", std::process::id()));
            let temporary = dir.join(name);
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            file.write_all(self.text().as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            std::fs::File::open(dir)?.sync_all()
        };
        write().map_err(|error| Failure::refused(format!("{}: {error}", path.display())))
    }

    /// The context of this name, or the current one.
    pub(crate) fn select(&self, name: Option<&str>) -> Result<(&str, &Context), Failure> {
        let name = name.or(self.current.as_deref()).ok_or_else(|| {
            Failure::usage("no context is chosen").hint(
                "`gwctl cluster init` makes one; `gwctl context use NAME` chooses one; or set PHALANX_ADDRESS, \
                 PHALANX_TOKEN and PHALANX_CA",
            )
        })?;
        let found = self.contexts.get_key_value(name);
        found.map(|(name, context)| (name.as_str(), context)).ok_or_else(|| {
            Failure::not_found(format!("there is no context {name:?}"))
                .hint("`gwctl context list` shows them")
        })
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(current) = &self.current {
            let _ = writeln!(text, "current = {}", quote(current));
        }
        for (name, context) in &self.contexts {
            let addresses: Vec<String> = context.addresses.iter().map(|address| quote(address)).collect();
            let _ = write!(
                text,
                "\n[contexts.{}]\naddresses = [{}]\ntoken = {}\nca = {}\n",
                quote(name),
                addresses.join(", "),
                quote(&context.token),
                quote(&context.ca),
            );
        }
        text
    }
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_back_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/contexts.toml");
        assert_eq!(Contexts::load(&path).unwrap(), Contexts::default());
        let context = Context {
            addresses: vec!["127.0.0.1:9081".into(), "[::1]:9082".into()],
            token: "gwa1.a\"\\\u{7f}".into(),
            ca: "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n".into(),
        };
        let contexts =
            Contexts { current: Some("a.b c".into()), contexts: [("a.b c".to_owned(), context)].into() };
        contexts.save(&path).unwrap();
        contexts.save(&path).unwrap();
        assert_eq!(Contexts::load(&path).unwrap(), contexts);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(contexts.select(None).unwrap().0, "a.b c");
        assert_eq!(contexts.select(Some("x")).unwrap_err().exit, crate::failure::NOT_FOUND);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(Contexts::load(&path).is_err());
    }
}
