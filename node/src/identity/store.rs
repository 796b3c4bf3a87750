//! Small secret files: JSON and a checksum, for the owner's eyes alone, replaced whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use model::{NodeId, cluster::Secret};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Error;

/// The length of [`seal`].
const SEAL_BYTES: usize = 10;

/// The identity file.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) node_id: NodeId,
    pub(super) cluster_id: String,
    pub(super) epoch: u64,
    pub(super) key_pem: Secret<String>,
    pub(super) certificate_pem: String,
    pub(super) ca_pem: String,
}

/// What is in the file; none if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::File { file: file.to_owned(), source }),
    };
    let corrupt = |reason: String| Error::Corrupt { file: file.to_owned(), reason };
    // JSON alone would not do: with a bit flipped it may still be some, of another node or cluster.
    let sealed = text.len().checked_sub(SEAL_BYTES).map(|at| text.split_at(at));
    match sealed {
        Some((json, sum)) if sum == seal(json).as_bytes() => {
            serde_json::from_slice(json).map(Some).map_err(|error| corrupt(error.to_string()))
        }
        _ => Err(corrupt("its checksum, in the last line, does not match the rest".to_owned())),
    }
}

/// What a file ends in: a line with the CRC-32 of all before it.
fn seal(json: &[u8]) -> String {
    format!("\n{:08x}\n", crc32fast::hash(json))
}

/// Replaces the file durably, readable by its owner alone.
pub(crate) fn write<T: Serialize>(file: &Path, value: &T) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|error| Error::Certificate(error.to_string()))?;
    text.extend_from_slice(seal(&text).as_bytes());
    let beside = file.with_extension("tmp");
    let replace = || {
        // Removed first: opening a file that is there would keep its mode.
        fs::remove_file(&beside).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        to.write_all(&text)?;
        to.sync_all()?;
        fs::rename(&beside, file)?;
        sync_directory(file)
    };
    replace().map_err(|source| Error::File { file: file.to_owned(), source })
}

/// Makes there be no such file, durably.
pub(crate) fn remove(file: &Path) -> Result<(), Error> {
    match fs::remove_file(file) {
        Ok(()) => sync_directory(file).map_err(|source| Error::File { file: file.to_owned(), source }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::File { file: file.to_owned(), source }),
    }
}

fn sync_directory(file: &Path) -> std::io::Result<()> {
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}
