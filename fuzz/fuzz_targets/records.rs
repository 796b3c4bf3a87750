//! What a disk may hold. The first byte says as what the rest is read: a record, a log, records of the state, a snapshot, the
//! frames of one under good checksums, or the high-water file.
#![cfg_attr(feature = "libfuzzer", no_main)]

use phalanx_fuzz::Input;
use raft::fuzzing::{self, Machine};

const SLOT_BYTES: usize = 512;

phalanx_fuzz::target!(|data| {
    let mut input = Input(data);
    match input.byte() % 8 {
        0 => record(&mut input),
        1 => message(&mut input),
        2 => entry(input.0),
        3 => log(&mut input),
        4 => state(&mut input),
        5 => snapshot(input.0),
        6 => frames(&mut input),
        _ => high_water(&mut input),
    }
});

/// A record opens under its own key alone, and as it was.
fn record(input: &mut Input<'_>) {
    let (key, other, at, flip) = (input.part(), input.part(), usize::from(input.short()), input.byte());
    let payload = input.0;
    if let Ok(opened) = fuzzing::open_record(key, payload) {
        assert_eq!(fuzzing::seal_record(key, opened), payload, "it is sealed otherwise");
    }
    let sealed = fuzzing::seal_record(key, payload);
    assert_eq!(fuzzing::open_record(key, &sealed), Ok(payload));
    // The key goes before the payload into the checksum: of another length it may be part of the same bytes.
    if key.len() == other.len() && key.iter().zip(other).filter(|(one, other)| one != other).count() == 1 {
        assert!(fuzzing::open_record(other, &sealed).is_err(), "it opens under another key");
    }
    let mut damaged = sealed.clone();
    let at = at % damaged.len();
    damaged[at] ^= flip.max(1);
    assert!(fuzzing::open_record(key, &damaged).is_err(), "damage at byte {at} was not found");
    assert!(fuzzing::open_record(key, &sealed[..at]).is_err(), "that it ends at byte {at} was not found");
}

fn message(input: &mut Input<'_>) {
    let sort = input.byte();
    if let Ok(written) = fuzzing::message_again(sort, input.0) {
        assert_eq!(fuzzing::message_again(sort, &written).as_ref(), Ok(&written));
    }
}

fn entry(bytes: &[u8]) {
    if let Ok(written) = fuzzing::log_entry_again(bytes) {
        assert_eq!(fuzzing::log_entry_again(&written).as_ref(), Ok(&written));
    }
}

/// Whatever is committed is applied, and what the store holds then is what the memory does.
fn log(input: &mut Input<'_>) {
    let mut machine = Machine::default();
    for index in 1.. {
        if input.is_empty() {
            break;
        }
        let (kind, body) = (input.byte() % 3, input.long_part());
        let Ok(bytes) = fuzzing::log_entry(1, index, kind, body) else { continue };
        if let Ok(written) = fuzzing::log_entry_again(&bytes) {
            assert_eq!(fuzzing::log_entry_again(&written).as_ref(), Ok(&written));
        }
        let _ = machine.apply(&bytes);
    }
    let records = machine.records();
    survives_a_snapshot(&machine);
    let restarted = machine.restarted().expect("what was applied can be loaded");
    assert_eq!(restarted.records(), records, "the store is not what the memory was");
}

/// Records that can be loaded are written and loaded as they were.
fn state(input: &mut Input<'_>) {
    let mut machine = Machine::default();
    while !input.is_empty() {
        let (space, rest, payload) = (input.byte(), input.part(), input.long_part());
        let _ = machine.load(space, rest, payload);
    }
    let (_, records) = machine.records();
    let mut again = Machine::default();
    for (space, rest, payload) in &records {
        again.load(*space, rest, payload).expect("what was written can be loaded");
    }
    assert_eq!(again.records().1, records);
    survives_a_snapshot(&machine);
}

fn survives_a_snapshot(machine: &Machine) {
    let bytes = machine.snapshot().expect("any state has a snapshot");
    let read = Machine::of_snapshot(&bytes).expect("what was written can be read");
    assert_eq!(read.records(), machine.records(), "the snapshot is not the state");
    assert_eq!(read.snapshot().as_ref(), Ok(&bytes), "its snapshot is another");
}

fn snapshot(bytes: &[u8]) {
    if let Ok(machine) = Machine::of_snapshot(bytes) {
        survives_a_snapshot(&machine);
    }
}

/// A file of these frames, each under its checksum, with its trailer, and with a byte changed.
fn frames(input: &mut Input<'_>) {
    let (at, flip) = (usize::from(input.short()), input.byte());
    let mut bytes = b"PHXSNAP1".to_vec();
    let mut count = 0_u64;
    let mut frame = |payload: &[u8], count: u64| {
        let record = fuzzing::seal_record(&count.to_le_bytes(), payload);
        let length = u32::try_from(record.len()).expect("an input is small");
        bytes.extend(length.to_le_bytes());
        bytes.extend(record);
    };
    while !input.is_empty() {
        frame(input.long_part(), count);
        count += 1;
    }
    frame(&[&b"end"[..], &count.to_le_bytes()].concat(), count);
    if let Ok(machine) = Machine::of_snapshot(&bytes) {
        survives_a_snapshot(&machine);
        let at = at % bytes.len();
        assert!(Machine::of_snapshot(&bytes[..at]).is_err(), "that it ends at byte {at} was not found");
        bytes[at] ^= flip.max(1);
        assert!(Machine::of_snapshot(&bytes).is_err(), "damage at byte {at} was not found");
    }
}

/// A file of two slots, as they are or under their checksums.
fn high_water(input: &mut Input<'_>) {
    let sealed = input.byte() & 1 != 0;
    let mut file = input.0.to_vec();
    if sealed {
        file = [input.part(), input.part()].map(slot).concat();
    }
    if let Ok(raised) = fuzzing::raise_high_water(&file) {
        fuzzing::raise_high_water(&raised).expect("what was raised can be raised");
    }
}

fn slot(payload: &[u8]) -> Vec<u8> {
    let record = fuzzing::seal_record(b"high-water", payload);
    let mut slot = u16::try_from(record.len()).expect("an input's part is small").to_le_bytes().to_vec();
    slot.extend(record);
    slot.resize(SLOT_BYTES, 0);
    slot
}
