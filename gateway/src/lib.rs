//! The data plane: turns a Config into a proxy, and knows no cluster.
//!
//! [`Gateway::start`] takes settings and a stream of configs. `server` starts a `worker` a core; a worker's `connection`
//! is read and written by `h1`, and `proxy` is the life of one exchange. [`plan`] is a config compiled,
//! [`install`] makes the next one from the last, `router` finds the route and [`policy`] has the traffic behaviours.

pub mod access;
mod addresses;
pub mod after;
mod authority;
#[cfg(feature = "benching")]
#[doc(hidden)]
pub mod benching;
mod body;
mod chance;
mod check;
pub mod checks;
pub mod cidr;
mod connection;
pub mod error;
pub mod exchange;
pub mod explain;
mod forwarded;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod grpc;
mod h1;
mod headers;
mod http2;
mod incoming;
pub mod install;
pub mod lease;
mod metrics;
mod names;
mod pace;
pub mod path;
pub mod plan;
pub mod policy;
mod proxy;
mod proxy_protocol;
pub mod rate_limits;
pub mod router;
mod server;
pub mod settings;
pub mod state;
mod streams;
mod tcp;
mod timer;
mod tls;
mod upgrade;
mod upload;
mod upstream;
mod vary;
mod violations;
mod watched;
mod websocket;
mod weight;
mod worker;

pub use access::AccessLog;
pub use check::check;
pub use checks::{Checks, Finding};
pub use error::Error;
pub use gateway::{Gateway, Installed};
pub use lease::{Lease, Moment};
pub use proxy_protocol::ProxyProtocol;
pub use rate_limits::{KeyName, Pushers, QuotaPeriod, RateLimits};
pub use settings::{Http2Limits, Limits, Settings};
pub use tls::{ClientCertificate, Facts};
