//! What the log and the state machine ask of a key-value store; another could stand in for sled in one file.

pub(crate) mod high_water;
pub(crate) mod sled;

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

/// An ordered map of bytes to bytes on disk. Its values stay under 64 KiB (larger ones leak space in sled).
pub(crate) trait Store: Send + Sync + 'static {
    /// The value under this key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;
    /// The pairs from `from` on and below `to`, in the order of their keys.
    fn scan(&self, from: &[u8], to: &[u8]) -> Box<dyn Iterator<Item = Pair> + '_>;
    /// The last pair from `from` on and below `to`.
    fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<KeyValue>, Error>;
    /// All of these steps, or none. Seen by readers on return; durable after the next [`Store::barrier`].
    fn apply(&self, batch: Vec<Step>) -> Result<(), Error>;
    /// Returns when everything applied before is on the disk.
    fn barrier(&self) -> Result<(), Error>;
    /// The file that an error is about.
    fn file(&self) -> &std::path::Path;
}
