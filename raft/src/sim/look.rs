//! Someone who looks at every node all the while, and at the end whether they agree.

use std::time::Duration;

use model::Revision;

use super::run::{Simulation, contents};
use crate::Role;

/// For a healed cluster to agree.
const SETTLE_MS: u64 = 120_000;

impl Simulation {
    /// Looks at every node, over and over.
    pub(super) async fn looks(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.look();
        }
    }

    fn look(&self) {
        for (id, process) in self.group.running() {
            // On a full disk it ends as it should.
            if let Some(why) = &*process.consensus.fatal().borrow()
                && !process.mount.has_refused()
            {
                self.group.violate(format!("consensus has ended on node {id}: {why}"));
            }
            let status = process.consensus.status();
            if status.role == Role::Leader {
                let leader = *self.leaders.borrow_mut().entry(status.term).or_insert_with(|| {
                    self.group.note(format!("node {id} leads term {}", status.term));
                    id
                });
                if leader != id {
                    self.group.violate(format!("term {} has two leaders, {leader} and {id}", status.term));
                }
            }
            let revision = process.consensus.config().borrow().revision;
            let before = self.newest.borrow_mut().insert(id, revision);
            match before {
                Some(before) if before == revision => continue,
                Some(before) if before > revision => {
                    self.group.violate(format!("node {id} went from revision {before} back to {revision}"));
                }
                _ => {}
            }
            let (revision, contents) = contents(&process.consensus);
            if let Err(wrong) = self.history.borrow_mut().see(revision, &contents) {
                self.group.violate(format!("node {id}: {wrong}"));
            }
        }
    }

    fn agree(&self) -> bool {
        let (ids, running) = (self.group.ids(), self.group.running());
        let led = running.iter().all(|(_, process)| {
            let status = process.consensus.status();
            status.leader.is_some() && status.voters == ids && status.learners.is_empty()
        });
        let revisions = running.iter().map(|(_, process)| process.consensus.config().borrow().revision);
        let mut revisions: Vec<Revision> = revisions.collect();
        revisions.dedup();
        led && ids.iter().all(|id| running.iter().any(|(running, _)| running == id)) && revisions.len() == 1
    }

    pub(super) async fn settle(&self) {
        let until = self.group.now() + SETTLE_MS;
        while !self.agree() {
            self.group.learn().await;
            self.group.end_removed();
            if self.group.now() > until {
                let states = self.group.running();
                let states = states.iter().map(|(id, process)| (id.0, process.consensus.status()));
                let states: Vec<_> = states.collect();
                return self.group.violate(format!("it does not settle: {states:?}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.look();
        self.group.note("all agree");
    }
}
