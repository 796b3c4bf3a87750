//! A backup: a snapshot of the state as it is applied here, for people to keep.

use std::{io, sync::Arc};

use model::Revision;

use crate::{Consensus, Error, blocking, files::OpenFile, snapshot::SnapshotFile};

/// A backup, in a file that goes with this.
pub struct Backup {
    /// The config's revision in it.
    pub revision: Revision,
    /// How long it is.
    pub bytes: u64,
    file: Arc<dyn OpenFile>,
    _file: SnapshotFile,
}

impl Backup {
    /// Reads from byte `at` on, and says how many bytes there were; none at the end.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(bytes, at)
    }
}

impl Consensus {
    /// Writes a backup of the state as it is applied here.
    ///
    /// # Errors
    /// [`Error::Io`] where there is no space for it in the data folder.
    pub async fn backup(&self) -> Result<Backup, Error> {
        let (state, snapshots) = (self.state(), self.snapshots().clone());
        let revision = state.config.revision;
        blocking::run(move || {
            let snapshot = snapshots.write_aside(&state)?;
            let failed = |error: io::Error| Error::io(snapshot.path(), &error);
            let file = snapshot.open().map_err(failed)?;
            let bytes = file.length().map_err(failed)?;
            Ok(Backup { revision, bytes, file, _file: snapshot })
        })
        .await?
    }
}
