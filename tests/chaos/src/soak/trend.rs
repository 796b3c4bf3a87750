//! Whether what is needed grows: whether its floor rises.
//!
//! The log's segments come and go, and other work on the machine does, so that figures rise and fall. What leaks never
//! comes down again: the lower quartile of the last third is above that of the first.

/// What is left out at the beginning: one of so many parts.
const WARM_UP: usize = 4;
/// By how many percent the floor of a figure that is flat may rise.
const FLAT_PERCENT: u64 = 10;

/// How a figure went, after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trend {
    /// Its lower quartile in the first third.
    pub first: u64,
    /// Its lower quartile in the last third.
    pub last: u64,
    /// Whether that is more by over a tenth.
    pub grows: bool,
}

/// How a figure went that was taken each minute; none: of fewer than eleven values nothing can be said.
pub fn trend(values: &[u64]) -> Option<Trend> {
    let values = &values[values.len() / WARM_UP..];
    let third = values.len() / 3;
    if third < 3 {
        return None;
    }
    let floor = |part: &[u64]| {
        let mut sorted = part.to_vec();
        sorted.sort_unstable();
        sorted[sorted.len() / 4]
    };
    let (first, last) = (floor(&values[..third]), floor(&values[values.len() - third..]));
    Some(Trend { first, last, grows: last * 100 > first * (100 + FLAT_PERCENT) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_rises_after_the_warm_up_grows_and_what_rises_and_falls_is_flat() {
        let rising: Vec<u64> = (0..20).map(|minute| 1_000 + minute * 20).collect();
        assert!(trend(&rising).unwrap().grows);
        let saw: Vec<u64> =
            (0..60).map(|minute| if minute < 15 { minute * 2 } else { 30 + minute % 7 * 5 }).collect();
        assert!(!trend(&saw).unwrap().grows);
        // A leak of half a percent a minute under the same.
        let leaks: Vec<u64> = saw.iter().zip(0..).map(|(value, minute)| value * 200 + minute * 50).collect();
        assert!(trend(&leaks).unwrap().grows);
        // Other work on the machine, for a quarter of the time.
        let busy: Vec<u64> =
            (0..60).map(|minute| if (40..55).contains(&minute) { 600 } else { 440 }).collect();
        assert!(!trend(&busy).unwrap().grows);
        assert_eq!(trend(&[1; 10]), None);
    }
}
