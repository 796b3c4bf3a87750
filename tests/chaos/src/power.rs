//! Every node loses its power at once, while clients are recorded, and what their disks had not made durable is gone.

use std::{
    io,
    time::{Duration, Instant},
};

use phalanx_tests::{
    history::{History, Pace, Recording},
    http, until,
};

use crate::{disk::Loss, disks::Disks, nodes::Site};

/// Writes that are acknowledged before each loss.
const WRITES: usize = 60;

/// What came of it.
pub struct Lost {
    /// What clients asked and were told, from before the first loss until after the last.
    pub history: History,
    /// For each loss: from the start of the processes until every node served a request.
    pub proxying: Vec<Duration>,
    /// For each loss: from the start of the processes until writes were acknowledged.
    pub writing: Vec<Duration>,
}

/// How the disks behave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// What was not synced is gone.
    Plain,
    /// Some of what was not synced is there: the first of it, or any of it, with writes torn.
    Disorderly,
    /// No sync makes anything durable once the cluster is formed, which a judge of the history must notice.
    Lying,
}

/// Has all power fail so many times.
///
/// # Errors
/// Where this machine does not mount disks of ours.
pub fn lose_all(site: Site, nodes: usize, losses: u64, seed: u64, sort: Sort) -> io::Result<Lost> {
    let disks = Disks::mount(nodes)?;
    let mut nodes = site.form(nodes, Some(&disks), seed);
    let _origin = nodes.route_to_origin();
    let recording = Recording::start(&nodes.members(), "r", seed, &Pace::BUSY);
    let mut lost = Lost { history: History::default(), proxying: Vec::new(), writing: Vec::new() };
    for number in 0..losses {
        // What was durable before is not what is looked at.
        disks.iter().for_each(|disk| disk.ignore_fsync(sort == Sort::Lying));
        recording.goes_on(WRITES);
        if number % 2 == 1 {
            // What a process that is killed had written is there for the next one, and no more durable than it was.
            nodes.kill(&nodes.places());
            nodes.start_all(&nodes.places());
            recording.goes_on(5);
        }
        let chance = seed.wrapping_mul(1_000).wrapping_add(number);
        let loss = match (sort, number % 2) {
            (Sort::Plain | Sort::Lying, _) => Loss::All,
            (Sort::Disorderly, 0) => Loss::Any(chance),
            (Sort::Disorderly, _) => Loss::Tail(chance),
        };
        disks.lose_power(&mut *nodes, loss);
        let began = Instant::now();
        nodes.start_all(&nodes.places());
        for proxy in nodes.proxies() {
            until("the node proxies", || {
                http::get(proxy, "/x", &[]).ok().filter(|answer| answer.status == 200)
            });
        }
        lost.proxying.push(began.elapsed());
        recording.goes_on(1);
        lost.writing.push(began.elapsed());
    }
    recording.goes_on(WRITES);
    lost.history = recording.stop();
    Ok(lost)
}
