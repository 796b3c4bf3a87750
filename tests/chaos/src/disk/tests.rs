use std::{
    fs::{self, File},
    io::Write,
    os::unix::{
        fs::{FileExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    thread,
    time::Instant,
};

use tempfile::TempDir;

use super::*;

/// A disk and the folder it is mounted at; none where there is no FUSE.
struct Mounted {
    disk: Disk,
    /// Goes after the disk.
    dir: TempDir,
}

impl Mounted {
    fn new() -> Option<Self> {
        if !Disk::is_possible("a test of the disk") {
            return None;
        }
        let dir = TempDir::new().unwrap();
        let disk = Disk::mount(dir.path()).unwrap();
        Some(Self { disk, dir })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of this content, whose name is durable, and whose content is if it is synced.
    fn file(&self, name: &str, content: &[u8]) -> File {
        let mut file = File::options().create(true).append(true).open(self.at(name)).unwrap();
        file.write_all(content).unwrap();
        self.sync_names();
        file
    }

    fn sync_names(&self) {
        File::open(self.disk.path()).unwrap().sync_all().unwrap();
    }

    fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap()
    }
}

#[test]
fn what_is_synced_survives_and_what_is_not_is_gone() {
    let Some(it) = Mounted::new() else { return };
    let mut file = it.file("file", b"synced");
    file.sync_data().unwrap();
    file.write_all(b" and not").unwrap();
    assert_eq!(it.content("file"), b"synced and not");
    fs::write(it.at("name"), "no one synced its name").unwrap();
    File::open(it.at("name")).unwrap().sync_all().unwrap();
    drop(file);
    it.disk.lose_power(Loss::All);
    assert_eq!(it.content("file"), b"synced");
    assert!(!it.at("name").exists());
    let left: Vec<_> =
        fs::read_dir(it.disk.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["file"]);
}

#[test]
fn names_are_as_they_were_when_their_folder_was_synced() {
    let Some(it) = Mounted::new() else { return };
    it.file("kept", b"old").sync_all().unwrap();
    it.file("removed", b"here").sync_all().unwrap();
    it.file("new", b"new").sync_all().unwrap();
    fs::rename(it.at("new"), it.at("kept")).unwrap();
    fs::remove_file(it.at("removed")).unwrap();
    assert_eq!(it.content("kept"), b"new");
    it.disk.lose_power(Loss::All);
    assert_eq!((it.content("kept"), it.content("new")), (b"old".to_vec(), b"new".to_vec()));
    assert_eq!(it.content("removed"), b"here");
    fs::rename(it.at("new"), it.at("kept")).unwrap();
    fs::remove_file(it.at("removed")).unwrap();
    it.sync_names();
    it.disk.lose_power(Loss::All);
    assert_eq!(it.content("kept"), b"new");
    assert!(!it.at("new").exists() && !it.at("removed").exists());
}

#[test]
fn a_seed_decides_what_is_left_of_a_tail() {
    let Some(it) = Mounted::new() else { return };
    let mut left = Vec::new();
    for seed in 0..20 {
        let name = format!("file{seed}");
        let mut file = it.file(&name, b"synced");
        file.sync_all().unwrap();
        for word in [" one", " two", " three"] {
            file.write_all(word.as_bytes()).unwrap();
        }
        it.disk.lose_power(Loss::Tail(seed));
        let content = it.content(&name);
        assert!(b"synced one two three".starts_with(&content) && content.starts_with(b"synced"));
        left.push(content);
    }
    assert!(left.iter().any(|content| content == b"synced"));
    assert!(left.iter().any(|content| content == b"synced one"));
    let whole = ["synced", "synced one", "synced one two", "synced one two three"];
    let torn = |content: &Vec<u8>| !whole.iter().any(|whole| content == whole.as_bytes());
    assert!(left.iter().any(torn), "a write is never torn: {left:?}");
}

#[test]
fn a_disk_may_write_a_later_write_and_not_an_earlier_one() {
    let Some(it) = Mounted::new() else { return };
    let found = (0..40).any(|seed| {
        let name = format!("file{seed}");
        let file = it.file(&name, b"");
        file.sync_all().unwrap();
        let file = File::options().write(true).open(it.at(&name)).unwrap();
        file.write_all_at(b"aaaa", 0).unwrap();
        file.write_all_at(b"bbbb", 4).unwrap();
        it.disk.lose_power(Loss::Any(seed));
        it.content(&name) == b"\0\0\0\0bbbb"
    });
    assert!(found);
}

#[test]
fn a_full_disk_takes_what_fits_and_more_once_there_is_room() {
    let Some(it) = Mounted::new() else { return };
    let mut file = it.file("file", b"1234");
    it.disk.set_room(Some(3));
    assert_eq!(file.write(b"56789").unwrap(), 3);
    assert_eq!(file.write(b"89").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    // What takes no room is written.
    let over = File::options().write(true).open(it.at("file")).unwrap();
    over.write_all_at(b"abcd", 0).unwrap();
    assert_eq!(it.content("file"), b"abcd567");
    fs::write(it.at("other"), "x").unwrap_err();
    file.set_len(4).unwrap();
    file.write_all(b"567").unwrap();
    it.disk.set_room(None);
    file.write_all(b"89").unwrap();
    assert_eq!(it.content("file"), b"abcd56789");
    assert_eq!(it.disk.figures().full, 2);
}

#[test]
fn an_fsync_is_slow_for_as_long_as_it_is_told_to_be() {
    let Some(it) = Mounted::new() else { return };
    let file = it.file("file", b"1");
    let delay = Duration::from_millis(200);
    it.disk.set_fsync_delay(delay);
    let begun = Instant::now();
    file.sync_all().unwrap();
    assert!(begun.elapsed() >= delay);
    it.disk.set_fsync_delay(Duration::from_secs(3600));
    let before = it.disk.figures().fsyncs;
    let waiting = thread::spawn(move || file.sync_all());
    phalanx_tests::until("it waits", || (it.disk.figures().fsyncs > before).then_some(()));
    // Others go on meanwhile.
    fs::write(it.at("other"), "x").unwrap();
    assert_eq!(it.content("other"), b"x");
    it.disk.set_fsync_delay(Duration::ZERO);
    waiting.join().unwrap().unwrap();
}

#[test]
fn what_a_failed_fsync_was_for_is_lost_even_if_the_next_one_works() {
    let Some(it) = Mounted::new() else { return };
    let mut file = it.file("file", b"one");
    file.sync_all().unwrap();
    file.write_all(b" two").unwrap();
    it.disk.fail_fsync(Some(libc::EIO));
    assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
    it.disk.fail_fsync(None);
    file.sync_all().unwrap();
    assert_eq!(it.content("file"), b"one two");
    it.disk.lose_power(Loss::All);
    assert_eq!(it.content("file"), b"one");
    assert_eq!(it.disk.figures().failed_fsyncs, 1);
}

#[test]
fn an_fsync_that_lies_makes_nothing_durable() {
    let Some(it) = Mounted::new() else { return };
    it.file("file", b"one").sync_all().unwrap();
    it.disk.ignore_fsync(true);
    it.file("file", b" two").sync_all().unwrap();
    it.disk.lose_power(Loss::All);
    assert_eq!(it.content("file"), b"one");
}

#[test]
fn it_does_what_a_data_folder_needs() {
    let Some(it) = Mounted::new() else { return };
    let folder = it.at("folder");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o700);
    let socket = it.at("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let _client = UnixStream::connect(&socket).unwrap();
    listener.accept().unwrap();
    let (one, other) = (it.file("lock", b"1"), it.file("lock", b"2"));
    one.try_lock().unwrap();
    assert!(other.try_lock().is_err());
    drop(one);
    other.try_lock().unwrap();
    // A file is emptied as it is opened, and can be used when it has no name any more.
    drop(File::create(it.at("lock")).unwrap());
    let emptied = File::options().read(true).write(true).open(it.at("lock")).unwrap();
    fs::remove_file(it.at("lock")).unwrap();
    emptied.write_all_at(b"still there", 0).unwrap();
    let mut read = [0; 11];
    assert_eq!(emptied.read_at(&mut read, 0).unwrap(), read.len());
    assert_eq!(&read, b"still there");
    fs::write(folder.join("inside"), "x").unwrap();
    assert_eq!(fs::remove_dir(&folder).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
    fs::remove_dir_all(&folder).unwrap();
    assert!(!folder.exists());
}

#[test]
fn it_is_unmounted_when_it_is_dropped() {
    let Some(Mounted { disk, dir }) = Mounted::new() else { return };
    let device = |path: &Path| fs::metadata(path).unwrap().dev();
    assert_ne!(device(disk.path()), device(disk.path().parent().unwrap()));
    // Even while a file there is open.
    let _open = File::create(disk.path().join("file")).unwrap();
    drop(disk);
    assert_eq!(device(dir.path()), device(dir.path().parent().unwrap()));
}
