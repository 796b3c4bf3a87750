//! One of two targets of an upstream refuses, hangs or resets.

use std::time::{Duration, Instant};

use phalanx_tests::{Load, http, until};

use super::Fault;
use crate::{
    figures::{
        Bar,
        Figure::{Ejected, Elections, Failed, Lost, Repeated},
    },
    stage::{BRITTLE, Stage},
    target::Way,
};

const BARS: &[Bar] = &[(Failed, 0.0), (Lost, 0.0), (Elections, 0.0), (Ejected, 2.0), (Repeated, 0.0)];
/// For which a target that is asked no more is not asked; it is ejected for 10 s.
const QUIET: Duration = Duration::from_secs(2);
/// Requests of which none may be sent twice.
const POSTS: usize = 60;

pub(super) const FAULTS: &[Fault] = &[
    Fault { name: "a target refuses", needs: &[], bars: BARS, strike: |s| breaks(s, Way::Refuses) },
    Fault { name: "a target hangs", needs: &[], bars: BARS, strike: |s| breaks(s, Way::Hangs) },
    Fault { name: "a target resets", needs: &[], bars: BARS, strike: |s| breaks(s, Way::Resets) },
];

fn breaks(stage: &mut Stage, way: Way) {
    let load = Load::start(&stage.nodes.proxies(), 4, 600, BRITTLE);
    load.goes_on(300);
    let broken = Instant::now();
    stage.targets.breaks(1, way);
    // What may be sent once is sent to every node, while the target is found to be broken.
    for number in 0..POSTS {
        let proxy = stage.nodes.member(number % stage.nodes.count()).proxy;
        // It may fail, which is what a client must be told.
        let _ = http::connect(proxy).and_then(|mut stream| {
            http::exchange(&mut stream, "POST", &format!("{BRITTLE}/{number}"), &[], b"once")
        });
    }
    let last = until("the target is asked no more", || {
        let last = stage.targets.asked_broken();
        last.is_none_or(|last| last.elapsed() > QUIET).then_some(last)
    });
    let last = last.map_or(Duration::ZERO, |last| last.saturating_duration_since(broken));
    stage.figures.add(Ejected, last.as_secs_f64());
    stage.figures.add(Repeated, stage.targets.repeated().into());
    stage.targets.breaks(1, Way::Serves);
    let (_, failures) = load.stop();
    // What waited for a target that hangs is told so (504), and not sent again.
    stage.failed(failures.iter().filter(|why| way != Way::Hangs || *why != "status 504"));
}
