//! What goes wrong, and right again.

use std::time::Duration;

use model::NodeId;

use super::{
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
        match below(12) {
            0 => self.group.crash(one),
            1 | 2 => {
                let operations = 1 + below(60);
                self.group.note(format!("node {one} is to crash at operation {operations}"));
                self.group.members.borrow()[&one].disk.set_fuse(operations);
            }
            3 => {
                self.group.note("all power fails");
                ids.iter().for_each(|id| self.group.crash(*id));
            }
            4 | 5 => self.partition(&ids),
            6 | 7 => {
                self.group.note("the network heals");
                self.group.net.heal();
            }
            8 => {
                let weather = Weather { loss: below(15), delay_ms: 1 + below(200) };
                self.group.note(format!("{weather:?}"));
                self.group.net.set_weather(weather);
            }
            9 => {
                self.group.net.set_weather(Weather::default());
                if let Some(consensus) = self.anyone() {
                    let moved = consensus.transfer(None, Duration::from_secs(5)).await;
                    self.group.note(format!("leadership moves: {moved:?}"));
                }
            }
            10 if ids.len() < 5 => {
                if let Some(through) = self.anyone() {
                    self.group.join(&through).await;
                }
            }
            10 | 11 if ids.len() > 3 => {
                if let Some(through) = self.anyone() {
                    self.group.remove(&through, one).await;
                }
            }
            _ => {}
        }
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
                if self.group.has_blown(id) {
                    self.group.crash(id);
                }
                let down = self.group.members.borrow()[&id].process.is_none();
                if down && (self.over.get() || percent(4)) {
                    self.group.start(id).await;
                }
            }
        }
    }

    /// Ends the faults, and tells the clients that it is over.
    pub(super) fn heal(&self) {
        self.over.set(true);
        self.group.net.heal();
        self.group.net.set_weather(Weather::default());
        self.group.members.borrow().values().for_each(|member| member.disk.set_fuse(u64::MAX));
    }
}
