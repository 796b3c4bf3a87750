//! Promise 1 under a loss of all power.

use chaos::{
    disk::Disk,
    nodes::Site,
    power::{self, Sort},
};
use phalanx_tests::{alone, history};

#[test]
fn what_was_acknowledged_survives_when_every_node_loses_its_power() {
    if !Disk::is_possible("the loss of all power") {
        return;
    }
    let _alone = alone();
    for disks in [Sort::Plain, Sort::Disorderly] {
        let lost = power::lose_all(Site::Processes, 3, 2, 1, disks).expect("disks are mounted");
        assert_eq!(history::judge(&lost.history), [], "{disks:?}");
    }
}

#[test]
fn a_disk_that_lies_about_its_syncs_is_found_out() {
    if !Disk::is_possible("the loss of all power with disks that lie") {
        return;
    }
    let _alone = alone();
    let lost = power::lose_all(Site::Processes, 3, 1, 1, Sort::Lying).expect("disks are mounted");
    assert_ne!(history::judge(&lost.history), []);
}
