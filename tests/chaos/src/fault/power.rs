//! All nodes lose their power at once.

use std::time::Instant;

use phalanx_tests::{Node, invariant::Burden};

use super::Fault;
use crate::{
    disk::Loss,
    figures::Figure::{Failed, Lost, Proxying},
};

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "power loss of every node, unsynced data dropped",
    nodes: 3,
    disks: true,
    bars: &[(Failed, 0.0), (Lost, 0.0), (Proxying, 10.0)],
    strike: |stage| {
        stage.expects_elections(1);
        (0..3).for_each(|place| stage.bears(place, Burden::Down));
        stage.cluster.nodes.iter_mut().for_each(Node::kill);
        stage.disks.iter().for_each(|disk| disk.lose_power(Loss::All));
        let since = Instant::now();
        stage.cluster.nodes.iter_mut().for_each(Node::start);
        for place in 0..3 {
            stage.serves(place);
            stage.is_free(place);
        }
        stage.measure(Proxying, since);
        stage.converges(since);
    },
}];
