//! All files of a disk, and what happens to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    time::SystemTime,
};

use fuser::{Errno, FileAttr, FileType};
use phalanx_tests::dice::Dice;

use super::{
    Loss,
    cached::Cached,
    content::{Names, Renamed, Write},
    inode::{Inode, Kind},
};

/// The folder that is mounted.
pub(super) const ROOT: u64 = 1;
/// No disk has more room than this: it is all in memory, twice.
pub(super) const CAPACITY: usize = 1 << 30;

/// All files of a disk.
pub(super) struct Tree {
    inodes: BTreeMap<u64, Inode>,
    /// The number of the next inode; none is used again.
    next: u64,
    /// Rises with each change.
    time: u64,
    /// How many bytes all files may have together.
    limit: usize,
}

impl Tree {
    /// An empty disk, whose root has these permissions and this owner.
    pub(super) fn new(mode: u32, uid: u32, gid: u32) -> Self {
        let root = Inode::new(Kind::Folder(Default::default()), mode, uid, gid);
        Self { inodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, time: 0, limit: CAPACITY }
    }

    /// The time of the newest change.
    pub(super) fn time(&self) -> u64 {
        self.time
    }

    /// Leaves room for so many more bytes than there are; none for what the disk has of its own.
    pub(super) fn set_room(&mut self, bytes: Option<usize>) {
        let limit = bytes.map_or(CAPACITY, |bytes| self.used().saturating_add(bytes));
        self.limit = limit.min(CAPACITY);
    }

    /// How many more bytes it takes.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }

    fn used(&self) -> usize {
        let named = self.named();
        let counts = |(number, inode): &(&u64, &Inode)| named.contains(number) || inode.lookups > 0;
        self.inodes.iter().filter(counts).map(|(_, inode)| inode.length()).sum()
    }

    fn folders(&self) -> impl Iterator<Item = &Cached<Names>> {
        self.inodes.values().filter_map(|inode| match &inode.kind {
            Kind::Folder(names) => Some(names),
            Kind::File(_) | Kind::Socket => None,
        })
    }

    fn named(&self) -> BTreeSet<u64> {
        self.folders().flat_map(|names| names.now().0.values().copied()).collect()
    }

    fn inode(&mut self, number: u64) -> Result<&mut Inode, Errno> {
        self.inodes.get_mut(&number).ok_or(Errno::ENOENT)
    }

    /// What is in a folder, by name.
    pub(super) fn names(&self, folder: u64) -> Result<&BTreeMap<OsString, u64>, Errno> {
        match self.inodes.get(&folder).map(|inode| &inode.kind) {
            Some(Kind::Folder(names)) => Ok(&names.now().0),
            Some(Kind::File(_) | Kind::Socket) => Err(Errno::ENOTDIR),
            None => Err(Errno::ENOENT),
        }
    }

    fn rename_in(&mut self, folder: u64, names: Vec<(OsString, Option<u64>)>) -> Result<(), Errno> {
        self.time += 1;
        let time = self.time;
        let inode = self.inode(folder)?;
        let Kind::Folder(cached) = &mut inode.kind else { return Err(Errno::ENOTDIR) };
        cached.change(time, Renamed(names));
        inode.modified = SystemTime::now();
        Ok(())
    }

    /// What the kernel is to know of an inode.
    pub(super) fn attributes(&mut self, number: u64) -> Result<FileAttr, Errno> {
        Ok(self.inode(number)?.attributes(number))
    }

    /// What an inode is.
    pub(super) fn kind(&self, number: u64) -> Option<FileType> {
        Some(self.inodes.get(&number)?.attributes(number).kind)
    }

    /// Finds a name for the kernel, which remembers the inode until it says that it forgets it.
    pub(super) fn look_up(&mut self, folder: u64, name: &OsStr) -> Result<FileAttr, Errno> {
        let number = *self.names(folder)?.get(name).ok_or(Errno::ENOENT)?;
        self.inode(number)?.lookups += 1;
        self.attributes(number)
    }

    /// The kernel forgets an inode that it was told of so often.
    pub(super) fn forget(&mut self, number: u64, times: u64) {
        if let Ok(inode) = self.inode(number) {
            inode.lookups = inode.lookups.saturating_sub(times);
        }
        self.sweep();
    }

    /// Lets go of the inodes that have no name, now or after a power loss, and are not open.
    fn sweep(&mut self) {
        let mut named = self.named();
        for names in self.folders() {
            named.extend(names.durable().0.values());
            named.extend(names.pending().flat_map(|change| &change.0).filter_map(|(_, number)| *number));
        }
        self.inodes.retain(|number, inode| *number == ROOT || inode.lookups > 0 || named.contains(number));
    }

    /// Makes something of this name.
    pub(super) fn make(&mut self, folder: u64, name: &OsStr, inode: Inode) -> Result<FileAttr, Errno> {
        if self.names(folder)?.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let number = self.next;
        self.next += 1;
        self.inodes.insert(number, inode);
        self.rename_in(folder, vec![(name.to_owned(), Some(number))])?;
        self.look_up(folder, name)
    }

    /// Removes a name that leads to a folder, which is empty, or to something else.
    pub(super) fn remove(&mut self, folder: u64, name: &OsStr, is_folder: bool) -> Result<(), Errno> {
        let number = *self.names(folder)?.get(name).ok_or(Errno::ENOENT)?;
        match (&self.inode(number)?.kind, is_folder) {
            (Kind::Folder(names), true) if !names.now().0.is_empty() => return Err(Errno::ENOTEMPTY),
            (Kind::Folder(_), false) => return Err(Errno::EISDIR),
            (Kind::File(_) | Kind::Socket, true) => return Err(Errno::ENOTDIR),
            (Kind::Folder(_), true) | (Kind::File(_) | Kind::Socket, false) => {}
        }
        self.rename_in(folder, vec![(name.to_owned(), None)])
    }

    /// Gives what has a name another one in the same folder, in place of what had that.
    pub(super) fn rename(&mut self, folder: u64, from: &OsStr, to: &OsStr) -> Result<(), Errno> {
        let names = self.names(folder)?;
        let number = *names.get(from).ok_or(Errno::ENOENT)?;
        match names.get(to) {
            Some(other) if *other == number => return Ok(()),
            Some(other) => {
                let other = *other;
                let is_folder = matches!(self.inode(number)?.kind, Kind::Folder(_));
                match (&self.inode(other)?.kind, is_folder) {
                    (Kind::Folder(names), true) if names.now().0.is_empty() => {}
                    (Kind::Folder(_), true) => return Err(Errno::ENOTEMPTY),
                    (Kind::Folder(_), false) => return Err(Errno::EISDIR),
                    (Kind::File(_) | Kind::Socket, true) => return Err(Errno::ENOTDIR),
                    (Kind::File(_) | Kind::Socket, false) => {}
                }
            }
            None => {}
        }
        self.rename_in(folder, vec![(from.to_owned(), None), (to.to_owned(), Some(number))])
    }

    /// Changes mode, owner and time as far as they are given.
    pub(super) fn set(
        &mut self,
        number: u64,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        modified: Option<SystemTime>,
    ) -> Result<(), Errno> {
        let inode = self.inode(number)?;
        inode.perm = mode.map_or(inode.perm, super::inode::perm);
        inode.uid = uid.unwrap_or(inode.uid);
        inode.gid = gid.unwrap_or(inode.gid);
        inode.modified = modified.unwrap_or(inode.modified);
        Ok(())
    }

    /// Reads as many bytes from there on as there are, and no more than this.
    pub(super) fn read(&mut self, number: u64, at: usize, most: usize) -> Result<&[u8], Errno> {
        let Kind::File(cached) = &self.inode(number)?.kind else { return Err(Errno::EISDIR) };
        let bytes = &cached.now().0;
        let from = at.min(bytes.len());
        Ok(&bytes[from..from.saturating_add(most).min(bytes.len())])
    }

    /// Writes from there on as much of this as there is room for; gives how much.
    pub(super) fn write(&mut self, number: u64, at: usize, bytes: &[u8]) -> Result<usize, Errno> {
        let end = at.checked_add(bytes.len()).ok_or(Errno::EFBIG)?;
        let grows = end.saturating_sub(self.inode(number)?.length());
        let fits = match grows {
            0 => bytes.len(),
            _ => bytes.len().saturating_sub(grows.saturating_sub(self.room())),
        };
        if fits == 0 && !bytes.is_empty() {
            return Err(Errno::ENOSPC);
        }
        self.change(number, Write::At(at, bytes[..fits].to_vec()))?;
        Ok(fits)
    }

    /// Makes a file this long.
    pub(super) fn set_length(&mut self, number: u64, length: usize) -> Result<(), Errno> {
        let grows = length.saturating_sub(self.inode(number)?.length());
        if grows > 0 && grows > self.room() {
            return Err(Errno::ENOSPC);
        }
        self.change(number, Write::Length(length))
    }

    fn change(&mut self, number: u64, change: Write) -> Result<(), Errno> {
        self.time += 1;
        let time = self.time;
        let inode = self.inode(number)?;
        let Kind::File(cached) = &mut inode.kind else { return Err(Errno::EISDIR) };
        cached.change(time, change);
        inode.modified = SystemTime::now();
        Ok(())
    }

    /// Makes durable what was changed of an inode until this time.
    pub(super) fn sync(&mut self, number: u64, until: u64) {
        match self.inodes.get_mut(&number).map(|inode| &mut inode.kind) {
            Some(Kind::File(bytes)) => bytes.sync(until),
            Some(Kind::Folder(names)) => names.sync(until),
            Some(Kind::Socket) | None => {}
        }
    }

    /// A sync failed of what was changed of an inode until this time. As Linux has it, the bytes are given up: the next
    /// sync says that all is well, and they are not on the disk. Names stay where they are, in the journal.
    pub(super) fn fail_sync(&mut self, number: u64, until: u64) {
        if let Some(Kind::File(bytes)) = self.inodes.get_mut(&number).map(|inode| &mut inode.kind) {
            bytes.give_up(until);
        }
    }

    /// Whatever is not durable is lost, or most of it.
    pub(super) fn lose_power(&mut self, loss: Loss) {
        for (number, inode) in &mut self.inodes {
            let mut dice = Dice::new(loss.seed(), *number);
            match &mut inode.kind {
                Kind::File(bytes) => bytes.lose(loss, &mut dice),
                Kind::Folder(names) => names.lose(loss, &mut dice),
                Kind::Socket => {}
            }
        }
        self.sweep();
    }
}
