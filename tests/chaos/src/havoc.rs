//! One fault after the other on a cluster, chosen by a seed, while clients are recorded.

use phalanx_tests::{dice::Dice, history::Recording};
use serde_json::json;

use crate::nodes::Nodes;

/// How many operations a fault lasts, and how many come between two.
const SPELL: u64 = 300;

/// Has faults happen until so many operations have ended; at the end every node runs and hears every other.
pub fn wreak(nodes: &mut dyn Nodes, recording: &Recording, dice: &mut Dice, operations: usize) {
    while recording.done() < operations {
        rest(recording, dice, operations);
        let place = usize::try_from(dice.below(nodes.count() as u64)).unwrap_or_default();
        let other = (place + 1) % nodes.count();
        match dice.below(6) {
            0 => {
                nodes.kill(&[place]);
                rest(recording, dice, operations);
                nodes.start(place);
            }
            1 => {
                nodes.pause(place);
                rest(recording, dice, operations);
                nodes.resume(place);
            }
            2 => {
                nodes.isolate(place);
                rest(recording, dice, operations);
                nodes.heal();
            }
            3 => {
                nodes.others(place).into_iter().for_each(|other| nodes.cut(other, place));
                rest(recording, dice, operations);
                nodes.heal();
            }
            4 => {
                // A bridge: the others hear both.
                nodes.cut(place, other);
                nodes.cut(other, place);
                rest(recording, dice, operations);
                nodes.heal();
            }
            _ => {
                let to = json!({"node_id": nodes.admin(place).status()["node_id"]});
                // It may lead already, or nobody may.
                let _ = nodes.admin(other).ask("POST", "/v1/cluster/transfer", &to);
            }
        }
    }
}

fn rest(recording: &Recording, dice: &mut Dice, operations: usize) {
    let spell = usize::try_from(1 + dice.below(SPELL)).unwrap_or_default();
    recording.reaches((recording.done() + spell).min(operations));
}
