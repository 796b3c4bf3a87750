//! What is measured in a run, and the bars that it must keep to.

use std::collections::BTreeMap;

/// What is measured. The order is that of the table's columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Requests that failed at nodes that clients could count on.
    Failed,
    /// Acknowledged writes that are not there at the end.
    Lost,
    /// Seconds until there was a new leader.
    NewLeader,
    /// Seconds until a node that was away had what the others had, or all agreed.
    CaughtUp,
    /// Elections beyond the one that the fault calls for.
    Elections,
    /// Milliseconds in which 99 of 100 writes were acknowledged, or given up with an outcome that nobody knows.
    WriteP99,
    /// Milliseconds until every node that bore nothing refused a key that was revoked.
    Revoked,
    /// Seconds until a leader that was held knew that it is none.
    SteppedDown,
    /// Seconds until every node served a request.
    Proxying,
    /// Seconds until a change of the members had completed, or was undone.
    Settled,
    /// Seconds until a broken target was asked no more.
    Ejected,
    /// Requests that must not be sent again, and were.
    Repeated,
    /// How many times as long half of the requests took as before the fault.
    Slowdown,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Failed,
        Self::Lost,
        Self::NewLeader,
        Self::CaughtUp,
        Self::Elections,
        Self::WriteP99,
        Self::Revoked,
        Self::SteppedDown,
        Self::Proxying,
        Self::Settled,
        Self::Ejected,
        Self::Repeated,
        Self::Slowdown,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed requests",
            Self::Lost => "lost writes",
            Self::NewLeader => "new leader, s",
            Self::CaughtUp => "caught up, s",
            Self::Elections => "extra elections",
            Self::WriteP99 => "write p99, ms",
            Self::Revoked => "key revoked, ms",
            Self::SteppedDown => "stepped down, s",
            Self::Proxying => "proxying, s",
            Self::Settled => "settled, s",
            Self::Ejected => "ejected, s",
            Self::Repeated => "repeated",
            Self::Slowdown => "proxy p50, times",
        }
    }
}

/// What a figure may be at most.
pub type Bar = (Figure, f64);

/// What was measured in one run: the worst, where something was measured several times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures(pub BTreeMap<Figure, f64>);

impl Figures {
    /// Takes one more measurement.
    pub fn add(&mut self, figure: Figure, value: f64) {
        let worst = self.0.entry(figure).or_insert(value);
        *worst = worst.max(value);
    }

    /// The bars that are not kept to; what was not measured keeps to none.
    pub fn missed<'a>(&'a self, bars: &'a [Bar]) -> impl Iterator<Item = &'a Bar> {
        bars.iter().filter(|(figure, bar)| self.0.get(figure).is_none_or(|value| value > bar))
    }
}

/// The value below which this part of the sorted values lies.
pub fn quantile(sorted: &[u64], part: usize, of: usize) -> Option<u64> {
    sorted.get((sorted.len() * part / of).min(sorted.len().saturating_sub(1))).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_missed_by_what_is_above_it_or_was_not_measured() {
        let mut figures = Figures::default();
        figures.add(Figure::NewLeader, 2.0);
        figures.add(Figure::NewLeader, 1.0);
        let missed = |bars| figures.missed(bars).count();
        assert_eq!(missed(&[(Figure::NewLeader, 2.0)]), 0);
        assert_eq!(missed(&[(Figure::NewLeader, 1.5)]), 1);
        assert_eq!(missed(&[(Figure::Lost, 0.0)]), 1);
    }

    #[test]
    fn quantiles_are_of_what_there_is() {
        let sorted: Vec<u64> = (0..100).collect();
        assert_eq!((quantile(&sorted, 99, 100), quantile(&sorted, 1, 2)), (Some(99), Some(50)));
        assert_eq!((quantile(&[7], 99, 100), quantile(&[], 1, 2)), (Some(7), None));
    }
}
