//! Rate limits of simulated clusters: how far they may be off. What they are measured by is printed by `cargo run --release -p tests
//! --example limits`, and in docs/rate-limits.md.

use phalanx_tests::limits::{Figures, LIMITS, Net, Runs, Scenario, Trouble, measure, measure_trouble};

/// Of all scenarios at all limits but the highest, whose runs take as long as all others together.
fn measured(nodes: usize, net: &Net) -> Runs {
    let mut sum = Runs::default();
    for scenario in Scenario::ALL {
        for (_, limit, window_ms) in LIMITS.into_iter().filter(|(_, limit, _)| *limit <= 1_000) {
            sum.add(&measure(scenario, nodes, (limit, window_ms), net, 1));
        }
    }
    sum
}

#[test]
fn nodes_admit_together_what_one_would() {
    // Of one run each, without the highest limit, at which nodes are off least.
    for (nodes, over_max) in [(3, 0.4), (10, 0.5)] {
        let sum = measured(nodes, &Net::default());
        let (over, under) = (sum.mean(|it| it.over_mean), sum.mean(|it| it.under_mean));
        assert!(over <= over_max && under <= 0.5, "{nodes} nodes: {over} % over, {under} % under");
        let worst = |of| (sum.percent(of), sum.requests(of));
        let (percent, requests) = worst(|it: &Figures| it.over_cold);
        assert!(
            percent <= 25.0 && requests <= 6,
            "{nodes} nodes, at the onset of bursts: {percent} % over, {requests}"
        );
        let (percent, requests) = worst(|it: &Figures| it.over_warm);
        assert!(percent <= 3.0 && requests <= 2, "{nodes} nodes, else: {percent} % over, {requests}");
        let (percent, requests) = worst(|it: &Figures| it.under_worst);
        assert!(percent <= 10.0 && requests <= 1, "{nodes} nodes: {percent} % under, {requests}");
    }
}

#[test]
fn a_bad_network_is_told_from_a_good_one() {
    // What takes a hundred times as long to be heard is admitted twice: the measure sees it.
    let slow = Net { delay_us: 50_000..150_000, loss: 30, ..Net::default() };
    let cold = |net: &Net| measure(Scenario::Cold, 3, (1_000, 1_000), net, 1).over_cold;
    let (good, bad) = (cold(&Net::default()), cold(&slow));
    assert!(bad > 5 * good, "{good} over, and {bad}");
}

#[test]
fn a_seed_gives_the_same_run_twice() {
    let run = || measure(Scenario::Moving, 3, (100, 1_000), &Net::default(), 7);
    assert_eq!(run(), run());
}

#[test]
fn nodes_that_are_cut_off_have_their_part_and_no_more() {
    for trouble in Trouble::ALL {
        let mut sums = [(); 3].map(|()| Runs::default());
        for (_, limit, window_ms) in LIMITS.into_iter().filter(|(_, limit, _)| (100..=1_000).contains(limit))
        {
            let figures = measure_trouble(trouble, 3, (limit, window_ms), 1);
            sums.iter_mut().zip(&figures).for_each(|(sum, figures)| sum.add(figures));
        }
        let [_, during, after] = sums;
        let bar = if trouble == Trouble::One { 35.0 } else { 3.0 };
        let over = during.percent(|it| it.over_warm);
        assert!(over <= bar, "{trouble:?}: {over} % over");
        // Each has a third, be it asked a little less than that.
        let under = during.mean(|it| it.under_mean);
        assert!(under <= 3.0, "{trouble:?}: {under} % under");
        // Until that is known, a second of twelve windows and more, they keep to it.
        let under = after.mean(|it| it.under_mean);
        assert!(under <= 5.0, "after {trouble:?}: {under} % under");
    }
}
