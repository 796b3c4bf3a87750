//! Promise 9: a full disk, and one whose syncs fail.

use chaos::{disk::Disk, disks::Disks, nodes::Site};
use phalanx_tests::{
    Load, alone,
    history::{self, Pace, Recording},
    until,
};
use serde_json::Value;

/// Has something happen to the disk of a follower and then of the leader, and ends it again: what was acknowledged stays, the
/// others go on, and the node serves clients all the while until it is started anew and catches up.
fn serves_on_and_catches_up(
    breaks: impl Fn(&Disk),
    heals: impl Fn(&Disk),
    is_broken: impl Fn(&Disk) -> bool,
) {
    if !Disk::is_possible("broken disks") {
        return;
    }
    let _alone = alone();
    let disks = Disks::mount(3).expect("disks are mounted");
    let mut nodes = Site::Processes.form(3, Some(&disks), 1);
    let _origin = nodes.route_to_origin();
    let recording = Recording::start(&nodes.members(), "r", 1, &Pace::BUSY);
    for role in ["follower", "leader"] {
        let hit = if role == "leader" { nodes.leader() } else { nodes.follower() };
        let others = nodes.others(hit);
        let load = Load::start(
            &others.iter().map(|place| nodes.member(*place).proxy).collect::<Vec<_>>(),
            2,
            300,
            "/load",
        );
        let hit_load = Load::start(&[nodes.member(hit).proxy], 2, 100, "/load");
        recording.goes_on(20);
        breaks(disks.of(hit));
        until("it shows", || is_broken(disks.of(hit)).then_some(()));
        let new = nodes.leader_among(&others);
        recording.goes_on(40);
        hit_load.goes_on(100);
        hit_load.stop_without_failure();
        let read = nodes.admin(hit).ask("GET", "/v1/routes", &Value::Null);
        assert_eq!(read.expect("it can be read from").status, 200);
        heals(disks.of(hit));
        // Whoever supervises it starts it again.
        assert_ne!(nodes.ended(hit), 0);
        nodes.start(hit);
        let (newest, _) = nodes.admin(new).routes();
        until("the node has caught up", || {
            let seen = nodes.admin(hit).ask("GET", "/v1/routes?limit=1", &Value::Null).ok()?;
            (seen.json()["revision"].as_u64() >= Some(newest)).then_some(())
        });
        load.stop_without_failure();
    }
    assert_eq!(history::judge(&recording.stop()), []);
}

#[test]
fn a_node_whose_disk_is_full_serves_on_and_catches_up_once_there_is_room() {
    serves_on_and_catches_up(
        |disk| disk.set_room(Some(0)),
        |disk| disk.set_room(None),
        |disk| disk.figures().full > 0,
    );
}

#[test]
fn a_node_whose_syncs_fail_serves_on_and_catches_up_once_they_work() {
    serves_on_and_catches_up(
        |disk| disk.fail_fsync(Some(libc::EIO)),
        |disk| disk.fail_fsync(None),
        |disk| disk.figures().failed_fsyncs > 0,
    );
}
