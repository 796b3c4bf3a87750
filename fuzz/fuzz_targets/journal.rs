//! The segments of a log. The first byte says as what the rest is read: segments as they are, frames under good checksums, or what
//! is written to a journal whose segments are then damaged.
#![cfg_attr(feature = "libfuzzer", no_main)]

use phalanx_fuzz::Input;
use raft::fuzzing::journal::{self, Contents, Segments, Step};

/// Small, so that an input fills several.
const SEGMENT_BYTES: u64 = 256;
/// A journal is written to by one node, which adds few steps while one segment is the newest.
const STEPS_MAX: usize = 64;

phalanx_fuzz::target!(|data| {
    let mut input = Input(data);
    match input.byte() % 3 {
        0 => as_they_are(&mut input),
        1 => under_good_checksums(&mut input),
        _ => written_and_damaged(&mut input),
    }
});

/// What opens is read as the same once it is begun, and goes on.
fn goes_on(segments: &Segments) {
    let Ok(before) = segments.read() else { return };
    if let Err(error) = segments.write(SEGMENT_BYTES, &[]) {
        assert!(error.contains("no number is left"), "{error}");
        return;
    }
    assert_eq!(segments.read().as_ref(), Ok(&before), "what was begun is another");
    let last = before.entries.last().map(|(id, _)| *id).or(before.purged);
    let next = match last {
        None => (1, 0),
        Some((_, u64::MAX)) => return,
        Some((term, index)) => (term, index + 1),
    };
    segments.write(SEGMENT_BYTES, &[Step::Entry(next, b"next".to_vec())]).expect("it takes the next entry");
    let mut after = before;
    after.entries.push((next, b"next".to_vec()));
    assert_eq!(segments.read().as_ref(), Ok(&after), "what was written is not what is read");
}

/// Of a segment: a small one, or the last that there can be.
fn number(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        u8::MAX => u64::MAX,
        small => small.into(),
    }
}

fn as_they_are(input: &mut Input<'_>) {
    let segments = Segments::default();
    while !input.is_empty() {
        let number = number(input);
        segments.put(number, input.long_part());
    }
    goes_on(&segments);
}

fn under_good_checksums(input: &mut Input<'_>) {
    let segments = Segments::default();
    while !input.is_empty() {
        let (number, mut bytes) = (number(input), Vec::new());
        for _ in 0..input.byte() % 8 {
            let Ok(frame) = journal::frame(number, bytes.len() as u64, &any_step(input)) else { return };
            bytes.extend(frame);
        }
        segments.put(number, &bytes);
    }
    goes_on(&segments);
}

fn any_step(input: &mut Input<'_>) -> Step {
    let id = |input: &mut Input<'_>| (u64::from(input.byte()), u64::from(input.byte()));
    match input.byte() % 6 {
        0 => Step::Head(None),
        1 => Step::Head(Some((input.byte().into(), input.short().into()))),
        2 => Step::Entry(id(input), input.part().to_vec()),
        3 => Step::Vote(input.byte().into(), input.byte().into()),
        4 => Step::Truncated((input.byte() & 1 == 0).then(|| id(input))),
        _ => Step::Purged(id(input)),
    }
}

/// Of a journal that is damaged at one place it is said, or what is read is what it was before one of the last steps: those in the
/// newest segment. Damaged anywhere else, it is said, or nothing is lost.
fn written_and_damaged(input: &mut Input<'_>) {
    let (place, at, flip) = (input.byte(), usize::from(input.short()), input.byte());
    let segments = Segments::default();
    segments.write(SEGMENT_BYTES, &[]).expect("an empty journal is begun");
    // What it came to, by the number of the segment that was the newest.
    let mut states = vec![(0, Contents::default())];
    let mut model = Contents::default();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let Some(step) = next_step(input, &model) else { continue };
        segments.write(SEGMENT_BYTES, std::slice::from_ref(&step)).expect("a step that follows is taken");
        play(&mut model, &step);
        let read = segments.read().expect("what was written can be read");
        // The vote is compared as it was read: it is a message.
        assert_eq!((&read.purged, &read.entries), (&model.purged, &model.entries));
        model.vote = read.vote;
        let newest = segments.all().last().map(|(number, _)| *number).unwrap_or_default();
        states.push((newest, model.clone()));
    }
    let all = segments.all();
    let (number, sound) = &all[usize::from(place) % all.len()];
    let newest = all.last().map(|(number, _)| *number).unwrap_or_default();
    let mut bytes = sound.clone();
    if flip == 0 {
        bytes.truncate(at % bytes.len());
    } else {
        let at = at % bytes.len();
        bytes[at] ^= flip;
    }
    segments.put(*number, &bytes);
    let Ok(read) = segments.read() else { return };
    // The segment before the newest ends where that says, and a step may have been the last of it.
    let mut before = states.iter().rev().skip_while(|(of, _)| *of == newest);
    let last_before = before.next().map(|(_, state)| state);
    let of_newest = states.iter().filter(|(of, _)| *of == newest).map(|(_, state)| state);
    // With the head of the only segment nothing is left: that something is missing is for the high-water mark to say.
    let nothing = (all.len() == 1).then(Contents::default);
    // Nor does it know of entries whose segment went, where the record that they were purged is behind the damage.
    let some_went = all.first().is_some_and(|(first, _)| *first > 0);
    let is_it = |state: &Contents| {
        let no_entries = some_went && read.entries.is_empty();
        (&state.vote, &state.purged) == (&read.vote, &read.purged)
            && (no_entries || state.entries == read.entries)
    };
    let possible = of_newest.chain(last_before).chain(&nothing).any(is_it);
    assert!(possible, "damage in segment {number} made it {read:?}, which it never was");
    assert!(*number == newest || read == model, "damage in segment {number} lost what came after it");
}

/// A step that can follow.
fn next_step(input: &mut Input<'_>, model: &Contents) -> Option<Step> {
    let last = model.entries.last().map(|(id, _)| *id).or(model.purged);
    let some = |input: &mut Input<'_>| {
        let at = usize::from(input.byte());
        model.entries.get(at % model.entries.len().max(1)).map(|(id, _)| *id)
    };
    Some(match input.byte() % 8 {
        0 => Step::Vote(input.byte().into(), input.byte().into()),
        1 => Step::Truncated(some(input).or(model.purged)),
        2 => Step::Purged(some(input)?),
        _ => {
            let (term, index) = last.map_or((1, 0), |(term, index)| (term, index + 1));
            Step::Entry((term + u64::from(input.byte() & 1), index), input.part().to_vec())
        }
    })
}

fn play(model: &mut Contents, step: &Step) {
    match step {
        Step::Head(_) | Step::Vote(..) => {}
        Step::Entry(id, body) => model.entries.push((*id, body.clone())),
        Step::Truncated(last) => {
            let last = last.map(|(_, index)| index);
            model.entries.retain(|((_, index), _)| Some(*index) <= last);
        }
        Step::Purged(upto) => {
            model.purged = Some(*upto);
            model.entries.retain(|((_, index), _)| *index > upto.1);
        }
    }
}
