//! How far what a cluster admitted is from what one central limiter did.

use std::ops::Range;

use limits::Rule;

use super::{
    scenario::Scenario,
    world::{Fault, Net, run},
};

/// Limits that are measured: their names, requests, and windows in milliseconds.
pub const LIMITS: [(&str, u32, u32); 5] = [
    ("10/min", 10, 60_000),
    ("100/min", 100, 60_000),
    ("100/s", 100, 1_000),
    ("1k/s", 1_000, 1_000),
    ("10k/s", 10_000, 1_000),
];
/// Below it, what is too much is told in requests.
pub const FEW: u32 = 100;
/// Windows of a run.
const WINDOWS: u64 = 32;
/// After which time nodes know who reaches whom.
const DETECTED_US: u64 = 1_000_000;

/// What was admitted in each window.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    /// By the cluster.
    pub cluster: Vec<u64>,
    /// By the central limiter.
    pub central: Vec<u64>,
    /// In which something was asked after a rest of half a window or more.
    pub cold: Vec<bool>,
}

/// How far a run is off.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// What is allowed in a window.
    pub limit: u32,
    /// Too much, on average over all windows, in percent.
    pub over_mean: f64,
    /// Too much in the worst window that was [cold](Windows::cold), in requests.
    pub over_cold: u64,
    /// Too much in the worst other window, in requests.
    pub over_warm: u64,
    /// Too little, on average.
    pub under_mean: f64,
    /// Too little in the worst window, in requests.
    pub under_worst: u64,
    /// Records that each node sent, a second; what goes to several peers counts for each.
    pub records: f64,
}

/// The figures of several runs.
#[derive(Debug, Clone, Default)]
pub struct Runs(Vec<Figures>);

impl Windows {
    /// For so many windows.
    pub fn new(windows: u64) -> Self {
        let none = vec![0; usize::try_from(windows + 1).unwrap_or_default()];
        let cold = vec![false; none.len()];
        Self { cluster: none.clone(), central: none, cold }
    }

    /// The figures of these windows, of what is limited to so many requests in each.
    pub fn figures(&self, limit: u32, of: Range<u64>) -> Figures {
        let mut figures = Figures { limit, ..Figures::default() };
        let (mut over, mut under) = (0, 0);
        for (at, is_cold) in self.cold.iter().enumerate().filter(|(at, _)| of.contains(&(*at as u64))) {
            let (cluster, central) = (self.cluster[at], self.central[at]);
            let (more, less) = (cluster.saturating_sub(central), central.saturating_sub(cluster));
            over += more;
            under += less;
            let worst = if *is_cold { &mut figures.over_cold } else { &mut figures.over_warm };
            *worst = more.max(*worst);
            figures.under_worst = less.max(figures.under_worst);
        }
        let allowed = f64::from(limit) * (of.end - of.start) as f64;
        (figures.over_mean, figures.under_mean) =
            (over as f64 * 100.0 / allowed, under as f64 * 100.0 / allowed);
        figures
    }
}

impl Runs {
    /// Takes a run's figures.
    pub fn add(&mut self, figures: &Figures) {
        self.0.push(*figures);
    }

    /// Takes those of others.
    pub fn merge(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// The mean of a figure.
    pub fn mean(&self, of: fn(&Figures) -> f64) -> f64 {
        self.0.iter().map(of).sum::<f64>() / self.0.len().max(1) as f64
    }

    /// The worst of a figure in percent of the limit, of limits of [`FEW`] and more, of which a request is a percent or less.
    pub fn percent(&self, of: fn(&Figures) -> u64) -> f64 {
        let many = self.0.iter().filter(|figures| figures.limit >= FEW);
        many.map(|figures| of(figures) as f64 * 100.0 / f64::from(figures.limit)).fold(0.0, f64::max)
    }

    /// The worst of a figure in requests, of limits below [`FEW`].
    pub fn requests(&self, of: fn(&Figures) -> u64) -> u64 {
        self.0.iter().filter(|figures| figures.limit < FEW).map(of).max().unwrap_or_default()
    }
}

/// Has a cluster of so many nodes answer this scenario, limited to so many requests in so many milliseconds.
pub fn measure(
    scenario: Scenario,
    nodes: usize,
    (limit, window_ms): (u32, u32),
    net: &Net,
    seed: u64,
) -> Figures {
    let rule = Rule::new(limit, window_ms).expect("it is one");
    let world = run(scenario, nodes, rule, WINDOWS, net.clone(), Vec::new(), seed);
    let seconds = WINDOWS as f64 * f64::from(window_ms) / 1e3;
    let records = world.sent as f64 / seconds / nodes as f64;
    Figures { records, ..world.windows.figures(limit, 0..WINDOWS) }
}

/// Something that befalls a cluster at which twice what is allowed is asked evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// One node is cut off.
    One,
    /// All nodes are cut off from each other.
    All,
    /// A node starts anew in the middle of a window.
    Restart,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::One, Self::All, Self::Restart];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "one node cut off",
            Self::All => "all nodes cut off from each other",
            Self::Restart => "a node starts anew",
        }
    }
}

/// What came of it: until the nodes know of it, from then on, and once it is over.
pub fn measure_trouble(
    trouble: Trouble,
    nodes: usize,
    (limit, window_ms): (u32, u32),
    seed: u64,
) -> [Figures; 3] {
    let rule = Rule::new(limit, window_ms).expect("it is one");
    let window_us = u64::from(window_ms) * 1_000;
    // It begins with a window, is known a second later, and what was admitted before that is out of sight two windows later.
    let (from, to) = (8, 20);
    let (begin_us, end_us) = (from * window_us, to * window_us);
    let known = (DETECTED_US.div_ceil(window_us) + 2).min(to - from);
    let faults = match trouble {
        Trouble::Restart => vec![(begin_us + window_us / 2, Fault::Restart(0))],
        Trouble::One | Trouble::All => {
            let cut_off = if trouble == Trouble::One { 1 } else { nodes };
            vec![
                (begin_us, Fault::Isolate(cut_off)),
                (begin_us + DETECTED_US, Fault::Detect),
                (end_us, Fault::Heal),
                (end_us + DETECTED_US, Fault::Detect),
            ]
        }
    };
    let windows = run(Scenario::Uniform, nodes, rule, WINDOWS, Net::default(), faults, seed).windows;
    [from..from + known, from + known..to, to..WINDOWS].map(|part| windows.figures(limit, part))
}
