//! Measures rate limits of simulated clusters against one central limiter: the tables of docs/rate-limits.md.
//!
//! `limits [--each] [NODES …]`; with `--each`, every limit in a row of its own.

use phalanx_tests::limits::{Figures, LIMITS, Net, Runs, Scenario, Trouble, measure, measure_trouble};

/// Runs of each scenario at each limit.
const SEEDS: u64 = 5;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let each = words.iter().any(|word| word == "--each");
    let sizes: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    for nodes in if sizes.is_empty() { vec![3, 10, 50] } else { sizes } {
        println!("\nN = {nodes}, {SEEDS} runs each\n");
        println!(
            "| scenario | over mean, % | worst cold, % | worst warm, % | under mean, % | worst, % | records a second and node |"
        );
        println!("|---|---|---|---|---|---|---|");
        let mut all = Runs::default();
        for scenario in Scenario::ALL {
            let mut sum = Runs::default();
            for (name, limit, window_ms) in LIMITS {
                let mut one = Runs::default();
                (1..=SEEDS).for_each(|seed| {
                    one.add(&measure(scenario, nodes, (limit, window_ms), &Net::default(), seed));
                });
                if each {
                    row(&format!("{}, {name}", scenario.name()), &one);
                }
                sum.merge(&one);
            }
            if !each {
                row(scenario.name(), &sum);
            }
            all.merge(&sum);
        }
        row("**all**", &all);
        for trouble in Trouble::ALL {
            let mut sums = [(); 3].map(|()| Runs::default());
            for (_, limit, window_ms) in LIMITS {
                for seed in 1..=SEEDS {
                    let figures = measure_trouble(trouble, nodes, (limit, window_ms), seed);
                    sums.iter_mut().zip(&figures).for_each(|(sum, figures)| sum.add(figures));
                }
            }
            for (part, sum) in ["until it is known", "from then on", "after it"].iter().zip(&sums) {
                row(&format!("{}, {part}", trouble.name()), sum);
            }
        }
    }
}

fn row(name: &str, sum: &Runs) {
    let worst = |of: fn(&Figures) -> u64| match sum.requests(of) {
        0 => format!("{:.1}", sum.percent(of)),
        requests => format!("{:.1}; {requests} of 10", sum.percent(of)),
    };
    let records = sum.mean(|figures| figures.records);
    println!(
        "| {name} | {:.2} | {} | {} | {:.2} | {} | {} |",
        sum.mean(|figures| figures.over_mean),
        worst(|figures| figures.over_cold),
        worst(|figures| figures.over_warm),
        sum.mean(|figures| figures.under_mean),
        worst(|figures| figures.under_worst),
        if records == 0.0 { String::new() } else { format!("{records:.0}") },
    );
}
