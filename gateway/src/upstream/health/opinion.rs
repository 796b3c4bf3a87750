//! What is held of a target by checks: those made here, and what others say of theirs.
//!
//! Others are believed when they say that a target is well. That it is not, or is again where it was not, is found out by a check
//! made here, for which their word counts as all checks in a row but one: who is cut off from a target takes it from nobody else.

use std::time::Duration;

use model::upstream::Active;
use smallvec::SmallVec;

use crate::timer;

/// The most others whose word on a target is kept.
const WORDS_MAX: usize = 16;

/// What somebody has found of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word {
    /// Whose it is, by number; 0 is this one, while it shares with nobody.
    pub by: u64,
    /// Whether the target is well.
    pub is_well: bool,
    /// When it was found or heard, in milliseconds of the health checker's monotonic clock.
    pub at_ms: u64,
}

/// What the others say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Nothing that is fresh.
    Silent,
    /// That it is well.
    Well,
    /// One at least that it is not.
    Ill,
}

/// What is held of a target by checks.
#[derive(Debug, Default)]
pub(super) struct Opinion {
    /// Checks in a row that came out alike, and how.
    in_a_row: (bool, u32),
    words: SmallVec<[Word; 2]>,
}

/// For how long a word is good: so that one may get lost on its way.
pub(crate) fn fresh_ms(active: &Active) -> u64 {
    timer::millis(active.interval * 5 / 2 + active.timeout + Duration::from_millis(500))
}

impl Opinion {
    /// Forgets what others have said.
    pub(super) fn forget_others(&mut self) {
        self.words.clear();
    }

    /// What others say, as far as it is fresh.
    pub(super) fn words(&self, active: &Active, now_ms: u64) -> impl Iterator<Item = &Word> {
        let fresh_ms = fresh_ms(active);
        self.words.iter().filter(move |word| now_ms.saturating_sub(word.at_ms) <= fresh_ms)
    }

    /// What the others say together.
    pub(super) fn others(&self, active: &Active, now_ms: u64) -> Others {
        let mut said = Others::Silent;
        for word in self.words(active, now_ms) {
            if !word.is_well {
                return Others::Ill;
            }
            said = Others::Well;
        }
        said
    }

    /// Counts a check made here; says whether the target is unhealthy after it.
    pub(super) fn check(&mut self, active: &Active, unhealthy: bool, good: bool) -> bool {
        let count = match self.in_a_row {
            (before, count) if before == good => count.saturating_add(1),
            _ => 1,
        };
        self.in_a_row = (good, count);
        match good {
            true => unhealthy && count < active.healthy,
            false => unhealthy || count >= active.unhealthy,
        }
    }

    /// Hears what another says; says whether that is to be looked into at once, by a check made here.
    pub(super) fn hear(&mut self, active: &Active, unhealthy: bool, word: Word) -> bool {
        let fresh_ms = fresh_ms(active);
        let is_fresh = |known: &Word| word.at_ms.saturating_sub(known.at_ms) <= fresh_ms;
        let before = match self.words.iter_mut().find(|known| known.by == word.by) {
            Some(known) => {
                let before = is_fresh(known).then_some(known.is_well);
                *known = word;
                before
            }
            None => {
                self.words.retain(|known| is_fresh(known));
                if self.words.len() >= WORDS_MAX {
                    return false;
                }
                self.words.push(word);
                None
            }
        };
        // Once for each time that another changes its mind: else the first failed check here would do for as long as they differ.
        if word.is_well != unhealthy || before == Some(word.is_well) {
            return false;
        }
        let enough = if word.is_well { active.healthy } else { active.unhealthy };
        let known = Some(self.in_a_row).filter(|(good, _)| *good == word.is_well);
        let count = known.map_or(0, |(_, count)| count).max(enough.saturating_sub(1));
        self.in_a_row = (word.is_well, count);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn active() -> Active {
        Active { healthy: 2, unhealthy: 3, ..Active::default() }
    }

    fn word(by: u64, is_well: bool, at_ms: u64) -> Word {
        Word { by, is_well, at_ms }
    }

    #[test]
    fn so_many_in_a_row_decide() {
        let (active, mut opinion) = (active(), Opinion::default());
        let mut unhealthy = false;
        let mut after = |good: bool| {
            unhealthy = opinion.check(&active, unhealthy, good);
            unhealthy
        };
        let results = [false, false, true, false, false, false, true, false, true, true, true];
        let wanted = [false, false, false, false, false, true, true, true, true, false, false];
        assert_eq!(results.map(&mut after), wanted);
    }

    #[test]
    fn what_another_finds_takes_one_check_to_be_believed() {
        let (active, mut opinion) = (active(), Opinion::default());
        assert!(!opinion.hear(&active, false, word(2, true, 1)), "nothing new");
        assert!(opinion.hear(&active, false, word(2, false, 2)));
        assert!(opinion.check(&active, false, false), "one that fails here is enough");
        assert!(opinion.hear(&active, true, word(2, true, 3)));
        assert!(!opinion.check(&active, true, true), "and one that is good");
    }

    #[test]
    fn who_alone_can_t_reach_a_target_takes_it_from_nobody() {
        let (active, mut opinion) = (active(), Opinion::default());
        assert!(opinion.hear(&active, false, word(2, false, 1)));
        assert!(!opinion.check(&active, false, true), "it is well from here");
        // The other says so again and again: that is not heard anew, and here it takes as many failures as ever.
        assert!(!opinion.hear(&active, false, word(2, false, 2)));
        let after = [false, false].map(|good| opinion.check(&active, false, good));
        assert_eq!(after, [false, false]);
        assert_eq!(opinion.others(&active, 2), Others::Ill);
        assert!(opinion.check(&active, false, false));
    }

    #[test]
    fn one_who_says_it_again_after_a_silence_is_heard_anew() {
        let (active, mut opinion) = (active(), Opinion::default());
        assert!(opinion.hear(&active, false, word(2, false, 1)));
        assert!(opinion.hear(&active, false, word(2, false, 2 + fresh_ms(&active))));
    }

    #[test]
    fn words_are_good_for_a_while_and_one_bad_one_outweighs() {
        let (active, mut opinion) = (active(), Opinion::default());
        assert_eq!(opinion.others(&active, 1), Others::Silent);
        opinion.hear(&active, false, word(2, true, 100));
        opinion.hear(&active, false, word(3, false, 200));
        assert_eq!(opinion.others(&active, 200), Others::Ill);
        opinion.hear(&active, false, word(3, true, 300));
        assert_eq!(opinion.others(&active, 300), Others::Well);
        assert_eq!(opinion.others(&active, 300 + fresh_ms(&active)), Others::Well);
        assert_eq!(opinion.others(&active, 301 + fresh_ms(&active)), Others::Silent);
    }

    #[test]
    fn the_words_of_many_are_bounded_and_stale_ones_make_room() {
        let (active, mut opinion) = (active(), Opinion::default());
        for by in 0..100 {
            opinion.hear(&active, false, word(by, true, 1));
        }
        assert_eq!(opinion.words.len(), WORDS_MAX);
        opinion.hear(&active, false, word(100, true, 2 + fresh_ms(&active)));
        assert_eq!(opinion.words.len(), 1);
    }
}
