//! One fault after the other on a cluster of processes, chosen by a seed, while clients are recorded.

use phalanx_tests::{Cluster, dice::Dice, history::Recording};
use serde_json::json;

/// How many operations a fault lasts, and how many come between two.
const SPELL: u64 = 300;

/// Has faults happen until so many operations have ended; at the end every node runs and hears every other.
pub fn wreak(cluster: &mut Cluster, recording: &Recording, dice: &mut Dice, operations: usize) {
    while recording.done() < operations {
        rest(recording, dice, operations);
        let nodes = cluster.nodes.len();
        let place = usize::try_from(dice.below(nodes as u64)).unwrap_or_default();
        let other = (place + 1) % nodes;
        match dice.below(6) {
            0 => {
                cluster.nodes[place].kill();
                rest(recording, dice, operations);
                cluster.nodes[place].start();
            }
            1 => {
                cluster.nodes[place].pause();
                rest(recording, dice, operations);
                cluster.nodes[place].resume();
            }
            2 => {
                cluster.isolate(place);
                rest(recording, dice, operations);
                cluster.heal();
            }
            3 => {
                cluster.others(place).into_iter().for_each(|other| cluster.cut(other, place));
                rest(recording, dice, operations);
                cluster.heal();
            }
            4 => {
                // A bridge: the others hear both.
                cluster.cut(place, other);
                cluster.cut(other, place);
                rest(recording, dice, operations);
                cluster.heal();
            }
            _ => {
                let to = json!({"node_id": cluster.admin(place).status()["node_id"]});
                // It may lead already, or nobody may.
                let _ = cluster.admin(other).ask("POST", "/v1/cluster/transfer", &to);
            }
        }
    }
}

fn rest(recording: &Recording, dice: &mut Dice, operations: usize) {
    let spell = usize::try_from(1 + dice.below(SPELL)).unwrap_or_default();
    recording.reaches((recording.done() + spell).min(operations));
}
