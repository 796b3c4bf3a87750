//! What clients asked and were told, and whether it could be so.
//!
//! Each change says which revision it made, and each read at which revision it saw: the order of revisions is the order in
//! which it all must have happened, so that no search for one is needed. What is checked is strict serialisability (Herlihy
//! and Wing, "Linearizability", 1990, over the whole config as one object), and that "nothing was changed" is true.

use std::collections::BTreeMap;

use model::Revision;

/// What a config held: each object's name and value.
pub(crate) type Contents = BTreeMap<String, String>;

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// It was made, or seen, at this revision.
    Done(Revision),
    /// Nothing was changed.
    Refused,
    /// It may have happened, or may yet.
    Unknown,
}

/// One thing that a client asked, in milliseconds of the simulation.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    /// The object that was written, and its new value, which no other write has; none: it was a read.
    pub(crate) write: Option<(String, String)>,
    pub(crate) told: Told,
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
        self.check_values(&mut wrong);
        wrong
    }

    /// What began after something had ended is after it.
    fn check_order(&self, wrong: &mut Vec<String>) {
        let done = |asked: &Asked| match asked.told {
            Told::Done(revision) => Some(revision),
            Told::Refused | Told::Unknown => None,
        };
        for later in &self.asked {
            let Some(revision) = done(later) else { continue };
            let before = self.asked.iter().filter(|earlier| earlier.to_ms < later.from_ms);
            let newest = before.filter_map(done).max().unwrap_or_default();
            if revision < newest || (revision == newest && later.write.is_some()) {
                wrong.push(format!("{later:?} came after revision {newest} was known"));
            }
        }
    }

    /// An acknowledged write is there, and one that was refused is not.
    fn check_writes(&self, wrong: &mut Vec<String>) {
        let newest = self.seen.keys().next_back().copied().unwrap_or_default();
        let mut made = BTreeMap::new();
        for asked in &self.asked {
            let Some((name, value)) = &asked.write else { continue };
            match asked.told {
                Told::Done(revision) => {
                    if let Some(other) = made.insert(revision, asked) {
                        wrong.push(format!("{asked:?} and {other:?} made the same revision"));
                    }
                    if revision > newest {
                        wrong.push(format!("{asked:?} is lost: the newest revision is {newest}"));
                    }
                    let after = self.seen.range(revision..).next();
                    if let Some((at, contents)) = after
                        && contents.get(name) != Some(value)
                        && !(*at > revision && self.was_overwritten(name, contents.get(name), asked))
                    {
                        wrong.push(format!("{asked:?} is not there in revision {at}"));
                    }
                }
                Told::Refused => {
                    if self.seen.values().any(|contents| contents.get(name) == Some(value)) {
                        wrong.push(format!("{asked:?} was refused, and is there"));
                    }
                }
                Told::Unknown => {}
            }
        }
    }

    /// Whether a write that need not be before `asked` left this value.
    fn was_overwritten(&self, name: &str, value: Option<&String>, asked: &Asked) -> bool {
        let writes =
            self.asked.iter().filter(|other| other.to_ms >= asked.from_ms || other.told == Told::Unknown);
        writes
            .filter_map(|other| other.write.as_ref())
            .any(|(other, left)| other == name && Some(left) == value)
    }

    /// Each value is there for one stretch of revisions: no write happened twice.
    fn check_values(&self, wrong: &mut Vec<String>) {
        let mut current = Contents::new();
        let mut gone: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (revision, contents) in &self.seen {
            for (name, value) in contents {
                if current.get(name) == Some(value) {
                    continue;
                }
                let gone = gone.entry(name.clone()).or_default();
                if gone.contains(value) {
                    wrong.push(format!("{name} is {value} once more in revision {revision}"));
                }
                gone.extend(current.insert(name.clone(), value.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(from_ms: u64, to_ms: u64, value: &str, told: Told) -> Asked {
        Asked { from_ms, to_ms, write: Some(("a".into(), value.into())), told }
    }

    fn read(from_ms: u64, to_ms: u64, revision: u64) -> Asked {
        Asked { from_ms, to_ms, write: None, told: Told::Done(Revision(revision)) }
    }

    fn history(asked: Vec<Asked>, seen: &[(u64, &str)]) -> History {
        let mut history = History { asked, ..History::default() };
        for (revision, value) in seen {
            history.see(Revision(*revision), &Contents::from([("a".into(), (*value).into())])).unwrap();
        }
        history
    }

    #[test]
    fn what_could_be_is_not_called_wrong() {
        let asked = vec![
            write(0, 10, "x", Told::Done(Revision(1))),
            write(5, 20, "y", Told::Done(Revision(2))),
            write(15, 30, "z", Told::Unknown),
            write(40, 50, "w", Told::Refused),
            read(25, 30, 2),
            read(60, 70, 3),
        ];
        assert!(history(asked, &[(1, "x"), (2, "y"), (3, "z")]).check().is_empty());
    }

    #[test]
    fn what_could_not_be_is_found() {
        let stale = vec![write(0, 10, "x", Told::Done(Revision(1))), read(20, 30, 0)];
        let lost = vec![write(0, 10, "x", Told::Done(Revision(2)))];
        let other = vec![write(0, 10, "x", Told::Done(Revision(1)))];
        let refused = vec![write(0, 10, "x", Told::Refused)];
        let same =
            vec![write(0, 10, "x", Told::Done(Revision(1))), write(0, 10, "y", Told::Done(Revision(1)))];
        for (asked, seen) in [
            (stale, &[(1, "x")][..]),
            (lost, &[(1, "y")]),
            (other, &[(1, "y")]),
            (refused, &[(1, "x")]),
            (same, &[(1, "y")]),
            (Vec::new(), &[(1, "x"), (2, "y"), (3, "x")]),
        ] {
            assert!(!history(asked.clone(), seen).check().is_empty(), "{asked:?} {seen:?}");
        }
        let mut two = history(Vec::new(), &[(1, "x")]);
        assert!(two.see(Revision(1), &Contents::new()).is_err());
    }
}
