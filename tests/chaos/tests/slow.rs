//! Syncs that take long.

use std::time::Duration;

use chaos::{disk::Disk, disks::Disks, nodes::Site};
use phalanx_tests::{
    Load, alone,
    history::{self, Pace, Recording},
};

#[test]
fn slow_syncs_change_no_leader_and_fail_no_request() {
    if !Disk::is_possible("slow disks") {
        return;
    }
    let _alone = alone();
    let disks = Disks::mount(3).expect("disks are mounted");
    let nodes = Site::Processes.form(3, Some(&disks), 1);
    let _origin = nodes.route_to_origin();
    let load = Load::start(&nodes.proxies(), 2, 300, "/load");
    let recording = Recording::start(&nodes.members(), "r", 1, &Pace::BUSY);
    recording.goes_on(20);
    let term = nodes.term();
    let slow = |ms| disks.iter().for_each(|disk| disk.set_fsync_delay(Duration::from_millis(ms)));
    for ms in [100, 500] {
        slow(ms);
        recording.goes_on(5);
        assert_eq!(nodes.term(), term, "at {ms} ms");
    }
    slow(0);
    recording.goes_on(20);
    assert_eq!(history::judge(&recording.stop()), []);
    // Each write waits for several syncs: longer than those clients would.
    slow(2_000);
    let admin = nodes.admin(0).within(Duration::from_secs(60));
    assert_eq!(admin.put_route("slow", "55s").status, 200);
    assert_eq!(nodes.term(), term, "at 2,000 ms");
    load.stop_without_failure();
}
