//! Counts of keys for which the table has no room: a count-min sketch (Cormode and Muthukrishnan, "An improved data stream summary:
//! the count-min sketch and its applications", 2005), which may count too much for a key, where others share its cells.

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
            &self.cells[usize::try_from(row * CELLS + mixed(key, row) % CELLS).unwrap_or_default()]
        });
        // A cell that another window has says nothing of this one.
        let count = |cell: &AtomicU64| {
            let state = cell.load(Relaxed);
            (state >> 32 == u64::from(window)).then_some(state & u64::from(u32::MAX))
        };
        let admitted = cells.into_iter().filter_map(count).min().unwrap_or_default() + u64::from(cost);
        if admitted as f64 > limit {
            return false;
        }
        for cell in cells {
            // A window takes a cell over from another: what that one had counted is in its other cell, or lost.
            let next = u64::from(window) << 32 | admitted.min(u64::from(u32::MAX));
            let _ = cell.fetch_update(AcqRel, Relaxed, |state| {
                (state >> 32 != u64::from(window) || state < next).then_some(next)
            });
        }
        true
    }
}

/// The key's bits, mixed in another way for each row (the last steps of SplitMix64).
fn mixed(key: u64, row: u64) -> u64 {
    let mut bits = key.wrapping_add((row + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
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
