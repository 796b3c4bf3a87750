use super::{Asked, Condition, History, Operation, Told, Value, Values, judge};

fn operation(times: (u64, u64), asked: Asked, told: Told) -> Operation {
    let (called_us, returned_us) = times;
    // Who does several things at once is several clients.
    let client = u32::try_from(called_us).unwrap();
    Operation { client, node: "node1".into(), called_us, returned_us, asked, told }
}

fn write_if(times: (u64, u64), values: &[(&str, Value)], only_if: Condition, told: Told) -> Operation {
    let values = values.iter().map(|(route, value)| ((*route).to_owned(), *value)).collect();
    operation(times, Asked::Write { values, only_if }, told)
}

fn put(times: (u64, u64), value: u64, told: Told) -> Operation {
    write_if(times, &[("a", Some(value))], Condition::Always, told)
}

fn delete(times: (u64, u64), told: Told) -> Operation {
    write_if(times, &[("a", None)], Condition::Always, told)
}

fn read(times: (u64, u64), value: Value) -> Operation {
    operation(times, Asked::Read("a".into()), Told::Saw(Values::from([("a".into(), value)]), None))
}

fn read_all(times: (u64, u64), revision: u64, values: &[(&str, u64)]) -> Operation {
    let values = values.iter().map(|(route, value)| ((*route).to_owned(), Some(*value))).collect();
    operation(times, Asked::ReadAll, Told::Saw(values, Some(revision)))
}

fn unknown() -> Told {
    Told::Unknown("no answer".into())
}

fn wrong(operations: Vec<Operation>) -> Vec<String> {
    judge(&History { operations }).into_iter().map(|violation| violation.0).collect()
}

#[test]
fn what_could_be_is_not_called_wrong() {
    let both = [("a", Some(8)), ("b", Some(9))];
    assert_eq!(
        wrong(vec![
            read((0, 1), None),
            put((0, 10), 1, Told::Made(1)),
            put((5, 20), 2, Told::Made(2)),
            read((15, 30), Some(2)),
            // It happened late: both are possible for a while.
            put((40, 50), 3, unknown()),
            read((60, 70), Some(2)),
            read((80, 90), Some(3)),
            write_if((100, 110), &[("a", Some(4))], Condition::Is(Some(2)), Told::Unmet),
            write_if((120, 130), &[("a", Some(5))], Condition::Is(Some(3)), Told::Made(4)),
            delete((140, 150), Told::Made(5)),
            delete((160, 170), Told::Absent),
            put((180, 190), 6, Told::Refused("no quorum".into())),
            write_if((200, 210), &both, Condition::Base(5), Told::Made(6)),
            write_if((220, 230), &both, Condition::Base(5), Told::Unmet),
            read_all((240, 250), 6, &[("a", 8), ("b", 9)]),
        ]),
        Vec::<String>::new()
    );
}

#[test]
fn what_could_not_be_is_found() {
    let first = || put((0, 10), 1, Told::Made(1));
    let both = || write_if((20, 30), &[("a", Some(2)), ("b", Some(3))], Condition::Always, Told::Made(2));
    for (what, operations) in [
        ("a stale read", vec![first(), put((20, 30), 2, Told::Made(2)), read((40, 50), Some(1))]),
        ("a lost write", vec![first(), read((20, 30), None)]),
        ("a value from nowhere", vec![first(), read((20, 30), Some(7))]),
        (
            "a refused write that happened",
            vec![first(), put((20, 30), 2, Told::Refused("x".into())), read((40, 50), Some(2))],
        ),
        (
            "two reads in two orders",
            vec![
                put((0, 100), 1, Told::Made(1)),
                put((0, 100), 2, Told::Made(2)),
                read((10, 20), Some(1)),
                read((30, 40), Some(2)),
                read((50, 60), Some(1)),
            ],
        ),
        (
            "a condition that did not hold",
            vec![first(), write_if((20, 30), &[("a", Some(2))], Condition::Is(None), Told::Made(2))],
        ),
        (
            "a condition that held",
            vec![first(), write_if((20, 30), &[("a", Some(2))], Condition::Is(Some(1)), Told::Unmet)],
        ),
        ("nothing to delete where there is", vec![first(), delete((20, 30), Told::Absent)]),
        (
            "one revision twice",
            vec![first(), write_if((20, 30), &[("b", Some(2))], Condition::Always, Told::Made(1))],
        ),
        (
            "revisions against time",
            vec![
                put((0, 10), 1, Told::Made(2)),
                write_if((20, 30), &[("b", Some(2))], Condition::Always, Told::Made(1)),
            ],
        ),
        ("a revision of nobody", vec![first(), put((20, 30), 2, Told::Made(3))]),
        (
            "a base that was not the last",
            vec![
                first(),
                put((20, 30), 2, Told::Made(2)),
                write_if((40, 50), &[("b", Some(3))], Condition::Base(1), Told::Made(3)),
            ],
        ),
        (
            "a base that was the last",
            vec![first(), write_if((20, 30), &[("b", Some(3))], Condition::Base(1), Told::Unmet)],
        ),
        ("half of a transaction", vec![first(), both(), read_all((20, 50), 2, &[("a", 2)])]),
        ("a stale read of all", vec![first(), both(), read_all((40, 50), 1, &[("a", 1)])]),
        (
            "a read of all that is not its revision",
            vec![first(), both(), read_all((20, 50), 2, &[("a", 1), ("b", 3)])],
        ),
        ("what nobody understands", vec![put((0, 10), 1, Told::Odd("418".into()))]),
    ] {
        assert!(!wrong(operations).is_empty(), "{what} is not found");
    }
}

#[test]
fn the_first_answer_that_could_not_be_is_named() {
    let mut operations: Vec<Operation> =
        (1..50).map(|n| put((n * 100, n * 100 + 10), n, Told::Made(n))).collect();
    operations.push(read((2_050, 2_060), Some(19)));
    operations.sort_by_key(|operation| operation.called_us);
    let wrong = wrong(operations);
    assert_eq!(wrong.len(), 1, "{wrong:?}");
    assert!(wrong[0].contains("2.050 ms") && wrong[0].contains("Read"), "{wrong:?}");
}

#[test]
fn a_history_is_read_back_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("some/where/history");
    let history = History { operations: vec![put((0, 1), 1, unknown()), read_all((2, 3), 1, &[("a", 1)])] };
    history.keep(&path).unwrap();
    assert_eq!(History::read(&path).unwrap(), history);
    std::fs::write(&path, "{}\n").unwrap();
    assert!(History::read(&path).unwrap_err().to_string().contains("history:1"));
}
