//! The disk as the kernel asks for it.

use std::{
    ffi::OsStr,
    sync::Arc,
    thread,
    time::{Duration, SystemTime},
};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{
    inode::{Inode, Kind},
    shared::Shared,
    tree::CAPACITY,
};

/// Nothing is cached by the kernel, or a power loss would not take it.
const NO_TIME: Duration = Duration::ZERO;
/// No inode's number is used again.
const GENERATION: Generation = Generation(0);
/// In which the kernel counts room.
const BLOCK_BYTES: usize = 4096;

/// The disk as the kernel asks for it.
pub(super) struct Server(pub(super) Arc<Shared>);

impl Server {
    fn make(
        &self,
        folder: INodeNo,
        name: &OsStr,
        kind: Kind,
        mode: u32,
        by: &Request,
    ) -> Result<FileAttr, Errno> {
        self.0.lock().tree.make(folder.0, name, Inode::new(kind, mode, by.uid(), by.gid()))
    }

    /// On a thread of its own, so that a slow sync holds nothing else up.
    fn sync(&self, number: INodeNo, reply: ReplyEmpty) {
        let shared = self.0.clone();
        let until = shared.begin_sync();
        // Where no thread is to be had, the reply is dropped, which answers EIO.
        let _ = thread::Builder::new().name("disk-sync".into()).spawn(move || {
            answer(reply, shared.sync(number.0, until));
        });
    }
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(reply: ReplyEntry, found: Result<FileAttr, Errno>) {
    match found {
        Ok(attributes) => reply.entry(&NO_TIME, &attributes, GENERATION),
        Err(error) => reply.error(error),
    }
}

fn attributes(reply: ReplyAttr, found: Result<FileAttr, Errno>) {
    match found {
        Ok(attributes) => reply.attr(&NO_TIME, &attributes),
        Err(error) => reply.error(error),
    }
}

fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(reply, self.0.lock().tree.look_up(parent.0, name));
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        self.0.lock().tree.forget(number.0, times);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attributes(reply, self.0.lock().tree.attributes(number.0));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let modified = modified.map(|time| match time {
            TimeOrNow::SpecificTime(time) => time,
            TimeOrNow::Now => SystemTime::now(),
        });
        let tree = &mut self.0.lock().tree;
        let set = size
            .map_or(Ok(()), |size| tree.set_length(number.0, place(size)))
            .and_then(|()| tree.set(number.0, mode, uid, gid, modified))
            .and_then(|()| tree.attributes(number.0));
        attributes(reply, set);
    }

    fn mknod(
        &self,
        by: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let kind = match mode & libc::S_IFMT {
            libc::S_IFREG => Kind::File(Default::default()),
            libc::S_IFSOCK => Kind::Socket,
            _ => return reply.error(Errno::EPERM),
        };
        entry(reply, self.make(parent, name, kind, mode, by));
    }

    fn mkdir(&self, by: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        entry(reply, self.make(parent, name, Kind::Folder(Default::default()), mode, by));
    }

    fn create(
        &self,
        by: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(parent, name, Kind::File(Default::default()), mode, by) {
            Ok(attributes) => {
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&NO_TIME, &attributes, GENERATION, FileHandle(0), flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.0.lock().tree.remove(parent.0, name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.0.lock().tree.remove(parent.0, name, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = match (parent == newparent, flags.is_empty()) {
            // Two folders are not synced in one step, so that nothing may be moved from one to the other.
            (false, _) => Err(Errno::EXDEV),
            (true, false) => Err(Errno::EINVAL),
            (true, true) => self.0.lock().tree.rename(parent.0, name, newname),
        };
        answer(reply, renamed);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.lock().tree.read(number.0, place(offset), place(size.into())) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(number.0, place(offset), data) {
            Ok(written) => reply.written(u32::try_from(written).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(number, reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(number, reply);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let disk = self.0.lock();
        let mut entries: Vec<_> = match disk.tree.names(number.0) {
            // An inode has one name, so that its number says how far the reader has come, whatever is removed meanwhile.
            Ok(names) => names.iter().filter(|(_, number)| **number > offset).collect(),
            Err(error) => return reply.error(error),
        };
        entries.sort_by_key(|(_, number)| **number);
        for (name, number) in entries {
            let kind = disk.tree.kind(*number).unwrap_or(FileType::RegularFile);
            if reply.add(INodeNo(*number), *number, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let free = (self.0.lock().tree.room() / BLOCK_BYTES) as u64;
        let block = u32::try_from(BLOCK_BYTES).unwrap_or_default();
        reply.statfs((CAPACITY / BLOCK_BYTES) as u64, free, free, 0, 0, block, 255, block);
    }
}
