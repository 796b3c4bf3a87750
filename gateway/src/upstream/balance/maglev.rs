//! Maglev hashing: a table from keys to places in which each has its share, and few keys move when places come or go.

use std::sync::Arc;

use siphasher::sip128::SipHasher13;

/// Entries of a table: a prime, as it must be, with which shares of 100 places differ by 1 % or so.
const SIZE: usize = 65_537;
/// Keys of the hashes of places: digits of pi, the same on all nodes of all versions.
const SEED: (u64, u64) = (0x2435_F6A8_885A_308D, 0x1319_8A2E_0370_7344);

/// A table from keys to places (D. E. Eisenbud et al., "Maglev: A fast and reliable software network load balancer", NSDI 2016, section
/// 3.4; weights as in Envoy's).
#[derive(Debug)]
pub(crate) struct Table {
    /// For each entry the place, in the order in which they were given.
    entries: Box<[u16]>,
    /// What it was made of.
    made_of: u128,
}

/// A place and its turns.
struct Turns {
    place: u16,
    offset: usize,
    skip: usize,
    tried: usize,
    weight: u64,
    due: u64,
}

impl Table {
    /// Of places with these labels and weights, of which there are 65,536 at the most. The one that was made before of the same is used again;
    /// the order makes no difference for which label a key leads to.
    pub(crate) fn of<'a>(
        places: impl Iterator<Item = (&'a str, u32)> + Clone,
        mut before: impl Iterator<Item = &'a Arc<Table>>,
    ) -> Arc<Self> {
        let made_of = fingerprint(places.clone());
        let known = before.find(|table| table.made_of == made_of);
        known.cloned().unwrap_or_else(|| Arc::new(Self { entries: entries(places), made_of }))
    }

    /// The place of a key's hash.
    pub(crate) fn at(&self, hash: u64) -> usize {
        let entry = usize::try_from(hash % SIZE as u64).unwrap_or(0);
        self.entries.get(entry).copied().map_or(0, usize::from)
    }
}

/// The hash to look a key up by where its place will not do: the keys of one place are spread over all others.
pub(crate) fn next_choice(hash: u64, choice: u64) -> u64 {
    let mut bits = hash ^ choice.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

fn fingerprint<'a>(places: impl Iterator<Item = (&'a str, u32)>) -> u128 {
    let mut text = Vec::new();
    for (label, weight) in places {
        text.extend_from_slice(&(label.len() as u64).to_le_bytes());
        text.extend_from_slice(label.as_bytes());
        text.extend_from_slice(&weight.to_le_bytes());
    }
    SipHasher13::new_with_keys(SEED.1, SEED.0).hash(&text).as_u128()
}

fn entries<'a>(places: impl Iterator<Item = (&'a str, u32)>) -> Box<[u16]> {
    let mut labelled: Vec<(&str, Turns)> = (places.zip(0_u16..))
        .map(|((label, weight), place)| {
            let hash = SipHasher13::new_with_keys(SEED.0, SEED.1).hash(label.as_bytes());
            let offset = usize::try_from(hash.h1 % SIZE as u64).unwrap_or(0);
            let skip = usize::try_from(hash.h2 % (SIZE as u64 - 1)).unwrap_or(0) + 1;
            (label, Turns { place, offset, skip, tried: 0, weight: weight.into(), due: 0 })
        })
        .collect();
    labelled.sort_unstable_by_key(|(label, _)| *label);
    let heaviest = labelled.iter().map(|(_, turns)| turns.weight).max().unwrap_or(0);
    if heaviest == 0 {
        return Box::default();
    }
    let mut entries = vec![u16::MAX; SIZE];
    let mut filled = 0;
    // Each takes the first entry of its own order that is free, in turns; one of a third of the weight at every third.
    for turn in 1_u64.. {
        for (_, turns) in labelled.iter_mut().filter(|(_, turns)| turns.weight > 0) {
            if turn * turns.weight < turns.due {
                continue;
            }
            turns.due += heaviest;
            loop {
                let entry = (turns.offset + turns.skip * turns.tried) % SIZE;
                turns.tried += 1;
                if entries[entry] == u16::MAX {
                    entries[entry] = turns.place;
                    break;
                }
            }
            filled += 1;
            if filled == SIZE {
                return entries.into();
            }
        }
    }
    Box::default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(places: &[(String, u32)]) -> Arc<Table> {
        Table::of(places.iter().map(|(label, weight)| (&**label, *weight)), [].into_iter())
    }

    fn places(weights: &[u32]) -> Vec<(String, u32)> {
        weights.iter().enumerate().map(|(at, weight)| (format!("10.0.0.{at}:80"), *weight)).collect()
    }

    /// The label of each entry.
    fn labels<'p>(table: &Table, places: &'p [(String, u32)]) -> Vec<&'p str> {
        table.entries.iter().map(|place| &*places[usize::from(*place)].0).collect()
    }

    #[test]
    fn what_a_key_leads_to_is_the_same_in_all_versions() {
        let places = places(&[1, 1, 1, 2]);
        let table = table(&places);
        let first: Vec<usize> = (0..12).map(|hash| table.at(hash)).collect();
        assert_eq!(first, [3, 0, 2, 3, 1, 2, 3, 3, 0, 3, 1, 3]);
    }

    #[test]
    fn a_table_is_used_again_for_the_same_places() {
        let (some, others) = (places(&[1, 2]), places(&[2, 1]));
        let first = table(&some);
        let of = |places: &[(String, u32)]| {
            Table::of(places.iter().map(|(label, weight)| (&**label, *weight)), [&first].into_iter())
        };
        assert!(Arc::ptr_eq(&first, &of(&some)) && !Arc::ptr_eq(&first, &of(&others)));
    }

    #[test]
    fn there_may_be_no_place() {
        assert_eq!(table(&[]).at(7), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn shares_are_by_weight_and_whatever_the_order(weights in proptest::collection::vec(0_u32..20, 1..12)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let some = places(&weights);
            let of_some = table(&some);
            let total: u32 = weights.iter().sum();
            for (at, weight) in weights.iter().enumerate() {
                let count = of_some.entries.iter().filter(|place| usize::from(**place) == at).count();
                let want = SIZE as f64 * f64::from(*weight) / f64::from(total);
                prop_assert!((count as f64 - want).abs() <= SIZE as f64 / 100.0, "{count} of {want}");
            }
            let turned: Vec<_> = some.iter().rev().cloned().collect();
            prop_assert_eq!(labels(&of_some, &some), labels(&table(&turned), &turned));
        }

        #[test]
        fn few_keys_move_when_a_place_goes(count in 2_usize..20, gone in 0_usize..20) {
            let gone = gone % count;
            let before = places(&vec![1; count]);
            let mut after = before.clone();
            let (label, _) = after.remove(gone);
            let (old, new) = (table(&before), table(&after));
            let moved = labels(&old, &before).into_iter().zip(labels(&new, &after));
            // Keys of the place that is gone must move. Of the others some few do.
            let moved = moved.filter(|(old, new)| *old != label && old != new).count();
            prop_assert!(moved < SIZE / 10, "{moved} of {SIZE}");
        }
    }
}
