//! What a bad network does to what it carries.

use std::{ops::Range, time::Duration};

use crate::dice::Dice;

/// When TCP sends again what was not acknowledged, at first; each time after, it waits twice as long (RFC 6298,
/// with Linux' least time).
const RESEND_AFTER: Duration = Duration::from_millis(200);
/// TCP waits no longer than this before it sends again.
const RESEND_AFTER_MAX: Duration = Duration::from_secs(120);

/// How packets fare on a way. By default nothing happens to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weather {
    /// How many packets of a hundred are lost.
    pub loss_percent: u64,
    /// How long each takes, in milliseconds; no time if it is empty.
    pub delay_ms: Range<u64>,
}

impl Weather {
    /// How long one packet takes.
    fn delay(&self, dice: &mut Dice) -> Duration {
        if self.delay_ms.is_empty() { Duration::ZERO } else { dice.ms(self.delay_ms.clone()) }
    }

    /// How long a datagram takes; none if it is lost.
    pub(super) fn datagram(&self, dice: &mut Dice) -> Option<Duration> {
        let delay = self.delay(dice);
        (!dice.percent(self.loss_percent)).then_some(delay)
    }

    /// How long a part of a TCP stream takes: it is sent until it arrives.
    pub(super) fn part(&self, dice: &mut Dice) -> Duration {
        let (mut delay, mut resend) = (self.delay(dice), RESEND_AFTER);
        while resend <= RESEND_AFTER_MAX && dice.percent(self.loss_percent) {
            delay += resend;
            resend *= 2;
        }
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fair_weather_neither_loses_nor_delays() {
        let (weather, mut dice) = (Weather::default(), Dice::new(1, 0));
        assert_eq!(weather.datagram(&mut dice), Some(Duration::ZERO));
        assert_eq!(weather.part(&mut dice), Duration::ZERO);
    }

    #[test]
    fn datagrams_are_lost_as_often_as_said_and_the_others_delayed_within_the_range() {
        let (weather, mut dice) = (Weather { loss_percent: 30, delay_ms: 50..150 }, Dice::new(1, 0));
        let arrived: Vec<Duration> = (0..10_000).filter_map(|_| weather.datagram(&mut dice)).collect();
        assert!((6_800..7_200).contains(&arrived.len()), "{} of 10,000", arrived.len());
        let range = Duration::from_millis(50)..Duration::from_millis(150);
        assert!(arrived.iter().all(|delay| range.contains(delay)));
    }

    #[test]
    fn a_lost_part_of_a_stream_is_sent_again_after_twice_the_time() {
        let (weather, mut dice) = (Weather { loss_percent: 30, delay_ms: 0..0 }, Dice::new(1, 0));
        let delays: Vec<u128> = (0..10_000).map(|_| weather.part(&mut dice).as_millis()).collect();
        for (delay, most, least) in [(0, 7_200, 6_800), (200, 2_250, 1_950), (600, 730, 530)] {
            let times = delays.iter().filter(|found| **found == delay).count();
            assert!((least..most).contains(&times), "{delay} ms: {times} of 10,000");
        }
    }

    #[test]
    fn a_part_that_is_always_lost_arrives_in_the_end() {
        let (weather, mut dice) = (Weather { loss_percent: 100, delay_ms: 0..0 }, Dice::new(1, 0));
        assert!(weather.part(&mut dice) > RESEND_AFTER_MAX / 2);
    }
}
