//! One file, folder or socket.

use std::time::SystemTime;

use fuser::{FileAttr, FileType, INodeNo};

use super::{
    cached::Cached,
    content::{Bytes, Names},
};

/// What it is.
pub(super) enum Kind {
    File(Cached<Bytes>),
    Folder(Cached<Names>),
    /// A name that a process is bound to.
    Socket,
}

/// One file, folder or socket. Its mode, owner and times count as durable at once.
pub(super) struct Inode {
    pub(super) kind: Kind,
    pub(super) perm: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: SystemTime,
    /// How often the kernel was told of it and has not forgotten it.
    pub(super) lookups: u64,
}

impl Inode {
    pub(super) fn new(kind: Kind, mode: u32, uid: u32, gid: u32) -> Self {
        let perm = perm(mode);
        Self { kind, perm, uid, gid, modified: SystemTime::now(), lookups: 0 }
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> usize {
        match &self.kind {
            Kind::File(bytes) => bytes.now().0.len(),
            Kind::Folder(_) | Kind::Socket => 0,
        }
    }

    /// What the kernel is to know of it.
    pub(super) fn attributes(&self, number: u64) -> FileAttr {
        let size = self.length() as u64;
        let (kind, nlink) = match self.kind {
            Kind::File(_) => (FileType::RegularFile, 1),
            Kind::Folder(_) => (FileType::Directory, 2),
            Kind::Socket => (FileType::Socket, 1),
        };
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: self.modified,
            mtime: self.modified,
            ctime: self.modified,
            crtime: self.modified,
            kind,
            perm: self.perm,
            nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// The permissions in a mode.
pub(super) fn perm(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or_default()
}
