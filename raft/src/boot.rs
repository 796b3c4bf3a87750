//! Whether the machine has been down since the store was made: then some of what was written to it may never have reached the
//! disk, and some of it before what came first.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Error,
    files::{Files, Sequential},
};

/// Longer than any boot's id.
const ID_BYTES_MAX: u64 = 128;

/// Which boot of the machine this is, where the system tells (Linux: random(4)). Where it does not, each process takes the
/// machine to have been down before it.
pub(crate) fn current() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// The file that says under which boot the store was made.
pub(crate) struct Boot {
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl Boot {
    pub(crate) fn new(files: Arc<dyn Files>, path: PathBuf) -> Self {
        Self { files, path }
    }

    fn io(&self, error: &io::Error) -> Error {
        Error::io(&self.path, error)
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// Whether the store was made under this boot.
    pub(crate) fn is(&self, boot: Option<&str>) -> Result<bool, Error> {
        use io::Read;
        let Some(boot) = boot.filter(|_| self.files.exists(&self.path)) else { return Ok(false) };
        let file = self.files.open(&self.path).map_err(|error| self.io(&error))?;
        let mut id = Vec::new();
        Sequential::new(file).take(ID_BYTES_MAX).read_to_end(&mut id).map_err(|error| self.io(&error))?;
        Ok(id == boot.as_bytes())
    }

    /// Says that there is no whole store, durably.
    pub(crate) fn forget(&self) -> Result<(), Error> {
        if !self.files.exists(&self.path) {
            return Ok(());
        }
        let forgotten = self.files.remove(&self.path).and_then(|()| self.files.sync_folder(self.folder()));
        forgotten.map_err(|error| self.io(&error))
    }

    /// Says that the store is whole, and was made under this boot.
    pub(crate) fn remember(&self, boot: Option<&str>) -> Result<(), Error> {
        let Some(boot) = boot else { return Ok(()) };
        // Cut short by a crash it is no boot's id.
        let file = self.files.create(&self.path);
        file.and_then(|file| file.write_at(boot.as_bytes(), 0)).map_err(|error| self.io(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::SystemFiles;

    #[test]
    fn a_store_is_of_the_boot_that_it_was_made_under_and_of_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::new(Arc::new(SystemFiles), dir.path().join("store-boot"));
        assert!(!boot.is(Some("a")).unwrap());
        boot.remember(Some("a")).unwrap();
        assert!(boot.is(Some("a")).unwrap() && !boot.is(Some("b")).unwrap() && !boot.is(None).unwrap());
        boot.forget().unwrap();
        assert!(!boot.is(Some("a")).unwrap());
    }
}
