//! A node joins that must be sent a snapshot, over a slow way.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use phalanx_tests::{
    Admin,
    links::{Carrier, Weather},
    until,
};
use serde_json::Value;

use super::{Fault, Need, membership};
use crate::figures::Figure::{Elections, Failed, Lost, Settled};

/// After so many entries a snapshot is made, and the log before it is let go; with each, its outcome is kept, which makes the
/// snapshot more than a megabyte large.
const ENTRIES: usize = 10_500;
const CLIENTS: usize = 32;
/// For each part of what is sent to the new node, and of its answers. A window of HTTP/2 takes two of them.
const SLOW: Weather = Weather { loss_percent: 0, delay_ms: 200..300 };

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "a snapshot for a new node, over a slow way",
    needs: &[Need::Relays],
    bars: &[(Failed, 0.0), (Lost, 0.0), (Elections, 0.0), (Settled, 60.0)],
    strike: |stage| {
        let leader = stage.nodes.leader();
        fill_log(stage.nodes.admin(leader));
        let place = membership::add(stage);
        for other in 0..place {
            for (from, to) in [(other, place), (place, other)] {
                stage.links().set_weather_on(Carrier::Tcp, from, to, &SLOW);
            }
        }
        let since = Instant::now();
        let id = membership::join(stage, place, leader);
        membership::settles(stage, &[leader], id, since);
        let [sent, got] = [leader, place].map(|place| snapshots(stage.nodes.data(place)));
        assert!(
            got.intersection(&sent).count() > 0,
            "it was sent no snapshot: it has {got:?}, the leader {sent:?}"
        );
        stage.nodes.heal();
        stage.converges(Instant::now());
    },
}];

/// The snapshots in a data folder, by their names, which tell what is in them.
fn snapshots(data: &Path) -> BTreeSet<OsString> {
    let files = fs::read_dir(data.join("snapshots")).into_iter().flatten().flatten();
    files.map(|file| file.file_name()).collect()
}

/// Has so many entries come in that change no config: each deletes a token that there is none of.
fn fill_log(admin: &Admin) {
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let admin = admin.within(Duration::from_secs(10));
            scope.spawn(move || {
                for number in 0..ENTRIES / CLIENTS {
                    let target = format!("/v1/cluster/tokens/none-{client}-{number}");
                    until("an entry is taken", || {
                        let answer = admin.ask("DELETE", &target, &Value::Null).ok()?;
                        matches!(answer.status, 200..300 | 404).then_some(())
                    });
                }
            });
        }
    });
}
