//! What is done to a cluster: a file for each fault, or for each kind of faults.

mod clock;
mod damage;
mod disk;
mod gossip;
mod kill;
mod membership;
mod partition;
mod pause;
mod power;
mod restart;
mod snapshot;
mod upstream;
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

/// Everything that can be done on this machine.
pub fn all() -> Vec<&'static Fault> {
    [
        kill::FAULTS,
        pause::FAULTS,
        partition::FAULTS,
        weather::FAULTS,
        if clock::library().is_some() { clock::FAULTS } else { &[] },
        disk::FAULTS,
        damage::FAULTS,
        power::FAULTS,
        restart::FAULTS,
        if restart::before().is_some() { restart::UPGRADES } else { &[] },
        membership::FAULTS,
        gossip::FAULTS,
        upstream::FAULTS,
        snapshot::FAULTS,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is to be done, and is not.
pub fn not_run() -> Vec<NotRun> {
    let mut not_run = Vec::new();
    if clock::library().is_none() {
        not_run.push(("clocks that are wrong", "libfaketime is not installed"));
    }
    if restart::before().is_none() {
        not_run.push(("rolling upgrade", "$PHALANX_GWNODE_BEFORE names no build to come from"));
    }
    not_run
}
