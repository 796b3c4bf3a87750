//! Periods of a calendar: days, weeks and months as they are in a time zone.

use std::sync::Arc;

use arc_swap::ArcSwap;
use jiff::{Timestamp, ToSpan, Zoned, tz::TimeZone};
use limits::Rule;
use serde::Deserialize;

const HOUR_S: i64 = 3_600;

/// How long a period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Length {
    Day,
    /// From Monday on (ISO 8601).
    Week,
    Month,
}

/// So many requests in each period.
#[derive(Debug)]
pub(super) struct Calendar {
    limit: u32,
    length: Length,
    zone: TimeZone,
    /// The period that was the present one when it was last looked at.
    present: ArcSwap<Period>,
}

/// A period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period {
    /// Microseconds since the Unix epoch.
    pub(super) begins_us: u64,
    /// Microseconds since the Unix epoch at which the next one begins.
    pub(super) ends_us: u64,
    pub(super) rule: Rule,
}

impl Calendar {
    /// None if the limit is none.
    pub(super) fn new(limit: u32, length: Length, zone: TimeZone) -> Option<Self> {
        // Of no time: the first look finds the present one.
        let never = Period { begins_us: 0, ends_us: 0, rule: Rule::of_period(limit, 1)? };
        Some(Self { limit, length, zone, present: ArcSwap::from(Arc::new(never)) })
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// What tells its keys from those of windows, and of periods of another length or in another time zone.
    pub(super) fn kind(&self) -> u32 {
        let name = self.zone.iana_name().unwrap_or_default().bytes();
        // Few are used together, so that this tells them apart as well as anything.
        let zone = name.fold(0_u32, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(byte.into()));
        1 << 31 | self.order() << 28 | zone >> 4
    }

    /// The longer ones have more.
    pub(super) fn order(&self) -> u32 {
        match self.length {
            Length::Day => 1,
            Length::Week => 2,
            Length::Month => 3,
        }
    }

    /// The period at this time.
    pub(super) fn at(&self, now_us: u64) -> Period {
        let present = **self.present.load();
        if (present.begins_us..present.ends_us).contains(&now_us) {
            return present;
        }
        // A time that no calendar knows is in the last one that was looked at.
        let found = self.find(now_us).unwrap_or(present);
        self.present.store(Arc::new(found));
        found
    }

    fn find(&self, now_us: u64) -> Option<Period> {
        let now = Timestamp::from_microsecond(now_us.try_into().ok()?).ok()?.to_zoned(self.zone.clone());
        let today = now.start_of_day().ok()?;
        let begins = match self.length {
            Length::Day => today,
            Length::Week => {
                today.checked_sub(i64::from(today.weekday().to_monday_zero_offset()).days()).ok()?
            }
            Length::Month => today.first_of_month().ok()?,
        };
        let length = match self.length {
            Length::Day => 1.day(),
            Length::Week => 1.week(),
            Length::Month => 1.month(),
        };
        let ends = begins.checked_add(length).ok()?;
        // Where clocks go forward at midnight, a day begins later.
        let (begins, ends) = (begins.start_of_day().ok()?, ends.start_of_day().ok()?);
        let us = |at: &Zoned| u64::try_from(at.timestamp().as_microsecond()).ok();
        // Periods are longer than an hour, so that each has a number of its own.
        let number = u32::try_from(begins.timestamp().as_second().div_euclid(HOUR_S)).ok()?;
        Some(Period {
            begins_us: us(&begins)?,
            ends_us: us(&ends)?,
            rule: Rule::of_period(self.limit, number)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_microsecond()).unwrap()
    }

    fn period(length: Length, zone: &str, at: &str) -> (String, String) {
        let calendar = Calendar::new(5, length, TimeZone::get(zone).unwrap()).unwrap();
        let period = calendar.at(us(at));
        assert_eq!(calendar.at(period.begins_us), period);
        assert_eq!(calendar.at(period.ends_us - 1), period);
        let next = calendar.at(period.ends_us);
        assert!(next.begins_us == period.ends_us && next.rule.period() > period.rule.period());
        let text = |us: u64| Timestamp::from_microsecond(us.try_into().unwrap()).unwrap().to_string();
        (text(period.begins_us), text(period.ends_us))
    }

    #[test]
    fn periods_are_those_of_the_calendar_in_the_zone() {
        let is = |length, zone, at, begins: &str, ends: &str| {
            assert_eq!(period(length, zone, at), (begins.to_owned(), ends.to_owned()), "{zone} {at}");
        };
        is(Length::Day, "UTC", "2026-11-28T20:00:00Z", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z");
        // The day on which clocks go back has 25 hours.
        is(
            Length::Day,
            "Europe/Berlin",
            "2026-10-25T12:00:00Z",
            "2026-10-24T22:00:00Z",
            "2026-10-25T23:00:00Z",
        );
        is(
            Length::Month,
            "Asia/Kolkata",
            "2026-02-28T20:00:00Z",
            "2026-02-28T18:30:00Z",
            "2026-03-31T18:30:00Z",
        );
        is(Length::Month, "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        is(Length::Week, "UTC", "2026-11-29T20:00:00Z", "2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z");
        // A midnight that there is not: clocks go from 24:00 to 01:00.
        is(
            Length::Day,
            "America/Asuncion",
            "2023-10-01T12:00:00Z",
            "2023-10-01T04:00:00Z",
            "2023-10-02T03:00:00Z",
        );
    }
}
