//! What is on disk survives a restart, and damage to it is found.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::stream;
use model::{
    Change, Kind, Name, NodeId, Op, Outcome, Revision,
    cluster::{AdminToken, ClusterChange, Founding, GossipKey, Node, Role, Secret},
    usage::{Start, Used},
};
use openraft::{
    EntryPayload, RaftLogReader, RaftSnapshotBuilder,
    storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine},
};

use crate::{
    Error, Storage,
    outcomes::{self, OUTCOMES_MAX},
    state::State,
    types::{Command, Entry, Link, Request, Response, Vote, log_id},
};

type Answer = openraft::storage::EntryResponder<crate::types::Types>;

fn put(name: &str, doc: &str) -> Op {
    Op::Put { kind: Kind::Upstream, name: Name::new(name).unwrap(), doc: Arc::from(doc.as_bytes()) }
}

const DOC: &str = r#"{"targets":[{"address":"127.0.0.1:1"}]}"#;

fn linked(index: u64, key: Option<&str>, link: Link, command: Command) -> Entry {
    let request =
        Request { idempotency_key: key.map(Into::into), author: "test".into(), at_ms: 1, link, command };
    Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(request) }
}

/// Each is checked against what the one before it made.
fn entry(index: u64, key: Option<&str>, command: Command) -> Entry {
    linked(index, key, Link { id: index, after: if index > 2 { index - 1 } else { 0 } }, command)
}

fn change(index: u64, base: u64, key: Option<&str>, op: Op) -> Entry {
    entry(index, key, Command::Change(Change { base: Revision(base), ops: vec![op] }))
}

fn form(index: u64) -> Entry {
    let node = Node {
        name: "one".into(),
        address: "127.0.0.1:1".into(),
        admin: String::new(),
        public_key: "k".into(),
        version: "0".into(),
        joined_at_ms: 0,
    };
    let founding = Founding {
        cluster_id: "c".into(),
        epoch: 1,
        ca_certificate: String::new(),
        ca_key: Secret(String::new()),
        pepper: Secret("ab".repeat(32)),
    };
    let admin_token =
        AdminToken { digest: "d".into(), role: Role::Admin, label: "first".into(), expires_at_ms: None };
    let gossip_key = GossipKey { id: 1, secret: Secret("cd".repeat(32)) };
    let (node_id, admin_token_id) = (NodeId(1), "a".into());
    let form = ClusterChange::Form { founding, node_id, node, admin_token_id, admin_token, gossip_key };
    entry(index, None, Command::Cluster(form))
}

/// The cluster formed, two objects, one of them with a field that this version does not know.
fn history() -> Vec<Entry> {
    let unknown = r#"{"targets":[{"address":"127.0.0.1:1"}],"since_2042":{"a":[1,2]}}"#;
    vec![form(1), change(2, 0, Some("k"), put("orders", DOC)), change(3, 1, None, put("later", unknown))]
}

async fn apply(storage: &mut Storage, entries: Vec<Entry>) {
    let answers = entries.into_iter().map(|entry| Ok::<Answer, _>((entry, None)));
    storage.state_machine.apply(stream::iter(answers)).await.unwrap();
}

async fn write(storage: &mut Storage, entries: Vec<Entry>) {
    storage.log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    if storage.log.last().is_none() {
        let first = Entry { log_id: log_id(1, 0), payload: EntryPayload::Blank };
        storage.log.blocking_append([first]).await.unwrap();
    }
    storage.log.blocking_append(entries.clone()).await.unwrap();
    apply(storage, entries).await;
}

/// The lock is let go by the thread that syncs, after the last handle.
async fn reopen(dir: &Path) -> Result<Storage, Error> {
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    loop {
        ticks.tick().await;
        match Storage::open(dir) {
            Err(Error::Io { reason, .. }) if reason.contains("lock") => {}
            other => return other,
        }
    }
}

fn same(storage: &Storage, as_before: &State) {
    assert_eq!(*storage.config().borrow().as_ref(), as_before.config);
    assert_eq!(*storage.cluster().borrow(), as_before.cluster);
    assert!(storage.usage().borrow().iter().eq(as_before.usage.iter()));
    assert_eq!(storage.state_machine.applied().borrow().unwrap(), as_before.applied.unwrap().index);
}

fn expected(entries: &[Entry]) -> State {
    let mut state = State::default();
    for entry in entries {
        state.apply(entry, &mut Vec::new());
    }
    state
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let target = to.join(file.file_name());
        if file.file_type().unwrap().is_dir() {
            copy(&file.path(), &target);
        } else {
            fs::copy(file.path(), target).unwrap();
        }
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_crash() {
    let (dir, crashed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut storage = Storage::open(dir.path()).unwrap();
    write(&mut storage, history()).await;
    // The files as a crash at this moment leaves them: nothing is closed.
    copy(dir.path(), crashed.path());
    let mut after = reopen(crashed.path()).await.unwrap();
    for again in [true, false] {
        same(&after, &expected(&history()));
        assert_eq!(after.config().borrow().pepper.as_ref().unwrap().0, [0xab; 32]);
        assert_eq!(after.log.read_vote().await.unwrap(), Some(Vote::new_committed(1, 1)));
        assert_eq!(after.log.try_get_log_entries(1..10).await.unwrap(), history());
        let outcome = Response::Change(Outcome::Applied(Revision(1)));
        let orders = outcomes::fingerprint_of_ops(&[put("orders", DOC)]);
        assert_eq!(after.state_machine.outcome("k", orders).unwrap().unwrap(), outcome);
        assert!(after.state_machine.outcome("k", orders + 1).unwrap().is_err());
        if again {
            // And the same after an orderly end.
            drop((after, storage));
            after = reopen(dir.path()).await.unwrap();
            storage = reopen(crashed.path()).await.unwrap();
        }
    }
    drop(storage);
}

/// What a node has counted of a month's quota.
fn usage(index: u64, key: u64, count: u64) -> Entry {
    let used = Used {
        key,
        period: 400_000,
        ends_at_s: 400_744 * 3_600,
        policy: "monthly".into(),
        limit_name: String::new(),
        by: "consumer acme".into(),
        limit: 100,
        counts: [(Start { node: NodeId(1), at_ms: 7 }, count)].into(),
    };
    let mut entry = entry(index, None, Command::Usage(vec![used]));
    if let EntryPayload::Normal(request) = &mut entry.payload {
        request.at_ms = 400_100 * 3_600_000;
    }
    entry
}

#[tokio::test]
async fn what_was_used_of_quotas_is_there_after_a_start_and_in_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = Storage::open(dir.path()).unwrap();
    let entries =
        [history(), vec![usage(4, 9, 5), usage(5, 8, 1), usage(6, 9, 30), usage(7, 9, 20)]].concat();
    write(&mut storage, entries.clone()).await;
    let expected = expected(&entries);
    assert_eq!(expected.usage.get(9).unwrap().sum(), 30);
    same(&storage, &expected);
    drop(storage);
    let mut storage = reopen(dir.path()).await.unwrap();
    same(&storage, &expected);
    let built = storage.state_machine.build_snapshot().await.unwrap();
    let read = built.snapshot.read().unwrap();
    assert!(read.usage.iter().eq(expected.usage.iter()));
}

#[tokio::test]
async fn a_truncated_log_is_no_loss_and_a_purged_one_neither() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = Storage::open(dir.path()).unwrap();
    write(&mut storage, history()).await;
    storage.log.blocking_append(vec![change(4, 2, None, put("conflicting", DOC))]).await.unwrap();
    storage.log.truncate_after(Some(log_id(1, 3))).await.unwrap();
    drop(storage);
    let mut storage = reopen(dir.path()).await.unwrap();
    assert_eq!(storage.log.last(), Some(log_id(1, 3)));
    storage.log.purge(log_id(1, 3)).await.unwrap();
    drop(storage);
    let mut storage = reopen(dir.path()).await.unwrap();
    let state = storage.log.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (Some(log_id(1, 3)), Some(log_id(1, 3))));
    same(&storage, &expected(&history()));
}

#[tokio::test]
async fn what_was_only_appended_is_salvaged_into_a_new_epoch_and_the_folder_stays_as_it_is() {
    let (dir, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut storage = Storage::open(dir.path()).unwrap();
    write(&mut storage, history()).await;
    storage.log.blocking_append(vec![change(4, 2, None, put("late", DOC))]).await.unwrap();
    drop(storage);
    let contents = || -> Vec<_> {
        let files = files(dir.path()).into_iter();
        files.map(|file| (fs::read(&file).unwrap(), file)).collect()
    };
    let before = contents();
    let remains = crate::Remains::of_member(dir.path()).unwrap();
    assert!(contents() == before);
    assert_eq!((remains.revision(), remains.objects()), (Revision(3), 3));
    let (id, node) = (remains.node_id(), remains.cluster().nodes[&NodeId(1)].clone());
    let key = GossipKey { id: 9, secret: Secret("cd".repeat(32)) };
    assert_eq!(remains.found(new.path(), node, key).await.unwrap(), Revision(3 + crate::EPOCH_STRIDE));
    assert_eq!(id, NodeId(4 + crate::EPOCH_STRIDE));
    let mut restored = reopen(new.path()).await.unwrap();
    assert!(restored.config().borrow().get(Kind::Upstream, &Name::new("late").unwrap()).is_some());
    let cluster = restored.cluster().borrow().clone();
    assert_eq!(cluster.founding.as_ref().unwrap().epoch, 2);
    assert_eq!(cluster.nodes.keys().copied().collect::<Vec<_>>(), [id]);
    // It votes in no term that the old one had.
    assert_eq!(restored.log.read_vote().await.unwrap(), Some(Vote::new(1, id.0)));
}

#[tokio::test]
async fn what_the_log_lacks_is_in_a_snapshot_even_after_a_crash_before_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = Storage::open(dir.path()).unwrap();
    write(&mut storage, history()).await;
    storage.log.purge(log_id(1, 3)).await.unwrap();
    drop(storage);
    let mut storage = reopen(dir.path()).await.unwrap();
    let snapshot = storage.state_machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(1, 3)));
}

#[tokio::test]
async fn an_entry_of_many_parts_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = Storage::open(dir.path()).unwrap();
    let large = format!(r#"{{"targets":[],"note":"{}"}}"#, "x".repeat(300_000));
    let entries = vec![change(1, 0, None, put("large", &large)), change(2, 1, None, put("small", DOC))];
    storage.log.blocking_append(entries.clone()).await.unwrap();
    assert_eq!(storage.log.try_get_log_entries(1..=2).await.unwrap(), entries);
    storage.log.truncate_after(None).await.unwrap();
    assert!(storage.log.try_get_log_entries(..).await.unwrap().is_empty());
}

#[tokio::test]
async fn damage_anywhere_is_refused_or_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut storage = Storage::open(dir.path()).unwrap();
    write(&mut storage, history()).await;
    storage.state_machine.build_snapshot().await.unwrap();
    drop(storage);
    drop(reopen(dir.path()).await.unwrap());
    let as_before = expected(&history());
    let mut refused = 0;
    for file in files(dir.path()) {
        let good = fs::read(&file).unwrap();
        let written = good.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut damages: Vec<Vec<u8>> = (0..24)
            .filter_map(|part| {
                let mut bytes = good.clone();
                *bytes.get_mut(part * written / 24)? ^= 0x10;
                Some(bytes)
            })
            .collect();
        damages
            .extend([0, written / 3, written / 2, written.saturating_sub(1)].map(|to| good[..to].to_vec()));
        for damage in damages {
            let copied = tempfile::tempdir().unwrap();
            copy(dir.path(), copied.path());
            fs::write(copied.path().join(file.strip_prefix(dir.path()).unwrap()), &damage).unwrap();
            match reopen(copied.path()).await {
                Ok(mut storage) => {
                    same(&storage, &as_before);
                    assert_eq!(storage.log.read_vote().await.unwrap(), Some(Vote::new_committed(1, 1)));
                    // A damaged snapshot is not handed out.
                    if let Some(snapshot) = storage.state_machine.get_current_snapshot().await.unwrap() {
                        assert_eq!(snapshot.meta.last_log_id, as_before.applied);
                    }
                }
                Err(Error::Storage { file, place, reason }) => {
                    refused += 1;
                    assert!(file.starts_with(copied.path()) && !place.is_empty() && !reason.is_empty());
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_log_that_is_gone_or_older_than_the_mark_is_refused() {
    let (dir, older) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut storage = Storage::open(dir.path()).unwrap();
    write(&mut storage, vec![form(1)]).await;
    drop(storage);
    drop(reopen(dir.path()).await.unwrap());
    copy(dir.path(), older.path());
    let mut storage = reopen(dir.path()).await.unwrap();
    storage.log.blocking_append(history().split_off(1)).await.unwrap();
    drop(storage);
    drop(reopen(dir.path()).await.unwrap());
    fs::copy(dir.path().join("high-water"), older.path().join("high-water")).unwrap();
    let refused = reopen(older.path()).await.err().expect("the log is older").to_string();
    assert!(refused.contains("log/0") && refused.contains("ended at 3"), "{refused}");
    fs::remove_dir_all(older.path().join("log")).unwrap();
    assert!(matches!(reopen(older.path()).await, Err(Error::Storage { .. })));
}

#[tokio::test]
async fn a_store_of_another_boot_or_damaged_or_gone_is_made_anew() {
    for has_snapshot in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut storage = Storage::open(dir.path()).unwrap();
        let mut entries = history();
        let last = entries.pop().unwrap();
        write(&mut storage, entries).await;
        if has_snapshot {
            storage.state_machine.build_snapshot().await.unwrap();
            storage.log.purge(log_id(1, 2)).await.unwrap();
        }
        storage.log.blocking_append([last.clone()]).await.unwrap();
        apply(&mut storage, vec![last]).await;
        drop(storage);
        drop(reopen(dir.path()).await.unwrap());
        fs::write(dir.path().join("store/db"), vec![0x5a; 100_000]).unwrap();
        fs::write(dir.path().join("store-boot"), "another").unwrap();
        for _ in 0..2 {
            same(&reopen(dir.path()).await.unwrap(), &expected(&history()));
        }
        // Under the same boot it is damage.
        fs::write(dir.path().join("store/db"), vec![0x5a; 100_000]).unwrap();
        same(&reopen(dir.path()).await.unwrap(), &expected(&history()));
        // Or it is gone.
        fs::remove_dir_all(dir.path().join("store")).unwrap();
        same(&reopen(dir.path()).await.unwrap(), &expected(&history()));
    }
}

#[tokio::test]
async fn a_snapshot_that_was_not_installed_yet_is_at_the_next_start() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = Storage::open(from.path()).unwrap();
    write(&mut sender, history()).await;
    let snapshot = sender.state_machine.build_snapshot().await.unwrap();
    drop(Storage::open(to.path()).unwrap());
    fs::copy(snapshot.snapshot.path(), to.path().join("snapshots/current")).unwrap();
    for _ in 0..2 {
        same(&reopen(to.path()).await.unwrap(), &expected(&history()));
    }
}

#[tokio::test]
async fn a_snapshot_carries_the_whole_state_and_a_damaged_one_is_refused() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut sender = Storage::open(from.path()).unwrap();
    write(&mut sender, history()).await;
    let snapshot = sender.state_machine.build_snapshot().await.unwrap();
    let bytes = fs::read(snapshot.snapshot.path()).unwrap();
    let mut receiver = Storage::open(to.path()).unwrap();
    // It had something else before.
    apply(&mut receiver, vec![change(1, 0, Some("old"), put("old", DOC))]).await;
    for at in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        for damaged in [damaged, bytes[..at].to_vec()] {
            let incoming = receiver.snapshots.temporary();
            fs::write(incoming.path(), damaged).unwrap();
            assert!(receiver.state_machine.install_snapshot(&snapshot.meta, incoming).await.is_err());
        }
    }
    assert!(receiver.config().borrow().upstreams.contains_key("old"));
    let incoming = receiver.snapshots.temporary();
    fs::write(incoming.path(), &bytes).unwrap();
    receiver.state_machine.install_snapshot(&snapshot.meta, incoming).await.unwrap();
    receiver.log.purge(log_id(1, 3)).await.unwrap();
    for _ in 0..2 {
        same(&receiver, &expected(&history()));
        assert!(receiver.state_machine.outcome("k", 0).is_some());
        assert!(receiver.state_machine.outcome("old", 0).is_none());
        let stored = receiver.config().borrow().get(Kind::Upstream, &Name::new("later").unwrap()).unwrap();
        assert!(std::str::from_utf8(&stored.doc).unwrap().contains("since_2042"));
        drop(receiver);
        receiver = reopen(to.path()).await.unwrap();
    }
}

#[test]
fn the_same_key_gives_the_same_outcome_until_it_is_the_oldest_of_too_many() {
    let mut state = State::default();
    let first = state.apply(&change(1, 0, Some("k"), put("a", DOC)), &mut Vec::new());
    assert_eq!(first, Response::Change(Outcome::Applied(Revision(1))));
    assert_eq!(state.apply(&change(2, 1, Some("k"), put("a", DOC)), &mut Vec::new()), first);
    // For something else it is no outcome, and it does not do it either.
    assert_eq!(state.apply(&change(2, 1, Some("k"), put("b", DOC)), &mut Vec::new()), Response::None);
    assert!(!state.config.upstreams.contains_key("b"));
    // A conflict is not kept: the edit is proposed again under the same key.
    let stale = state.apply(&change(3, 0, Some("stale"), put("a", DOC)), &mut Vec::new());
    assert!(matches!(stale, Response::Change(Outcome::Conflict(_))), "{stale:?}");
    assert!(state.outcome("stale", 0).is_none());
    for n in 0..OUTCOMES_MAX as u64 {
        let command = Command::Change(Change { base: state.config.revision, ops: vec![put("a", DOC)] });
        let link = Link { id: 4 + n, after: state.made_by };
        state.apply(&linked(4 + n, Some(&format!("n{n}")), link, command), &mut Vec::new());
    }
    assert!(state.outcome("k", 0).is_none());
    assert!(state.outcome("n0", 0).is_some());
}

#[test]
fn a_change_applies_after_its_own_predecessor_alone_and_not_after_another_of_that_revision() {
    let mut state = State::default();
    let mut apply = |index, base, id, after, name: &str| {
        let command = Command::Change(Change { base: Revision(base), ops: vec![put(name, DOC)] });
        state.apply(&linked(index, None, Link { id, after }, command), &mut Vec::new())
    };
    let applied = |revision| Response::Change(Outcome::Applied(Revision(revision)));
    // The second and third were checked together, and then the first came in between.
    assert_eq!(apply(1, 0, 1, 0, "a"), applied(1));
    let conflict = Response::Change(Outcome::Conflict(Revision(1)));
    assert_eq!(apply(2, 0, 2, 0, "b"), conflict);
    assert_eq!(apply(3, 1, 3, 2, "c"), conflict);
    assert_eq!(apply(4, 1, 4, 1, "c"), applied(2));
}
