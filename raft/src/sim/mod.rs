//! Many nodes in one process, on a clock, a network and disks that a seed decides: the same seed gives the same run.
//!
//! What runs is this crate whole, from the admission of a change to the storage's records and the messages' bytes; in place
//! of TLS, sled, files and the machine's clock stand [`net`], [`records`], [`files`] and tokio's paused time. A failing seed is run again with
//! `raft/simulate --seed N`.

mod client;
mod disk;
mod fault;
mod files;
mod folder;
mod fuse;
mod group;
mod history;
mod look;
mod members;
mod net;
mod records;
mod replay;
mod run;
pub mod runtime;
mod seeds;
