//! Cluster-wide rate limits with no store: each node decides alone, from its own count and from what its peers last said.
//!
//! The algorithm is countdown push (docs/rate-limits.md). A node knows what is left of a limit as far as it has heard. It
//! takes its share of that by the rates at which the nodes admit, and tells the others the sooner the less is left: once
//! what it has not told yet is an eighth of its part of what remains. So far from the limit next to nothing is sent, and
//! close to it everybody knows within milliseconds.
//!
//! Nothing in here reads a clock or does IO: whoever drives it says what time it is, carries [`Record`]s to the other
//! nodes, and calls [`Pusher::poll`] when it said it wanted to be called. Windows of less than 100 ms are counted, and no promise
//! is made of them: what nodes tell each other takes too long. The node does so over sealed datagrams, and a
//! simulator in `tests` over a network that a seed decides.
//!
//! [`Limiter::acquire`] is the hot path: one look-up, and one atomic exchange. `share` is the arithmetic by itself.

mod block;
mod gauge;
mod gauge_pusher;
mod gradient;
mod limiter;
mod pusher;
mod record;
mod rule;
mod share;
mod sketch;
mod slot;
mod table;
mod time;
mod usage;
pub mod wire;

pub use gauge::{Acquired, GaugeUsage, Gauges, InFlight, Permit};
pub use gauge_pusher::{GaugePusher, GaugeRecord};
pub use gradient::{Bounds, Gradient};
pub use limiter::{Decision, Limiter, Settings};
pub use pusher::{Judged, Pusher, Settled};
pub use record::Record;
pub use rule::{Rule, Scope};
pub use usage::{Peer, PeriodCount, Usage};

/// Between two looks at what may be admitted, at the most.
pub const EPOCH_US: u64 = 5_000;
/// Between two pushes of a key, over time.
pub const PUSH_INTERVAL_US: u64 = 12_000;
/// Between two times that everything that matters is sent again, since datagrams get lost.
pub const RESEND_INTERVAL_US: u64 = 200_000;
/// Between two measurements of rates.
pub const RATE_INTERVAL_US: u64 = 50_000;
/// For how long a peer's rates are believed.
pub const RATES_BELIEVED_US: u64 = 3 * RESEND_INTERVAL_US + 20_000;
