//! What can go wrong with an attempt, as people name it.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What can go wrong with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// `connect`: no connection could be had, so no byte was sent.
    Connect,
    /// `reset`: the connection broke before the head of an answer.
    Reset,
    /// `timeout`: there was no head of an answer in time.
    Timeout,
    /// `gateway_error`: an answer of 502, 503 or 504.
    GatewayError,
    /// `5xx`: an answer of 500 to 599.
    ServerError,
    /// An answer of this status, 400 to 599: `429`.
    Status(u16),
}

impl Condition {
    const WORDS: [(&'static str, Self); 5] = [
        ("connect", Self::Connect),
        ("reset", Self::Reset),
        ("timeout", Self::Timeout),
        ("gateway_error", Self::GatewayError),
        ("5xx", Self::ServerError),
    ];

    /// Whether it names an answer of this status.
    pub fn is_status(self, status: u16) -> bool {
        match self {
            Self::Connect | Self::Reset | Self::Timeout => false,
            Self::GatewayError => (502..=504).contains(&status),
            Self::ServerError => (500..=599).contains(&status),
            Self::Status(named) => named == status,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let word = Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, condition)| *condition);
        word.or_else(|| Self::status(text.parse().ok()?))
    }

    fn status(status: u64) -> Option<Self> {
        u16::try_from(status).ok().filter(|status| (400..=599).contains(status)).map(Self::Status)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Status(status) = self {
            return status.fmt(f);
        }
        Self::WORDS.iter().find(|(_, known)| known == self).map_or(Ok(()), |(word, _)| f.write_str(word))
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Status(status) => to.serialize_u16(*status),
            _ => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;

        impl de::Visitor<'_> for Reader {
            type Value = Condition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("connect, reset, timeout, gateway_error, 5xx, or a status of 400 to 599")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Condition, E> {
                Condition::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Condition, E> {
                Condition::status(number)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
        }

        from.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_words_and_statuses() {
        let text = r#"["connect","reset","timeout","gateway_error","5xx",429]"#;
        let read: Vec<Condition> = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(serde_json::from_str::<Condition>(r#""503""#).unwrap(), Condition::Status(503));
        for bad in [r#""conect""#, "200", "600", r#""6xx""#, "true", "-1"] {
            assert!(serde_json::from_str::<Condition>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_status_is_named_by_itself_or_its_kind() {
        let named = |status| {
            [Condition::GatewayError, Condition::ServerError, Condition::Status(429), Condition::Reset]
                .map(|condition| condition.is_status(status))
        };
        assert_eq!(named(503), [true, true, false, false]);
        assert_eq!(named(500), [false, true, false, false]);
        assert_eq!(named(429), [false, false, true, false]);
    }
}
