//! The history played again, from the first revision on: what was asked must come to just what was seen.
//!
//! A revision that no client was told of was made by a write with an unknown outcome, by each of them once at most: which one
//! is searched for. Between two configs that were seen there are few such revisions, so that the search is short.

use std::collections::BTreeMap;

use model::Revision;

use super::history::{Contents, History, Told, Write};

/// Tries after which the search is given up, and that is said.
const TRIES_MAX: u32 = 1_000_000;

struct Replay<'a> {
    history: &'a History,
    /// By the revision that they made.
    made: BTreeMap<Revision, &'a Write>,
    /// With the revision that there was nothing to change in.
    unchanged: Vec<(Revision, &'a Write)>,
    /// With the newest revision that was known before they were asked.
    unknown: Vec<(Revision, &'a Write)>,
    newest: Revision,
    /// The newest revision that could be explained.
    furthest: Revision,
    tries: u32,
}

impl Write {
    /// What it makes of a config, and whether any of it was a change; none if it does not fit it.
    fn apply(&self, base: Revision, contents: &Contents) -> Option<(Contents, bool)> {
        let fits = self
            .expect
            .as_ref()
            .is_none_or(|(name, changed)| contents.get(name).map(|(changed, _)| changed) == changed.as_ref());
        if !fits || self.base.is_some_and(|wanted| wanted != base) {
            return None;
        }
        let mut after = contents.clone();
        let mut changed = false;
        for (name, value) in &self.ops {
            match value {
                Some(value) => {
                    after.insert(name.clone(), (base.next(), value.clone()));
                    changed = true;
                }
                None => changed |= after.remove(name).is_some(),
            }
        }
        Some((after, changed))
    }

    /// What it makes of a config that it changes.
    fn make(&self, base: Revision, contents: &Contents) -> Option<Contents> {
        self.apply(base, contents).filter(|(_, changed)| *changed).map(|(after, _)| after)
    }
}

impl History {
    /// An error where nothing that was asked explains what was seen.
    pub(super) fn replay(&self) -> Result<(), String> {
        let mut replay = Replay {
            history: self,
            made: BTreeMap::new(),
            unchanged: Vec::new(),
            unknown: Vec::new(),
            newest: self.seen.keys().next_back().copied().unwrap_or_default(),
            furthest: Revision::default(),
            tries: 0,
        };
        for asked in &self.asked {
            let Some(write) = &asked.write else { continue };
            match asked.told {
                Told::Done(revision) => drop(replay.made.insert(revision, write)),
                Told::Unchanged(revision) => replay.unchanged.push((revision, write)),
                Told::Unknown => replay.unknown.push((self.known_before(asked), write)),
                Told::Refused => {}
            }
        }
        let mut used = vec![false; replay.unknown.len()];
        if replay.goes_on(Revision::default(), Contents::new(), &mut used) {
            return Ok(());
        }
        let next = replay.furthest.next();
        let what = if replay.tries > TRIES_MAX { "was found to explain" } else { "explains" };
        Err(format!(
            "nothing that was asked {what} what is seen from revision {next} on: {:?}, told of it: {:?}",
            self.seen.range(next..).next(),
            replay.made.get(&next),
        ))
    }
}

impl Replay<'_> {
    /// Whether this config at this revision is as was seen and told.
    fn fits(&self, at: Revision, contents: &Contents) -> bool {
        let seen = self.history.seen.get(&at).is_none_or(|seen| seen == contents);
        let mut unchanged = self.unchanged.iter().filter(|(revision, _)| *revision == at);
        seen && unchanged.all(|(_, write)| write.apply(at, contents).is_some_and(|(_, changed)| !changed))
    }

    /// Whether there is a way from here to the newest revision.
    fn goes_on(&mut self, mut at: Revision, mut contents: Contents, used: &mut [bool]) -> bool {
        loop {
            if !self.fits(at, &contents) {
                return false;
            }
            self.furthest = self.furthest.max(at);
            if at == self.newest {
                return true;
            }
            let Some(write) = self.made.get(&at.next()) else { break };
            let Some(after) = write.make(at, &contents) else { return false };
            (at, contents) = (at.next(), after);
        }
        for one in 0..self.unknown.len() {
            let (known, write) = self.unknown[one];
            if used[one] || known > at || self.tries > TRIES_MAX {
                continue;
            }
            self.tries += 1;
            let Some(after) = write.make(at, &contents) else { continue };
            used[one] = true;
            if self.goes_on(at.next(), after, used) {
                return true;
            }
            used[one] = false;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::history::Asked;

    fn write(from_ms: u64, to_ms: u64, value: &str, told: Told) -> Asked {
        let value = Some(value.to_owned()).filter(|value| value != "-");
        let write = Write { ops: vec![("a".into(), value)], ..Write::default() };
        Asked { from_ms, to_ms, write: Some(write), told }
    }

    fn done(revision: u64) -> Told {
        Told::Done(Revision(revision))
    }

    fn read(from_ms: u64, to_ms: u64, revision: u64) -> Asked {
        Asked { from_ms, to_ms, write: None, told: done(revision) }
    }

    fn on(base: u64, mut asked: Asked) -> Asked {
        asked.write.as_mut().unwrap().base = Some(Revision(base));
        asked
    }

    fn expects(changed: Option<u64>, mut asked: Asked) -> Asked {
        asked.write.as_mut().unwrap().expect = Some(("a".into(), changed.map(Revision)));
        asked
    }

    fn history(asked: Vec<Asked>, seen: &[(u64, &str)]) -> History {
        let mut history = History { asked, ..History::default() };
        for (revision, value) in seen {
            let revision = Revision(*revision);
            let object = ("a".to_owned(), (revision, (*value).to_owned()));
            let contents: Contents = Some(object).filter(|_| *value != "-").into_iter().collect();
            history.see(revision, &contents).unwrap();
        }
        history
    }

    #[test]
    fn what_could_be_is_not_called_wrong() {
        let asked = vec![
            write(0, 10, "x", done(1)),
            on(1, write(5, 20, "y", done(2))),
            write(15, 30, "z", Told::Unknown),
            write(15, 30, "never", Told::Unknown),
            write(40, 50, "w", Told::Refused),
            read(25, 30, 2),
            read(60, 70, 3),
            write(70, 80, "-", Told::Unknown),
            write(90, 99, "-", Told::Unchanged(Revision(4))),
            expects(None, write(90, 99, "v", done(5))),
            expects(Some(5), write(91, 99, "u", done(6))),
        ];
        let seen = [(1, "x"), (2, "y"), (3, "z"), (4, "-"), (6, "u")];
        assert_eq!(history(asked.clone(), &seen).check(), Vec::<String>::new());
        // And where hardly anything was seen.
        assert_eq!(history(asked, &[(6, "u")]).check(), Vec::<String>::new());
    }

    #[test]
    fn what_could_not_be_is_found() {
        let x = || write(0, 10, "x", done(1));
        type Seen<'a> = &'a [(u64, &'a str)];
        let cases: Vec<(&str, Vec<Asked>, Seen<'_>)> = vec![
            ("a stale read", vec![x(), read(20, 30, 0)], &[(1, "x")]),
            ("a lost write", vec![write(0, 10, "x", done(2))], &[(1, "y")]),
            ("another's revision", vec![x()], &[(1, "y")]),
            ("a refused write", vec![write(0, 10, "x", Told::Refused)], &[(1, "x")]),
            ("a refused delete", vec![x(), write(20, 30, "-", Told::Refused)], &[(1, "x"), (2, "-")]),
            ("one revision for two", vec![x(), write(0, 10, "y", done(1))], &[(1, "y")]),
            ("a write nobody made", vec![x()], &[(1, "x"), (2, "y")]),
            (
                "a write made twice",
                vec![x(), write(1, 9, "y", Told::Unknown)],
                &[(1, "x"), (2, "y"), (3, "y")],
            ),
            ("a wrong base", vec![x(), on(0, write(11, 12, "y", done(2)))], &[(2, "y")]),
            ("a wrong expectation", vec![x(), expects(None, write(11, 12, "y", done(2)))], &[(2, "y")]),
            (
                "no change that was one",
                vec![x(), write(11, 12, "-", Told::Unchanged(Revision(1)))],
                &[(1, "x")],
            ),
            ("a change before it was asked", vec![x(), write(11, 12, "y", Told::Unknown)], &[(1, "y")]),
        ];
        for (what, asked, seen) in cases {
            assert!(!history(asked, seen).check().is_empty(), "{what} was not found");
        }
        let mut two = history(Vec::new(), &[(1, "x")]);
        assert!(two.see(Revision(1), &Contents::new()).is_err());
    }
}
