//! Durations as people write them: `250ms`, `1s`, `5m`, `1h`, `7d`, in serde's `with` form.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

/// The units, longest first, each with its milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration of a whole number and one unit, to the millisecond.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let bad =
        || format!("{text:?} is not a duration: write a whole number and ms, s, m, h or d, as in 250ms");
    let number: u64 = number.parse().map_err(|_| bad())?;
    let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    number.checked_mul(*unit_ms).map(Duration::from_millis).ok_or_else(bad)
}

/// The duration in the longest unit that loses nothing; below a millisecond is cut off.
pub fn format(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let (unit, unit_ms) =
        UNITS.iter().find(|(_, unit_ms)| ms >= *unit_ms && ms % unit_ms == 0).unwrap_or(&("ms", 1));
    format!("{}{unit}", ms / unit_ms)
}

/// For `#[serde(with = "model::duration")]`.
pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format(*duration))
}

/// For `#[serde(with = "model::duration")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
    parse(&text).map_err(serde::de::Error::custom)
}

/// For `#[serde(default, with = "model::duration::optional")]`.
pub mod optional {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    /// Writes it, if it is there.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, to),
            None => to.serialize_none(),
        }
    }

    /// Reads one that is there.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        super::deserialize(from).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["0ms", "1ms", "250ms", "1s", "90s", "5m", "1h", "36h", "7d"] {
            assert_eq!(parse(text).map(format), Ok(text.to_owned()));
        }
        assert_eq!(parse("60s").map(format), Ok("1m".to_owned()));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "1", "s", "-1s", "1.5s", "1 s", "1w", "99999999999999999999s", "999999999999999999d"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
