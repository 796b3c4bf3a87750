//! Clients that ask whichever node, and write down what they were told.

use std::{sync::Arc, time::Duration};

use model::{Kind, Name, Op, Outcome, Revision};

use super::{
    history::{Asked, Told},
    run::{Plant, Simulation, contents},
    runtime::{below, ms, percent},
};
use crate::{Consensus, Edit, Error};

/// Objects that clients write to.
const NAMES: u64 = 6;

impl Simulation {
    /// Writes and reads through whichever node, one after the other.
    pub(super) async fn client(&self) {
        while !self.over.get() {
            tokio::time::sleep(ms(1, 400)).await;
            let Some(consensus) = self.anyone() else { continue };
            let timeout = ms(500, 8_000);
            let asked = if percent(65) {
                self.write(&consensus, timeout).await
            } else {
                self.read(&consensus, timeout).await
            };
            self.history.borrow_mut().asked.push(asked);
        }
    }

    async fn write(&self, consensus: &Consensus, timeout: Duration) -> Asked {
        let value = self.values.get() + 1;
        self.values.set(value);
        let name = format!("u{}", below(NAMES));
        let doc = format!(r#"{{"targets":[{{"address":"10.0.0.1:{value}"}}]}}"#);
        let put = Op::Put {
            kind: Kind::Upstream,
            name: Name::new(&name).expect("a name"),
            doc: Arc::from(doc.as_bytes()),
        };
        let key = percent(50).then(|| format!("key-{value}"));
        let edit = Edit { ops: vec![put], idempotency_key: key, author: "sim".into(), ..Edit::default() };
        let from_ms = self.group.now();
        let mut answer = consensus.change(edit.clone(), timeout).await;
        // A client with a key of its own may ask again, elsewhere, when it was not told.
        if edit.idempotency_key.is_some()
            && matches!(answer, Err(Error::TimedOut(_)))
            && let Some(other) = self.anyone()
        {
            answer = match other.change(edit, timeout).await {
                // "Nothing was changed" is about the second try alone.
                Err(Error::NoQuorum) => Err(Error::TimedOut(timeout)),
                other => other,
            };
        }
        if self.plant == Plant::LostAcknowledgement && answer.is_err() {
            answer = Ok(Outcome::Applied(Revision(self.history.borrow().seen.len() as u64 + 1)));
        }
        let told = match &answer {
            Ok(Outcome::Applied(revision)) => Told::Done(*revision),
            Err(Error::NoQuorum) => Told::Refused,
            Err(Error::TimedOut(_) | Error::Fatal(_) | Error::Refused { .. }) => Told::Unknown,
            Ok(_) | Err(_) => {
                self.group.violate(format!("a write of {value} was answered {answer:?}"));
                Told::Unknown
            }
        };
        self.group.note(format!("write {name} {value}: {told:?}"));
        Asked { from_ms, to_ms: self.group.now(), write: Some((name, doc)), told }
    }

    async fn read(&self, consensus: &Consensus, timeout: Duration) -> Asked {
        let from_ms = self.group.now();
        let barrier = match self.plant {
            Plant::StaleRead => Ok(()),
            _ => consensus.read_barrier(timeout).await,
        };
        let told = match barrier {
            Ok(()) => Told::Done(contents(consensus).0),
            Err(_) => Told::Refused,
        };
        self.group.note(format!("read: {told:?}"));
        Asked { from_ms, to_ms: self.group.now(), write: None, told }
    }
}
