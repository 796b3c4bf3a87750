//! Consensus: openraft over a journal and sled, and the RPC between peers.
//!
//! [`Storage`] opens what this node has on disk and hands out the current config at once, before any network.
//! Nothing of openraft's or sled's own formats leaves this crate, to the wire or to the disk.

mod backup;
mod blocking;
mod boot;
mod consensus;
#[cfg(test)]
mod crash;
mod dial;
mod error;
mod files;
mod forward;
mod forward_service;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod high_water;
mod journal;
mod log;
mod membership;
mod network;
mod outcomes;
mod peers;
mod proposer;
mod record;
mod restore;
mod serve;
mod service;
#[cfg(test)]
pub mod sim;
mod snapshot;
mod state;
mod state_machine;
mod storage;
mod store;
#[cfg(test)]
mod suite;
mod sync;
mod types;
mod wire;

pub use backup::Backup;
pub use consensus::{Admission, Consensus, Edit, Expect, Role, Settings, Status};
pub use dial::{CallError, Channel};
pub use error::Error;
pub use peers::{Identity, PeerTls, server_name};
pub use restore::{EPOCH_STRIDE, Remains};
pub use serve::PeerId;
pub use storage::Storage;
pub use types::{Command, Link, PeerNode, Request, Response};

fn convert_error(error: cluster_proto::convert::Error) -> tonic::Status {
    tonic::Status::invalid_argument(error.to_string())
}
