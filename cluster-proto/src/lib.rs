//! What nodes say to each other, and its conversions to the model.

pub mod convert;

/// At the head of every request.
#[allow(missing_docs, clippy::all)] // what prost generates; the .proto files hold the docs
pub mod common {
    tonic::include_proto!("phalanx.common");
}
/// Entries of the log and what they came to.
#[allow(missing_docs, clippy::all, unreachable_pub, clippy::large_futures)]
pub mod command {
    tonic::include_proto!("phalanx.command");
}
/// What a node asks of the leader.
#[allow(missing_docs, clippy::all, unreachable_pub, clippy::large_futures)]
pub mod forward {
    tonic::include_proto!("phalanx.forward");
}
/// Joining, renewing, waiting.
#[allow(missing_docs, clippy::all, unreachable_pub, clippy::large_futures)]
pub mod peer {
    tonic::include_proto!("phalanx.peer");
}
/// Consensus itself.
#[allow(missing_docs, clippy::all, unreachable_pub, clippy::large_futures)]
pub mod raft {
    tonic::include_proto!("phalanx.raft");
}

/// The version of the protocol that this build speaks.
pub const PROTOCOL: u32 = 1;
/// The oldest version that it still understands.
pub const PROTOCOL_MIN: u32 = 1;
/// The newest that may call it: in a rolling upgrade a build keeps to what the one before it understands.
pub const PROTOCOL_MAX: u32 = PROTOCOL + 1;
/// The largest message, in bytes: an entry with 100,000 routes and some.
pub const MESSAGE_BYTES_MAX: usize = 72 << 20;
