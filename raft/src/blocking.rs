//! Work that keeps a thread for a while: reading and writing files, checking a large change.

use crate::Error;

/// Runs this off the runtime's threads; on a runtime of one thread, in place, so that a simulation is repeatable.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => tokio::task::spawn_blocking(work).await.map_err(|error| Error::Fatal(error.to_string())),
    }
}
