//! Promise 10: a node whose files fail their checks does not start, says which, and wipes nothing.

use super::Observed;

/// What came of a node's start on a damaged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damaged {
    /// The file's path below the data folder, and what was done to it.
    pub what: String,
    /// The file's whole path.
    pub file: String,
    /// With which code it ended; none: it started, as it may where the damage is to what nothing depends on.
    pub exit: Option<i32>,
    /// What it wrote to its log at this start.
    pub log: String,
    /// Files that were there before the start and not after, or had become other ones, if it did not start.
    pub changed: Vec<String>,
}

/// What an operator is told to do.
const STEPS: [&str; 3] = ["gwctl cluster remove", "move the data folder away", "gwctl cluster join"];

/// Starts that were refused otherwise than is promised.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    let mut wrong = Vec::new();
    for damaged in observed.damaged.iter() {
        let Some(exit) = damaged.exit else { continue };
        let what = &damaged.what;
        if exit != 78 {
            wrong.push(format!(
                "{what}: exit code {exit}: {}",
                damaged.log.lines().last().unwrap_or_default()
            ));
        } else if !damaged.log.contains(&damaged.file) {
            wrong.push(format!("{what}: the file is not named: {}", damaged.log));
        } else if let Some(step) = STEPS.iter().find(|step| !damaged.log.contains(**step)) {
            wrong.push(format!("{what}: {step:?} is not said: {}", damaged.log));
        }
        if !damaged.changed.is_empty() {
            wrong.push(format!("{what}: the start changed {:?}", damaged.changed));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{super::samples::observed, *};

    fn found(plant: impl FnOnce(&mut Damaged)) -> usize {
        let mut damaged = Damaged {
            what: "log/0: a bit flipped".into(),
            file: "/data/log/0".into(),
            exit: Some(78),
            log: format!("/data/log/0 is damaged. {}", STEPS.join(", ")),
            changed: Vec::new(),
        };
        plant(&mut damaged);
        let mut observed = observed();
        observed.damaged = vec![damaged];
        check(&observed).len()
    }

    #[test]
    fn a_start_that_is_refused_in_another_way_or_wipes_something_is_found() {
        assert_eq!(found(|_| {}), 0);
        assert_eq!(found(|damaged| damaged.exit = None), 0);
        assert_eq!(found(|damaged| damaged.exit = Some(1)), 1);
        assert_eq!(found(|damaged| damaged.file = "/data/log/1".into()), 1);
        assert_eq!(found(|damaged| damaged.log = "/data/log/0 is damaged.".into()), 1);
        assert_eq!(found(|damaged| damaged.changed = vec!["log/0".into()]), 1);
    }
}
