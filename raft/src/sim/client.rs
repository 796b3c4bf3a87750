//! Clients that ask whichever node, and write down what they were told.

use std::{sync::Arc, time::Duration};

use model::{Kind, Name, Op, Outcome, Revision};

use super::{
    history::{Asked, Told, Write},
    run::{Plant, Simulation, contents},
    runtime::{below, ms, percent},
};
use crate::{Consensus, Edit, Error, Expect};

/// Objects that clients write to.
const NAMES: u64 = 6;

fn some_name() -> String {
    format!("u{}", below(NAMES))
}

fn name(name: &str) -> Name {
    Name::new(name).expect("a name")
}

fn op((to, value): &(String, Option<String>)) -> Op {
    let (kind, name) = (Kind::Upstream, name(to));
    match value {
        Some(doc) => Op::Put { kind, name, doc: Arc::from(doc.as_bytes()) },
        None => Op::Delete { kind, name },
    }
}

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

    fn some_op(&self) -> (String, Option<String>) {
        let value = self.values.get() + 1;
        self.values.set(value);
        let doc = format!(r#"{{"targets":[{{"address":"10.0.0.1:{value}"}}]}}"#);
        (some_name(), (!percent(20)).then_some(doc))
    }

    /// One operation most often; or several on the config that this node has; or one on an object as this node has it.
    fn some_write(&self, consensus: &Consensus) -> Write {
        match below(10) {
            0 | 1 => {
                let ops = (0..=below(3)).map(|_| self.some_op()).collect();
                Write { ops, base: Some(contents(consensus).0), expect: None }
            }
            2 | 3 => {
                let op = self.some_op();
                let changed = contents(consensus).1.get(&op.0).map(|(changed, _)| *changed);
                Write { expect: Some((op.0.clone(), changed)), ops: vec![op], base: None }
            }
            _ => Write { ops: vec![self.some_op()], ..Write::default() },
        }
    }

    async fn write(&self, consensus: &Consensus, timeout: Duration) -> Asked {
        let write = self.some_write(consensus);
        let expect = write.expect.iter();
        let expect = expect.map(|(object, changed)| Expect {
            kind: Kind::Upstream,
            name: name(object),
            changed: *changed,
        });
        let edit = Edit {
            ops: write.ops.iter().map(op).collect(),
            expect: expect.collect(),
            base: write.base,
            author: "sim".into(),
            idempotency_key: percent(50).then(|| format!("key-{}", self.values.get())),
        };
        let from_ms = self.group.now();
        let mut answer = consensus.change(edit.clone(), timeout).await;
        // A client with a key of its own may ask again, elsewhere, when it was not told.
        if edit.idempotency_key.is_some()
            && matches!(answer, Err(Error::TimedOut(_)))
            && let Some(other) = self.anyone()
        {
            answer = match other.change(edit, timeout).await {
                // "Nothing was changed" is about the second try alone.
                Ok(Outcome::Conflict(_)) | Err(Error::NoQuorum | Error::Conflict { .. }) => {
                    Err(Error::TimedOut(timeout))
                }
                other => other,
            };
        }
        if self.plant == Plant::LostAcknowledgement && answer.is_err() {
            answer = Ok(Outcome::Applied(Revision(self.history.borrow().seen.len() as u64 + 1)));
        }
        let told = match &answer {
            Ok(Outcome::Applied(revision)) => Told::Done(*revision),
            Ok(Outcome::Unchanged(revision)) => Told::Unchanged(*revision),
            Ok(Outcome::Conflict(_)) | Err(Error::NoQuorum | Error::Conflict { .. }) => Told::Refused,
            Err(Error::TimedOut(_) | Error::Fatal(_) | Error::Refused { .. }) => Told::Unknown,
            Err(_) => {
                self.group.violate(format!("{write:?} was answered {answer:?}"));
                Told::Unknown
            }
        };
        self.group.note(format!("{write:?}: {told:?}"));
        Asked { from_ms, to_ms: self.group.now(), write: Some(write), told }
    }

    async fn read(&self, consensus: &Consensus, timeout: Duration) -> Asked {
        let from_ms = self.group.now();
        let barrier = match self.plant {
            Plant::StaleRead => Ok(()),
            _ => consensus.read_barrier(timeout).await,
        };
        let told = match barrier {
            Ok(()) => {
                let (revision, contents) = contents(consensus);
                if let Err(wrong) = self.history.borrow_mut().see(revision, &contents) {
                    self.group.violate(format!("a read: {wrong}"));
                }
                Told::Done(revision)
            }
            Err(_) => Told::Refused,
        };
        self.group.note(format!("read: {told:?}"));
        Asked { from_ms, to_ms: self.group.now(), write: None, told }
    }
}
