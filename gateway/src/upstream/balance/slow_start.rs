//! Slow start: what has just come into use gets its share little by little.

use std::sync::atomic::Ordering::Relaxed;

use crate::{chance, state::TargetState, timer};

/// Whether the target takes this request: each of them once it has been in use for so long, before that a part of them.
pub(super) fn takes(target: &TargetState, window_ms: u64) -> bool {
    is_taken(timer::now_ms().saturating_sub(target.in_use_since_ms.load(Relaxed)), window_ms)
}

/// The part grows in a line, and is a tenth at first (Envoy's "Slow start mode", with an aggression of 1).
fn is_taken(passed_ms: u64, window_ms: u64) -> bool {
    passed_ms >= window_ms || chance::below(window_ms) < passed_ms.max(window_ms / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_grows_in_a_line_from_a_tenth() {
        for (passed_ms, want) in
            [(0, 1_000_usize), (500, 5_000), (900, 9_000), (1_000, 10_000), (5_000, 10_000)]
        {
            let taken = (0..10_000).filter(|_| is_taken(passed_ms, 1_000)).count();
            assert!(taken.abs_diff(want) < 300, "{passed_ms}: {taken}");
        }
    }
}
