//! Clocks that are wrong, by libfaketime. The monotonic clock goes on as it is: no setting of a clock changes it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use phalanx_tests::invariant::Burden;

use super::{Fault, Need};
use crate::{
    figures::{
        Bar,
        Figure::{CaughtUp, Elections, Failed, Lost},
    },
    stage::Stage,
};

/// How long a clock stays wrong.
const SPELL: Duration = Duration::from_secs(5);
/// Between two changes of a clock that does not stay.
const FLAP: Duration = Duration::from_millis(100);

const BARS: &[Bar] = &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0), (Elections, 0.0)];

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "clocks an hour ahead, of the leader, and behind, of a follower",
        needs: &[Need::Clocks],
        bars: BARS,
        strike: |stage| {
            let [leader, follower] = wrong(stage);
            set(stage, leader, "+3600");
            set(stage, follower, "-3600");
            stage.lasts(SPELL);
            stage.goes_on();
            right(stage, [leader, follower]);
        },
    },
    Fault {
        name: "clocks that jump an hour every 100 ms",
        needs: &[Need::Clocks],
        bars: BARS,
        strike: |stage| {
            let places = wrong(stage);
            let since = Instant::now();
            while since.elapsed() < SPELL {
                for place in places {
                    let shift = if stage.dice.percent(50) { "+3600" } else { "-3600" };
                    set(stage, place, shift);
                }
                stage.lasts(FLAP);
            }
            right(stage, places);
        },
    },
];

/// Where libfaketime is on this machine; none if it is not.
pub(super) fn library() -> Option<PathBuf> {
    let paths =
        ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];
    paths.into_iter().map(|path| Path::new(path).join("libfaketimeMT.so.1")).find(|path| path.exists())
}

fn file(stage: &Stage, place: usize) -> PathBuf {
    stage.nodes.data(place).with_extension("clock")
}

/// Sets the clock of the node at this place: so many seconds from where it should be.
fn set(stage: &Stage, place: usize, shift: &str) {
    let (new, file) = (file(stage, place).with_extension("new"), file(stage, place));
    fs::write(&new, shift).and_then(|()| fs::rename(new, file)).expect("the file can be written");
}

/// Starts the leader's and a follower's processes anew, with clocks that can be set. What that takes is not the fault's.
fn wrong(stage: &mut Stage) -> [usize; 2] {
    let library = library().expect("libfaketime is there");
    let places = [stage.nodes.leader(), stage.nodes.follower()];
    for place in places {
        set(stage, place, "+0");
        let file = file(stage, place).display().to_string();
        let environment = [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", file),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        stage.bears(place, Burden::Down);
        assert_eq!(stage.nodes.stop(place), 0, "it stops in peace");
        for (name, value) in environment {
            stage.nodes.set_variable(place, name, &value);
        }
        stage.comes_back(place);
    }
    // The one that leads now is one of them.
    let _ = stage.nodes.admin(places[1]).ask(
        "POST",
        "/v1/cluster/transfer",
        &serde_json::json!({"node_id": stage.nodes.admin(places[0]).id()}),
    );
    stage.goes_on();
    stage.begins_now();
    places
}

fn right(stage: &mut Stage, places: [usize; 2]) {
    places.into_iter().for_each(|place| set(stage, place, "+0"));
    stage.converges(Instant::now());
}
