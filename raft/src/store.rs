//! What the state machine asks of a key-value store; another could stand in for sled in one file.
//!
//! The store holds the state as it is applied, and nothing that the journal and the snapshot do not hold as well: it spares a
//! node that starts again from reading them. Nothing waits for it to reach the disk, and after the machine has been down it
//! or where it is damaged, it is made anew (docs/adr/0011).

pub(crate) mod sled;

use std::{path::Path, sync::Arc};

use crate::Error;

/// One step of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the key hold this value.
    Put(Vec<u8>, Vec<u8>),
    /// Make the key hold nothing.
    Delete(Vec<u8>),
}

/// A key and its value.
pub(crate) type KeyValue = (Vec<u8>, Vec<u8>);
/// A pair of a scan.
pub(crate) type Pair = Result<KeyValue, Error>;

/// An ordered map of bytes to bytes. Its values stay under 64 KiB (larger ones leak space in sled).
pub(crate) trait Store: Send + Sync + 'static {
    /// The value under this key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// The pairs from `from` on and below `to`, in the order of their keys.
    fn scan(&self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Pair> + '_>;
    /// All of these steps, or none. Seen by readers on return; a process that ends soon after takes the last of them with it.
    fn apply(&self, batch: Vec<Step>) -> Result<(), Error>;
    /// The file that an error is about.
    fn file(&self) -> &Path;
}

/// Where a node's store is.
pub(crate) trait Stores: Send + Sync {
    /// Opens the store that is there.
    fn open(&self) -> Result<Arc<dyn Store>, Error>;
    /// Makes a new one with nothing in it in the place of what is there.
    fn make(&self) -> Result<Arc<dyn Store>, Error>;
}
