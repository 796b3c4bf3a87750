//! The files of a node that was killed are damaged, one after the other.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use phalanx_tests::{
    dice::Dice,
    invariant::{Burden, Damaged},
};

use super::Fault;
use crate::{
    figures::{
        Bar,
        Figure::{CaughtUp, Elections, Failed, Lost},
    },
    stage::Stage,
};

const BARS: &[Bar] = &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0), (Elections, 0.0)];

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "torn tail of each file",
        needs: &[],
        bars: BARS,
        strike: |stage| {
            damage(stage, "its tail torn", |bytes, dice| {
                let used = used(bytes);
                let torn = usize::try_from(1 + dice.below(512)).unwrap_or(1).min(used);
                bytes[used - torn..used].fill(0);
            });
        },
    },
    Fault {
        name: "a bit flipped in each file",
        needs: &[],
        bars: BARS,
        strike: |stage| {
            damage(stage, "a bit flipped", |bytes, dice| {
                let at = usize::try_from(dice.below(used(bytes) as u64)).unwrap_or_default();
                bytes[at] ^= 1 << dice.below(8);
            });
        },
    },
    Fault {
        name: "each file cut short",
        needs: &[],
        bars: BARS,
        strike: |stage| {
            damage(stage, "cut short", |bytes, dice| {
                bytes.truncate(usize::try_from(dice.below(used(bytes) as u64)).unwrap_or_default());
            });
        },
    },
];

/// How long a file is without the zeros at its end, which may never have been used.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Damages each file of a follower so; where the node does not start, the file is put back as it was, which is no older copy: the
/// node has not run since.
fn damage(stage: &mut Stage, what: &str, how: fn(&mut Vec<u8>, &mut Dice)) {
    let follower = stage.nodes.follower();
    let (data, folder) = (stage.nodes.data(follower).to_owned(), stage.nodes.folder(follower).to_owned());
    stage.bears(follower, Burden::Down);
    stage.nodes.kill(&[follower]);
    for path in files(&data).expect("the folder can be read") {
        // A start before may have removed it.
        let Ok(sound) = fs::read(&path) else { continue };
        if used(&sound) == 0 {
            continue;
        }
        let mut bytes = sound.clone();
        how(&mut bytes, &mut stage.dice);
        fs::write(&path, bytes).expect("the file can be written");
        let (before, log) = (contents(&data), stage.nodes.log(follower).len());
        let exit = match stage.nodes.try_start(follower) {
            Ok(()) => {
                stage.goes_on();
                stage.nodes.kill(&[follower]);
                None
            }
            Err(code) => Some(code),
        };
        let after = contents(&data);
        let changed = before.into_iter().filter(|(path, bytes)| after.get(path) != Some(bytes));
        let below = path.strip_prefix(&data).unwrap_or(&path);
        stage.damaged.push(Damaged {
            what: format!("{}: {what}", below.display()),
            file: folder.join(below).display().to_string(),
            exit,
            log: stage.nodes.log(follower).split_off(log),
            changed: match exit {
                Some(_) => changed.map(|(path, _)| path.display().to_string()).collect(),
                None => Vec::new(),
            },
        });
        if exit.is_some() {
            fs::write(&path, sound).expect("the file can be written");
        }
    }
    stage.comes_back(follower);
}

/// The regular files below a folder.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        match entry.file_type()? {
            kind if kind.is_dir() => files.extend(self::files(&entry.path())?),
            kind if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
    files.sort();
    Ok(files)
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = files(folder).expect("the folder can be read");
    files.into_iter().filter_map(|path| Some((path.clone(), fs::read(path).ok()?))).collect()
}
