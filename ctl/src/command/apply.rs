//! `gwctl apply`: make the config hold a document, in one atomic change.

use clap::Args;
use http::Method;
use model::api::{Applied, ApplyRequest, Verb};
use serde_json::{Map, Value};

use crate::{
    cli::Global,
    client::{Call, Client},
    command::{Wait, object::report, read},
    failure::{CONFLICT, Failure},
};

/// A document to apply.
#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// A file, a directory of `.yaml`, `.yml` and `.json` files, or `-` for the standard input.
    #[arg(short, long, value_name = "FILE|DIR|-")]
    file: String,
    /// Say what it would do, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Delete what is not in the document; never keys.
    #[arg(long)]
    prune: bool,
    /// Only if the config is still at this revision, as `plan` showed it.
    #[arg(long, value_name = "REVISION")]
    base: Option<u64>,
    #[command(flatten)]
    wait: Wait,
}

impl Apply {
    /// Applies it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let request = ApplyRequest { document: load(&self.file)?, prune: self.prune, dry_run: self.dry_run };
        let mut call = Call::new(Method::POST, self.wait.on("/v1/apply", global)?).json(&request)?;
        if let Some(base) = self.base {
            call = on(call, base);
        }
        let applied: Applied = global.client()?.json(call).await?;
        report(global, &applied)
    }
}

/// How often `add` looks again when another writer came in between.
const ADD_TRIES: usize = 5;

/// Applies `document`; with `add`, only if nothing of it is there: a dry run looks, and its revision is the base of the
/// change, so that what another writer does in between is seen.
pub(crate) async fn change(
    global: &Global,
    client: &Client,
    document: String,
    wait: &Wait,
    add: bool,
) -> Result<(), Failure> {
    let request = ApplyRequest { document, prune: false, dry_run: false };
    let call = Call::new(Method::POST, wait.on("/v1/apply", global)?).json(&request)?;
    if !add {
        return report(global, &client.json(call).await?);
    }
    let look = Call::new(Method::POST, "/v1/apply").json(&ApplyRequest { dry_run: true, ..request })?;
    let mut tries = 1;
    loop {
        let dry: Applied = client.json(look.clone()).await?;
        if let Some(step) = dry.steps.iter().find(|step| step.verb != Verb::Create) {
            return Err(there(&format!("{} {}", step.kind, step.name)));
        }
        if dry.steps.is_empty() {
            return Err(there("all of it"));
        }
        match client.json::<Applied>(on(call.clone(), dry.revision.0)).await {
            Err(failure) if failure.exit == CONFLICT && tries < ADD_TRIES => tries += 1,
            applied => return report(global, &applied?),
        }
    }
}

/// The call, to be done only on this revision of the config.
fn on(call: Call, base: u64) -> Call {
    call.header("if-match", format!("\"{base}\""))
}

fn there(what: &str) -> Failure {
    Failure::conflict(format!("{what} is there already")).hint("`set` replaces it")
}

/// A verb for people.
pub(crate) fn word(verb: Verb) -> &'static str {
    match verb {
        Verb::Create => "create",
        Verb::Update => "update",
        Verb::Delete => "delete",
    }
}

/// The document of a file, the standard input, or all of a directory's files together.
pub(crate) fn load(path: &str) -> Result<String, Failure> {
    if path == "-" || !std::path::Path::new(path).is_dir() {
        return read(path);
    }
    let bad = |error: std::io::Error| Failure::usage(format!("{path}: {error}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(bad)? {
        let file = entry.map_err(bad)?.path();
        if file.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json") {
            files.push(file.display().to_string());
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::usage(format!("{path}: no .yaml, .yml or .json file")));
    }
    let mut whole = Map::new();
    for file in &files {
        merge(&mut whole, file, &read(file)?)?;
    }
    Ok(Value::Object(whole).to_string())
}

fn merge(whole: &mut Map<String, Value>, file: &str, text: &str) -> Result<(), Failure> {
    let refused = |what: String| Failure::refused(format!("{file}: {what}"));
    let document: Option<Map<String, Value>> =
        serde_yaml_ng::from_str(text).map_err(|error| refused(error.to_string()))?;
    for (key, value) in document.unwrap_or_default() {
        match (whole.get_mut(&key), value) {
            (Some(Value::Object(there)), Value::Object(more)) => {
                for (name, spec) in more {
                    if there.insert(name.clone(), spec).is_some() {
                        return Err(refused(format!("{key}.{name} is in another file too")));
                    }
                }
            }
            (Some(there), value) if *there != value => {
                return Err(refused(format!("{key} differs between files")));
            }
            (Some(_), _) => {}
            (None, value) => {
                whole.insert(key, value);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_document_without_doubles() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert!(load(path).is_err());
        std::fs::write(dir.path().join("a.yaml"), "routes: {a: {respond: {status: 200}}}").unwrap();
        std::fs::write(dir.path().join("b.json"), r#"{"routes": {"b": {}}, "upstreams": {}}"#).unwrap();
        std::fs::write(dir.path().join("c.txt"), "?").unwrap();
        let value: Value = serde_json::from_str(&load(path).unwrap()).unwrap();
        assert_eq!(value["routes"].as_object().unwrap().len(), 2);
        std::fs::write(dir.path().join("d.yml"), "routes: {a: {}}").unwrap();
        assert!(load(path).unwrap_err().text.contains("routes.a"));
    }
}
