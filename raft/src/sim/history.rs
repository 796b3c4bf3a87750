//! What clients asked and were told, and whether it could be so.
//!
//! Each change says which revision it made, and each read at which revision it saw: the order of revisions is the order in
//! which it all must have happened, and no search for one is needed but for what nobody was told of (see `replay`). What is
//! checked is strict serialisability (Herlihy and Wing, "Linearizability", 1990, over the whole config as one object), and
//! that "nothing was changed" is true.

use std::collections::BTreeMap;

use model::Revision;

/// An object: the revision that last changed it, and its value.
pub(crate) type Object = (Revision, String);
/// What a config held: each object by its name.
pub(crate) type Contents = BTreeMap<String, Object>;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It was made, or seen, at this revision.
    Done(Revision),
    /// At this revision there was nothing to change.
    Unchanged(Revision),
    /// Nothing was changed.
    Refused,
    /// It may have happened, or may yet.
    Unknown,
}

/// A write: all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Write {
    /// Objects, each with its new value, which no other write has, or none if it is deleted.
    pub(crate) ops: Vec<(String, Option<String>)>,
    /// The revision that it must be made on.
    pub(crate) base: Option<Revision>,
    /// An object, and the revision that must have changed it last; none if there must be no such object.
    pub(crate) expect: Option<(String, Option<Revision>)>,
}

/// One thing that a client asked, in milliseconds of the simulation.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    /// None: it was a read.
    pub(crate) write: Option<Write>,
    pub(crate) told: Told,
}

impl Asked {
    /// The revision at which it happened, where that is known.
    fn at(&self) -> Option<Revision> {
        match self.told {
            Told::Done(revision) | Told::Unchanged(revision) => Some(revision),
            Told::Refused | Told::Unknown => None,
        }
    }
}

/// Everything that was seen.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) asked: Vec<Asked>,
    /// The config at each revision that was looked at.
    pub(crate) seen: BTreeMap<Revision, Contents>,
}

impl History {
    /// Notes a config that a node has; says so if another node had another one under its revision.
    pub(crate) fn see(&mut self, revision: Revision, contents: &Contents) -> Result<(), String> {
        match self.seen.get(&revision) {
            Some(other) if other != contents => {
                Err(format!("two configs at revision {revision}: {other:?} and {contents:?}"))
            }
            Some(_) => Ok(()),
            None => {
                self.seen.insert(revision, contents.clone());
                Ok(())
            }
        }
    }

    /// Every way in which it could not have happened.
    pub(crate) fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        self.check_order(&mut wrong);
        self.check_writes(&mut wrong);
        if wrong.is_empty() {
            wrong.extend(self.replay().err());
        }
        wrong
    }

    /// The newest revision that was known before this was asked.
    pub(super) fn known_before(&self, asked: &Asked) -> Revision {
        let before = self.asked.iter().filter(|earlier| earlier.to_ms < asked.from_ms);
        before.filter_map(Asked::at).max().unwrap_or_default()
    }

    /// What began after something had ended is after it.
    fn check_order(&self, wrong: &mut Vec<String>) {
        for later in &self.asked {
            let Some(revision) = later.at() else { continue };
            let newest = self.known_before(later);
            let made = later.write.is_some() && matches!(later.told, Told::Done(_));
            if revision < newest || (revision == newest && made) {
                wrong.push(format!("{later:?} came after revision {newest} was known"));
            }
        }
    }

    /// An acknowledged write is there, it alone made its revision, and one that was refused is not there.
    fn check_writes(&self, wrong: &mut Vec<String>) {
        let newest = self.seen.keys().next_back().copied().unwrap_or_default();
        let mut made = BTreeMap::new();
        for asked in &self.asked {
            let Some(write) = &asked.write else { continue };
            match asked.told {
                Told::Done(revision) => {
                    if let Some(other) = made.insert(revision, asked) {
                        wrong.push(format!("{asked:?} and {other:?} made the same revision"));
                    }
                    if revision > newest {
                        wrong.push(format!("{asked:?} is lost: the newest revision is {newest}"));
                    }
                }
                Told::Refused => {
                    let there = |(name, value): &(String, Option<String>)| {
                        let value = value.as_ref();
                        let mut seen = self.seen.values().filter_map(|contents| contents.get(name));
                        value.is_some() && seen.any(|(_, seen)| Some(seen) == value)
                    };
                    if write.ops.iter().any(there) {
                        wrong.push(format!("{asked:?} was refused, and is there"));
                    }
                }
                Told::Unchanged(_) | Told::Unknown => {}
            }
        }
    }
}
