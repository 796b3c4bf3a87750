//! Choices that look random and come from a seed, so that a run can be had again.

use std::{ops::Range, time::Duration};

/// A source of choices. It is SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
}

impl Dice {
    /// The choices of this seed. Each `stream` of one seed makes choices of its own.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self { state: seed };
        dice.state = dice.next() ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03);
        dice
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below this one, which is not 0; each about as often.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Whether it comes about that has this chance, in percent.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of these, of which there is one at least.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[usize::try_from(self.below(of.len() as u64)).unwrap_or_default()]
    }

    /// A time of so many milliseconds; the range is not empty.
    pub fn ms(&mut self, range: Range<u64>) -> Duration {
        Duration::from_millis(range.start + self.below(range.end - range.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_choices_again_and_each_stream_others() {
        let choices = |seed, stream| {
            let mut dice = Dice::new(seed, stream);
            (0..100).map(|_| dice.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(choices(7, 1), choices(7, 1));
        assert_ne!(choices(7, 1), choices(7, 2));
        assert_ne!(choices(7, 1), choices(8, 1));
    }

    #[test]
    fn a_chance_comes_about_as_often_as_it_says() {
        let mut dice = Dice::new(1, 0);
        let times = (0..10_000).filter(|_| dice.percent(30)).count();
        assert!((2_800..3_200).contains(&times), "{times} of 10,000");
    }
}
