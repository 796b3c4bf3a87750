//! The bytes of a file and the names in a folder.

use std::{collections::BTreeMap, ffi::OsString};

use phalanx_tests::dice::Dice;

use super::cached::Content;

/// The bytes of a file.
#[derive(Clone, Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

/// A change of them.
pub(super) enum Write {
    /// These bytes, from there on.
    At(usize, Vec<u8>),
    /// It is that long.
    Length(usize),
}

impl Content for Bytes {
    type Change = Write;
    const REORDERED: bool = true;

    fn apply(&mut self, change: &Write) {
        match change {
            Write::At(at, bytes) => {
                let end = at + bytes.len();
                if self.0.len() < end {
                    self.0.resize(end, 0);
                }
                self.0[*at..end].copy_from_slice(bytes);
            }
            Write::Length(length) => self.0.resize(*length, 0),
        }
    }

    fn torn(change: &Write, dice: &mut Dice) -> Option<Write> {
        match change {
            Write::At(at, bytes) => {
                let there = usize::try_from(dice.below(bytes.len().max(1) as u64)).unwrap_or_default();
                (there > 0).then(|| Write::At(*at, bytes[..there].to_vec()))
            }
            Write::Length(_) => None,
        }
    }
}

/// The names in a folder, and which inodes have them.
#[derive(Clone, Default)]
pub(super) struct Names(pub(super) BTreeMap<OsString, u64>);

/// What these names lead to from now on, all at once; none for a name that is gone.
pub(super) struct Renamed(pub(super) Vec<(OsString, Option<u64>)>);

impl Content for Names {
    type Change = Renamed;
    const REORDERED: bool = false;

    fn apply(&mut self, change: &Renamed) {
        for (name, inode) in &change.0 {
            match inode {
                Some(inode) => drop(self.0.insert(name.clone(), *inode)),
                None => drop(self.0.remove(name)),
            }
        }
    }

    fn torn(_: &Renamed, _: &mut Dice) -> Option<Renamed> {
        None
    }
}
