//! A disk that does what disks do at worst: a file system in memory, mounted by FUSE, for the data folder of a node.
//!
//! It knows what is durable. The bytes and the length of a file are so after an fsync of it; that a file was made, renamed or
//! removed is so after an fsync of its folder, and not before. When the power is lost, the rest is gone, or some of it is
//! there. Nothing is cached by the kernel, so that what a process has written is known here at once.
//!
//! It differs from other file systems in this: modes and owners are durable at once; nothing can be moved from one folder to
//! another (EXDEV); there are no links; O_SYNC is not obeyed; a name takes no room; writes to a file wait for an fsync of it
//! that is slow, since the kernel holds the file's lock meanwhile.
//!
//! It needs /dev/fuse, fusermount3, and root or `user_allow_other` in /etc/fuse.conf, since every user may use it. The program
//! fusermount3 runs on beside it, and unmounts it if this process ends in any way.

mod cached;
mod content;
mod inode;
mod serve;
mod shared;
mod tree;

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use self::{serve::Server, shared::Shared, tree::Tree};
use fuser::{BackgroundSession, Config, Errno, MountOption, SessionACL};

/// What a power loss takes of what was not made durable. A seed decides what is left, and decides it the same way again for the
/// same changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All of it.
    All,
    /// Of each file and folder the last changes, and maybe a part of the write before them.
    Tail(u64),
    /// Any of the writes, or a part of them: a disk writes in the order it likes. Of folders the last changes.
    Any(u64),
}

impl Loss {
    fn seed(self) -> u64 {
        match self {
            Self::All => 0,
            Self::Tail(seed) | Self::Any(seed) => seed,
        }
    }
}

/// What a disk has been asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Writes to files.
    pub writes: u64,
    /// Those for which there was no room at all.
    pub full: u64,
    /// Syncs of files and folders.
    pub fsyncs: u64,
    /// Those that failed.
    pub failed_fsyncs: u64,
}

/// A disk, mounted until it is dropped.
pub struct Disk {
    at: PathBuf,
    shared: Arc<Shared>,
    _session: BackgroundSession,
}

impl Disk {
    /// Whether this machine has FUSE. Where it has not, says on stderr that `what` is skipped.
    pub fn is_possible(what: &str) -> bool {
        let opened = File::options().read(true).write(true).open("/dev/fuse");
        if let Err(error) = &opened {
            eprintln!("SKIPPED: {what}: it needs FUSE, and /dev/fuse can't be opened: {error}");
        }
        opened.is_ok()
    }

    /// Mounts an empty disk at this folder.
    ///
    /// # Errors
    /// Where the folder is not there, or the system does not mount anything there.
    pub fn mount(at: &Path) -> io::Result<Self> {
        let at = at.canonicalize()?;
        let folder = fs::metadata(&at)?;
        let shared = Arc::new(Shared::new(Tree::new(folder.mode(), folder.uid(), folder.gid())));
        let mut config = Config::default();
        config.acl = SessionACL::All;
        config.mount_options = vec![
            MountOption::FSName("phalanx-disk".into()),
            MountOption::AutoUnmount,
            MountOption::DefaultPermissions,
        ];
        let session = fuser::spawn_mount(Server(shared.clone()), &at, &config).map_err(|error| {
            io::Error::new(error.kind(), format!("mount a disk at {}: {error}", at.display()))
        })?;
        Ok(Self { at, shared, _session: session })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Loses what was not made durable. To be called once the processes that used it were killed: that is what a power loss
    /// does to them.
    pub fn lose_power(&self, loss: Loss) {
        self.shared.lock().tree.lose_power(loss);
    }

    /// Makes every fsync take this long at least; those that wait now, too.
    pub fn set_fsync_delay(&self, delay: Duration) {
        self.shared.set(|faults| faults.fsync_delay = delay);
    }

    /// Makes every fsync fail with this error (as in `errno`), until it is none. What it should have made durable never will
    /// be, even if a later fsync says so: that is what Linux does.
    pub fn fail_fsync(&self, errno: Option<i32>) {
        self.shared.set(|faults| faults.fsync_error = errno.map(Errno::from_i32));
    }

    /// Makes every fsync lie: it says that all is well, and makes nothing durable.
    pub fn ignore_fsync(&self, ignore: bool) {
        self.shared.set(|faults| faults.ignores_fsync = ignore);
    }

    /// Leaves room for so many more bytes; with none, for plenty. What is removed makes room.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.shared.lock().tree.set_room(bytes);
    }

    /// What it has been asked for so far.
    pub fn figures(&self) -> Figures {
        self.shared.lock().figures
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // No sync may wait any longer, or a process could not be ended.
        self.set_fsync_delay(Duration::ZERO);
        // The fusermount3 beside us only unmounts what nobody serves any more, so that another one has to do it.
        let unmounted = Command::new("fusermount3").args(["-u", "-z", "--"]).arg(&self.at).output();
        match unmounted {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                eprintln!("{} stays mounted: {}", self.at.display(), String::from_utf8_lossy(&output.stderr))
            }
            Err(error) => eprintln!("{} stays mounted: run fusermount3: {error}", self.at.display()),
        }
    }
}
