//! What outlives a Plan: the turn and the health of upstreams and their targets, carried from each Plan to the next.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// What is known of an upstream beside its config; kept for as long as the upstream is there.
#[derive(Debug, Default)]
pub struct UpstreamState {
    /// Whose turn it is, for the balance strategy to count.
    pub turn: AtomicU64,
}

/// What is known of one target; kept for as long as its upstream has its address.
#[derive(Debug)]
pub struct TargetState {
    /// No other target of this process has or had it: what connection pools are keyed by.
    pub id: u64,
    /// Failures in a row.
    pub failures: AtomicU32,
    /// Ejections in a row.
    pub ejections: AtomicU32,
    /// When it may be used again, in milliseconds of the health checker's monotonic clock; 0 if it is not ejected.
    pub ejected_until_ms: AtomicU64,
}

impl TargetState {
    /// A target of which nothing bad is known.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until_ms: AtomicU64::new(0),
        }
    }
}

impl Default for TargetState {
    fn default() -> Self {
        Self::new()
    }
}
