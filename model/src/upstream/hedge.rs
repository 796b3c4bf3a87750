//! When a request that has no answer yet is sent to one more target.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// When a request that has no answer yet is sent to one more target, whichever answers first being passed on (J. Dean, L. A. Barroso, "The
/// Tail at Scale", Communications of the ACM 56, 2013). One that is sent so is among the attempts, and within the budget, of
/// [`super::Retry`]; and only what that lets be sent twice is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hedge {
    /// After what time without the head of an answer.
    pub after: After,
    /// The least time where `after` is a percentile: 1ms to 1m; 10ms unless said.
    #[serde(default = "Hedge::floor_default", with = "crate::duration")]
    pub floor: Duration,
    /// To how many more targets beside an attempt's, each after as long again: 1 (unless said) to 4.
    #[serde(default = "Hedge::max_default")]
    pub max: u32,
}

impl Hedge {
    fn floor_default() -> Duration {
        Duration::from_millis(10)
    }

    fn max_default() -> u32 {
        1
    }
}

/// A time without an answer after which one would be had elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// `50ms`: so long.
    Time(Duration),
    /// `p95`: as long as so many of a hundred of the upstream's answers take at most, of late.
    Percentile(u8),
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(time) => f.write_str(&crate::duration::format(*time)),
            Self::Percentile(percent) => write!(f, "p{percent}"),
        }
    }
}

impl Serialize for After {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        let percent = text.strip_prefix('p').and_then(|percent| percent.parse().ok());
        let after =
            percent.map(Self::Percentile).or_else(|| crate::duration::parse(&text).ok().map(Self::Time));
        let bad = || format!("{text:?} is neither a time, as 50ms, nor a percentile, as p95");
        after.ok_or_else(|| de::Error::custom(bad()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_after_a_time_or_a_percentile() {
        for (text, want) in [("50ms", After::Time(Duration::from_millis(50))), ("p95", After::Percentile(95))]
        {
            let read: Hedge = serde_json::from_str(&format!(r#"{{"after":"{text}"}}"#)).unwrap();
            assert_eq!(read, Hedge { after: want, floor: Duration::from_millis(10), max: 1 });
            let written = serde_json::to_string(&read).unwrap();
            assert_eq!(written, format!(r#"{{"after":"{text}","floor":"10ms","max":1}}"#));
        }
        for bad in [r#""95""#, r#""p""#, r#""p-1""#, r#""p99.9""#, r#""p256""#, "95", r#""""#, "null"] {
            assert!(serde_json::from_str::<After>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Hedge>("{}").is_err());
    }
}
