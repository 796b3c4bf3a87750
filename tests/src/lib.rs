//! A cluster of real processes, its scenarios and the invariants it is held to.
//!
//! [`Cluster`] starts `gwnode` processes on free ports, kills, stops and restarts them; [`until`] waits for conditions; [`Load`]
//! keeps requests going and remembers every failure.

pub mod cluster;
pub mod http;
pub mod load;
pub mod origin;

use std::time::{Duration, Instant};

pub use cluster::{Cluster, Node};
pub use load::Load;
pub use origin::Origin;

/// For anything that a test waits for; a test that needs it all is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this gives something, and gives it.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not come about within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}
