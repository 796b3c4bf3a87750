//! All nodes lose their power at once.

use std::time::Instant;

use phalanx_tests::invariant::Burden;

use super::{Fault, Need};
use crate::{
    disk::Loss,
    figures::Figure::{Failed, Lost, Proxying},
};

pub(super) const FAULTS: &[Fault] = &[Fault {
    name: "power loss of every node, unsynced data dropped",
    needs: &[Need::Disks],
    bars: &[(Failed, 0.0), (Lost, 0.0), (Proxying, 10.0)],
    strike: |stage| {
        stage.expects_elections(1);
        let places = stage.nodes.places();
        places.iter().for_each(|place| stage.bears(*place, Burden::Down));
        stage.lose_power(Loss::All);
        let since = Instant::now();
        stage.nodes.start_all(&places);
        for place in places {
            stage.serves(place);
            stage.is_free(place);
        }
        stage.measure(Proxying, since);
        stage.converges(since);
    },
}];
