//! All nodes lose their power at once.

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
        stage.nodes.start_all(&places);
        // Each from the beginning of its process: docker comes to one after the other.
        let mut last = None;
        for place in places {
            let began = stage.nodes.began(place);
            stage.serves(place);
            stage.is_free(place);
            stage.measure(Proxying, began);
            last = last.max(Some(began));
        }
        stage.converges(last.expect("there are nodes"));
    },
}];
