use std::{collections::BTreeMap, fs};

use proptest::prelude::*;

use super::*;
use crate::files::SystemFiles;

/// Small, so that there are many.
const SMALL: u64 = 512;

fn open_in(dir: &Path) -> Result<Journal, Error> {
    Journal::open(Arc::new(SystemFiles), dir.to_owned(), SMALL)
}

fn begin_in(dir: &Path) -> Journal {
    let journal = open_in(dir).unwrap();
    journal.begin().unwrap();
    journal
}

fn entry(term: u64, index: u64) -> EntryV1 {
    EntryV1 { term, index, kind: 0, body: format!("entry {index} of term {term}").into_bytes() }
}

fn id(term: u64, index: u64) -> LogIdRecord {
    LogIdRecord { term, index }
}

fn append(journal: &Journal, term: u64, indexes: std::ops::RangeInclusive<u64>) {
    let records: Vec<Record> = indexes.map(|index| Record::Entry(entry(term, index))).collect();
    journal.write(&records).unwrap();
    journal.barrier().unwrap();
}

fn entries(journal: &Journal) -> Vec<EntryV1> {
    let mut entries = Vec::new();
    let each = |entry| {
        entries.push(entry);
        Ok(())
    };
    journal.read(0, u64::MAX, each).unwrap();
    entries
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut segments: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    segments.sort();
    segments
}

/// What a segment holds, without the zeros behind it.
fn written(segment: &Path) -> Vec<u8> {
    let mut bytes = fs::read(segment).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
    bytes
}

#[test]
fn what_was_written_is_read_back_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let journal = begin_in(dir.path());
    (0..40).for_each(|index| append(&journal, 1, index..=index));
    journal.write(&[Record::Vote(VoteRecord { term: 3, node_id: 2, committed: true })]).unwrap();
    assert!(segments(dir.path()).len() > 3);
    for journal in [journal, begin_in(dir.path())] {
        assert_eq!(entries(&journal), (0..40).map(|index| entry(1, index)).collect::<Vec<_>>());
        assert_eq!(journal.vote().unwrap().term, 3);
        assert_eq!(journal.last(), Some(id(1, 39)));
        let mut some = Vec::new();
        journal
            .read(7, 9, |entry| {
                some.push(entry.index);
                Ok(())
            })
            .unwrap();
        assert_eq!(some, [7, 8]);
    }
}

#[test]
fn segments_of_purged_entries_go_and_the_vote_stays() {
    let dir = tempfile::tempdir().unwrap();
    let journal = begin_in(dir.path());
    journal.write(&[Record::Vote(VoteRecord { term: 3, node_id: 2, committed: true })]).unwrap();
    (0..40).for_each(|index| append(&journal, 1, index..=index));
    journal.write(&[Record::Purged(id(1, 39))]).unwrap();
    journal.barrier().unwrap();
    journal.forget_purged().unwrap();
    assert_eq!(segments(dir.path()).len(), 1);
    for journal in [journal, begin_in(dir.path())] {
        assert!(entries(&journal).is_empty());
        assert_eq!((journal.vote().unwrap().term, journal.last()), (3, Some(id(1, 39))));
    }
    // A snapshot may be ahead of the whole log.
    let journal = begin_in(dir.path());
    journal.write(&[Record::Purged(id(2, 70))]).unwrap();
    append(&journal, 2, 71..=72);
    assert_eq!(entries(&begin_in(dir.path())).len(), 2);
}

/// The worst that a loss of power does: a frame is lost, the next one is there, and what is written later takes just as many
/// bytes as the lost one.
#[test]
fn what_lies_behind_a_torn_end_is_never_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let journal = begin_in(dir.path());
    append(&journal, 1, 0..=0);
    let end = journal.lock().segments[&0].end;
    append(&journal, 1, 1..=1);
    let next = journal.lock().segments[&0].end;
    append(&journal, 1, 2..=2);
    drop(journal);
    let segment = segments(dir.path()).remove(0);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[usize::try_from(end).unwrap()..usize::try_from(next).unwrap()].fill(0);
    fs::write(&segment, bytes).unwrap();
    let journal = open_in(dir.path()).unwrap();
    assert_eq!(journal.last(), Some(id(1, 0)));
    assert!(journal.end().1.contains("there is more behind its end"), "{:?}", journal.end());
    journal.begin().unwrap();
    append(&journal, 2, 1..=1);
    drop(journal);
    for _ in 0..2 {
        assert_eq!(entries(&begin_in(dir.path())), [entry(1, 0), entry(2, 1)]);
    }
    assert_eq!(segments(dir.path()).len(), 2);
}

#[test]
fn a_segment_whose_making_was_cut_short_is_left_out_and_its_number_too() {
    let dir = tempfile::tempdir().unwrap();
    append(&begin_in(dir.path()), 1, 0..=3);
    fs::write(segment::path(dir.path(), 1), b"half a head").unwrap();
    let journal = begin_in(dir.path());
    append(&journal, 1, 4..=4);
    let names = [segment::path(dir.path(), 0), segment::path(dir.path(), 2)];
    assert_eq!(segments(dir.path()), names);
    assert_eq!(entries(&begin_in(dir.path())).len(), 5);
}

#[test]
fn damage_in_a_segment_that_others_follow_is_named_and_a_missing_one_too() {
    let dir = tempfile::tempdir().unwrap();
    let journal = begin_in(dir.path());
    (0..40).for_each(|index| append(&journal, 1, index..=index));
    drop(journal);
    let damaged = segments(dir.path()).remove(1);
    let good = fs::read(&damaged).unwrap();
    for at in 0..written(&damaged).len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(&damaged, bytes).unwrap();
        match open_in(dir.path()) {
            Err(Error::Storage { file, place, .. }) => assert!(file == damaged && place.starts_with("byte ")),
            other => panic!("byte {at}: {:?}", other.err()),
        }
    }
    fs::remove_file(&damaged).unwrap();
    assert!(matches!(open_in(dir.path()), Err(Error::Storage { .. })));
}

#[test]
fn a_segment_that_says_it_follows_itself_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let head = Head { previous: Some(record::End { segment: 4, at: 0 }), ..Head::default() };
    Segment::create(&SystemFiles, dir.path(), 4, head).unwrap();
    match open_in(dir.path()) {
        Err(Error::Storage { reason, .. }) => assert!(reason.contains("follows segment 4"), "{reason}"),
        other => panic!("{:?}", other.err()),
    }
}

#[test]
fn no_number_after_the_last_is_made_up() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(segment::path(dir.path(), u64::MAX), b"half a head").unwrap();
    let refused = open_in(dir.path()).unwrap().begin().unwrap_err().to_string();
    assert!(refused.contains("no number is left"), "{refused}");
}

#[test]
fn an_entry_that_does_not_follow_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = begin_in(dir.path());
    append(&journal, 1, 0..=3);
    assert!(journal.write(&[Record::Entry(entry(1, 5))]).is_err());
}

/// What is done to a journal.
#[derive(Debug, Clone)]
enum Doing {
    Append(u8),
    Truncate(u8),
    Purge(u8),
    Vote,
    /// The process ends, and these bytes more are at the newest segment's end than it knows of.
    Reopen(Vec<u8>),
    /// The process ends and the last write with it, of which so much is there.
    Tear(u8),
}

fn doings() -> impl Strategy<Value = Doing> {
    prop_oneof![
        6 => (1..6_u8).prop_map(Doing::Append),
        1 => any::<u8>().prop_map(Doing::Truncate),
        1 => any::<u8>().prop_map(Doing::Purge),
        1 => Just(Doing::Vote),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Doing::Reopen),
        1 => any::<u8>().prop_map(Doing::Tear),
    ]
}

/// What the journal should come to.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    entries: BTreeMap<u64, EntryV1>,
    purged: Option<LogIdRecord>,
    vote: Option<VoteRecord>,
}

impl Model {
    fn of(journal: &Journal) -> Self {
        let entries = entries(journal).into_iter().map(|entry| (entry.index, entry)).collect();
        Self { entries, purged: journal.purged(), vote: journal.vote() }
    }

    fn next(&self) -> u64 {
        let last = self.entries.keys().next_back().copied().or(self.purged.as_ref().map(|id| id.index));
        last.map_or(0, |last| last + 1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_comes_to_what_was_written_whatever_ends_its_process(doings in prop::collection::vec(doings(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = begin_in(dir.path());
        let mut model = Model::default();
        for (term, doing) in (1..).zip(doings) {
            match doing {
                Doing::Append(count) => {
                    let from = model.next();
                    append(&journal, term, from..=from + u64::from(count) - 1);
                    model.entries.extend((from..from + u64::from(count)).map(|index| (index, entry(term, index))));
                }
                Doing::Truncate(keep) => {
                    let kept = model.entries.len() * usize::from(keep) / 256;
                    let last = model.entries.values().take(kept).next_back();
                    let last = last.map(|entry| id(entry.term, entry.index)).or(model.purged.clone());
                    let from = last.as_ref().map_or(0, |last| last.index + 1);
                    model.entries.split_off(&from);
                    journal.write(&[Record::Truncated(last)]).unwrap();
                }
                Doing::Purge(share) => {
                    let last = model.entries.len() * usize::from(share) / 256;
                    let Some(upto) = model.entries.values().nth(last).cloned() else { continue };
                    let upto = id(upto.term, upto.index);
                    model.entries = model.entries.split_off(&(upto.index + 1));
                    journal.write(&[Record::Purged(upto.clone())]).unwrap();
                    model.purged = Some(upto);
                    journal.barrier().unwrap();
                    journal.forget_purged().unwrap();
                }
                Doing::Vote => {
                    let vote = VoteRecord { term, node_id: 1, committed: false };
                    journal.write(&[Record::Vote(vote.clone())]).unwrap();
                    model.vote = Some(vote);
                }
                Doing::Reopen(garbage) => {
                    let (end, path) = {
                        let inner = journal.lock();
                        let newest = inner.segments.values().next_back().unwrap();
                        (newest.end, newest.path.clone())
                    };
                    drop(journal);
                    SystemFiles.open(&path).unwrap().write_at(&garbage, end).unwrap();
                    journal = begin_in(dir.path());
                }
                Doing::Tear(share) => {
                    let before = {
                        let inner = journal.lock();
                        inner.segments.values().next_back().unwrap().ends()
                    };
                    append(&journal, term, model.next()..=model.next());
                    let (end, path) = {
                        let inner = journal.lock();
                        let newest = inner.segments.values().next_back().unwrap();
                        (newest.ends(), newest.path.clone())
                    };
                    drop(journal);
                    let from = if end.segment == before.segment { before.at } else { 0 };
                    let kept = from + (end.at - from) * u64::from(share) / 256;
                    let mut bytes = fs::read(&path).unwrap();
                    bytes[usize::try_from(kept).unwrap()..].fill(0);
                    fs::write(&path, bytes).unwrap();
                    journal = begin_in(dir.path());
                }
            }
            prop_assert_eq!(&Model::of(&journal), &model);
        }
        drop(journal);
        prop_assert_eq!(Model::of(&open_in(dir.path()).unwrap()), model);
    }
}
