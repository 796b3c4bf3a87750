//! What goes wrong, and right again.

use std::time::Duration;

use model::NodeId;

use super::{
    disk::End,
    fuse::{Fuse, STEPS},
    net::Weather,
    run::Simulation,
    runtime::{below, ms, percent},
};

/// For how long clients ask and faults happen.
const BUSY_MS: u64 = 60_000;

impl Simulation {
    /// Makes things go wrong, and right again.
    pub(super) async fn faults(&self) {
        let busy = tokio::time::sleep(Duration::from_millis(BUSY_MS));
        let mut busy = std::pin::pin!(busy);
        loop {
            tokio::select! {
                biased;
                () = &mut busy => return,
                () = tokio::time::sleep(ms(200, 4_000)) => {}
            }
            tokio::select! {
                biased;
                () = &mut busy => return,
                () = self.fault() => {}
            }
        }
    }

    async fn fault(&self) {
        let ids = self.group.ids();
        let one = ids[usize::try_from(below(ids.len() as u64)).unwrap_or_default()];
        match below(16) {
            0 => self.group.end(one, self.group.some_end()),
            1..=4 => {
                let fuse = some_fuse();
                self.group.note(format!("node {one} has a fuse: {fuse:?}"));
                self.group.members.borrow()[&one].disk.set_fuse(fuse);
            }
            5 => {
                self.group.note("all power fails");
                ids.iter().for_each(|id| self.group.end(*id, End::Power));
            }
            6 => self.fill(one),
            7 | 8 => self.partition(&ids),
            9 | 10 => {
                self.group.note("the network heals");
                self.group.net.heal();
            }
            11 => {
                let weather = Weather { loss: below(15), delay_ms: 1 + below(200) };
                self.group.note(format!("{weather:?}"));
                self.group.net.set_weather(weather);
            }
            12 | 13 => {
                self.group.net.set_weather(Weather::default());
                if let Some(consensus) = self.anyone() {
                    let moved = consensus.transfer(None, Duration::from_secs(5)).await;
                    self.group.note(format!("leadership moves: {moved:?}"));
                }
            }
            14 if ids.len() < 5 => {
                if let Some(through) = self.anyone() {
                    self.group.join(&through).await;
                }
            }
            14 | 15 if ids.len() > 3 => {
                if let Some(through) = self.anyone() {
                    self.group.remove(&through, one).await;
                }
            }
            _ => {}
        }
    }

    /// Fills the disk of a node, or makes space on it.
    fn fill(&self, id: NodeId) {
        let members = self.group.members.borrow();
        let full = !members[&id].disk.is_full();
        members[&id].disk.set_full(full);
        self.group.note(format!("the disk of node {id} is {}", if full { "full" } else { "full no more" }));
    }

    fn partition(&self, ids: &[NodeId]) {
        let (some, others): (Vec<NodeId>, Vec<NodeId>) = ids.iter().partition(|_| percent(50));
        match below(3) {
            0 => {
                self.group.note(format!("nothing gets from {some:?} to {others:?}"));
                self.group.net.cut(&some, &others);
            }
            1 => {
                self.group.note(format!("nothing gets between {some:?} and {others:?}"));
                self.group.net.cut(&some, &others);
                self.group.net.cut(&others, &some);
            }
            // A bridge: two nodes do not hear each other, and everyone else hears both.
            _ => {
                let (Some(a), Some(b)) = (some.first(), others.first()) else { return };
                self.group.note(format!("nothing gets between {a} and {b}"));
                self.group.net.cut(&[*a], &[*b]);
                self.group.net.cut(&[*b], &[*a]);
            }
        }
    }

    /// Starts again what crashed, after a while.
    pub(super) async fn restarts(&self) {
        loop {
            tokio::time::sleep(ms(10, 100)).await;
            for id in self.group.ids() {
                self.group.restart(id, self.over.get() || percent(4)).await;
            }
        }
    }

    /// Ends the faults, and tells the clients that it is over.
    pub(super) fn heal(&self) {
        self.over.set(true);
        self.group.net.heal();
        self.group.net.set_weather(Weather::default());
        for member in self.group.members.borrow().values() {
            member.disk.spare();
            member.disk.set_full(false);
        }
    }
}

/// Most are for one step: those that are rare would hardly be met by chance.
fn some_fuse() -> Fuse {
    if percent(30) {
        return Fuse::Operation(1 + below(60));
    }
    let step = STEPS[usize::try_from(below(STEPS.len() as u64)).unwrap_or_default()];
    Fuse::Step(step, 1 + below(3))
}
