//! The words of Phalanx that every crate shares: pure, with no runtime, no clock and no IO.
//!
//! Read in this order: [`id`] names things, [`config`] is everything replicated at one [`Revision`],
//! [`change`] is one atomic transaction on it, [`check`] says what is wrong with one before it is proposed.
//! [`cluster`] is what the members of a cluster agree on besides the config.

pub mod api;
pub mod certificate;
pub mod change;
pub mod check;
mod claims;
pub mod cluster;
pub mod code;
pub mod config;
pub mod consumer;
pub mod document;
pub mod duration;
pub mod id;
pub mod key;
pub mod policy;
pub mod rare;
pub mod route;
pub mod size;
pub mod tcp_route;
pub mod upstream;
pub mod usage;

pub use certificate::Certificate;
pub use change::{Change, Op, Outcome};
pub use check::Violation;
pub use code::Code;
pub use config::{Config, Entry, Kind};
pub use consumer::{Consumer, Group};
pub use id::{Name, NodeId, Revision};
pub use key::Key;
pub use policy::Policy;
pub use rare::Rare;
pub use route::Route;
pub use tcp_route::TcpRoute;
pub use upstream::Upstream;
pub use usage::Usage;
