//! What a node tells the others of a key.

use std::num::NonZeroU64;

/// What a node tells the others of a key. A later one says all that an earlier one did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record {
    /// The key's digest, which is the same on all nodes.
    pub key: NonZeroU64,
    /// The number of the window.
    pub window: u32,
    /// What this node admitted in it.
    pub current: u32,
    /// What it admitted in the window before.
    pub previous: u32,
    /// At what rate it admits, a second.
    pub admitted_rate: f32,
    /// At what rate it is asked, a second.
    pub asked_rate: f32,
}
