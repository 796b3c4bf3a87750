//! What is done to a cluster: a file for each fault, or for each kind of faults.

mod damage;
mod disk;
mod gossip;
mod kill;
mod membership;
mod partition;
mod pause;
mod power;
mod restart;
mod weather;

use crate::{figures::Bar, stage::Stage};

/// Something that is done to a cluster under traffic and writes.
pub struct Fault {
    /// What it is called.
    pub name: &'static str,
    /// How many nodes there are.
    pub nodes: usize,
    /// Whether their disks are ours.
    pub disks: bool,
    /// What it is held to, beside the promises.
    pub bars: &'static [Bar],
    /// Does it, and leaves all nodes in peace again.
    pub strike: fn(&mut Stage),
}

/// A row of the table that there is no run for, and why.
pub type NotRun = (&'static str, &'static str);

/// Everything that can be done.
pub fn all() -> Vec<&'static Fault> {
    [
        kill::FAULTS,
        pause::FAULTS,
        partition::FAULTS,
        weather::FAULTS,
        disk::FAULTS,
        damage::FAULTS,
        power::FAULTS,
        restart::FAULTS,
        membership::FAULTS,
        gossip::FAULTS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is to be done, and is not.
pub const NOT_RUN: &[NotRun] = &[
    ("clock ± 1 h, 100 ms flaps", "no fault of this kind yet"),
    ("rolling upgrade N−1 → N → N−1", "there is no released build to come from"),
    ("upstream refuses, hangs, resets", "no fault of this kind yet"),
    ("snapshot larger than one chunk timeout", "no fault of this kind yet"),
];
