//! A cluster of real processes, its scenarios and the invariants it is held to.
//!
//! [`Cluster`] starts `gwnode` processes on free ports, kills, stops, restarts and isolates them; [`until`]
//! waits for conditions; [`Load`] keeps requests going and remembers every failure.
//! [`Containers`] is a cluster of containers.

pub mod admin;
mod balancer;
pub mod cluster;
pub mod containers;
pub mod dice;
pub mod dns;
pub mod docker;
pub mod history;
pub mod http;
pub mod invariant;
pub mod keys;
pub mod limits;
pub mod links;
pub mod load;
pub mod member;
pub mod node;
pub mod origin;
pub mod scenario;
pub mod watch;
pub mod written;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use admin::Admin;
pub use cluster::Cluster;
pub use containers::Containers;
pub use keys::Keys;
pub use load::Load;
pub use member::Member;
pub use node::Node;
pub use origin::Origin;
pub use watch::Watch;
pub use written::{Writers, Written};

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

/// One cluster at a time in each test process, for as long as this is held: several on two cores would test
/// patience.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
