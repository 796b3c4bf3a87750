//! Many nodes in one process, on a clock, a network and disks that a seed decides: the same seed gives the same run.
//!
//! What runs is this crate whole, from the admission of a change to the storage's records and the messages' bytes; in place
//! of TLS, sled and the machine's clock stand [`net`], [`disk`] and tokio's paused time. A failing seed is run again with
//! `raft/simulate --seed N`.

mod client;
mod disk;
mod fault;
mod group;
mod history;
mod look;
mod net;
mod run;
pub mod runtime;
mod seeds;
