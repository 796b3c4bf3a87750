//! Counts of keys for which the table has no room: a count-min sketch (Cormode and Muthukrishnan, "An improved data stream summary:
//! the count-min sketch and its applications", 2005), which may count too much and never too little.

use std::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Relaxed},
};

use crate::rule::Rule;

const ROWS: u64 = 2;
const CELLS: u64 = 1 << 16;

/// The counts. Each cell has a window's number, and in the lower half what was admitted in it.
#[derive(Debug)]
pub(crate) struct Sketch {
    cells: Box<[AtomicU64]>,
}

impl Sketch {
    pub(crate) fn new() -> Self {
        Self { cells: (0..ROWS * CELLS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Admits a request of this cost if the key has had less than `limit` in its window, counting other keys' requests as its own where
    /// they share its cells.
    pub(crate) fn acquire(&self, key: u64, rule: Rule, limit: f64, cost: u32, now_us: u64) -> bool {
        let (window, _) = rule.window(now_us);
        let cells = [0, 1].map(|row| {
            let mixed = (key ^ row).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48;
            &self.cells[usize::try_from(row * CELLS + mixed % CELLS).unwrap_or_default()]
        });
        let counts = cells.map(|cell| {
            let state = cell.load(Relaxed);
            if state >> 32 == u64::from(window) { state & u64::from(u32::MAX) } else { 0 }
        });
        let admitted = counts[0].min(counts[1]) + u64::from(cost);
        if admitted as f64 > limit {
            return false;
        }
        for cell in cells {
            // Another key's window may be in it: the greater number stays, and a count that gets lost is of a key that is rare.
            let next = u64::from(window) << 32 | admitted.min(u64::from(u32::MAX));
            let _ = cell.fetch_update(AcqRel, Relaxed, |state| {
                (state >> 32 != u64::from(window) || state < next).then_some(next)
            });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_limit_in_each_window() {
        let (sketch, rule) = (Sketch::new(), Rule::new(10, 1_000).unwrap());
        let admitted = |key, now_us| (0..20).filter(|_| sketch.acquire(key, rule, 10.0, 1, now_us)).count();
        assert_eq!(admitted(7, 5_000_000), 10);
        assert_eq!(admitted(8, 5_000_000), 10);
        assert_eq!(admitted(7, 5_999_999), 0);
        assert_eq!(admitted(7, 6_000_000), 10);
    }
}
