//! What things are called: nodes by number, objects by name, configs by revision.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// The longest [`Name`], in bytes: that of a DNS name (RFC 1035, section 2.3.4).
pub const NAME_BYTES_MAX: usize = 253;

/// A node's number: the log index of the entry that admitted it, so it is never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a [`crate::Config`]: 0 is the empty one, and each [`crate::Change`] that changed something adds 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// The revision after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an object is called, and by what others refer to it: 1 to [`NAME_BYTES_MAX`] of `a-z`, `0-9`, `-`, `_` and
/// `.`, beginning and ending with a letter or digit. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a name: 1 to 253 of a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends")]
pub struct BadName(pub String);

impl Name {
    /// The name `text`, or why it can't be one.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        let bytes = text.as_bytes();
        let good = bytes.len() <= NAME_BYTES_MAX
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|&b| inner(b));
        if good { Ok(Self(text.into())) } else { Err(BadName(text.chars().take(80).collect())) }
    }

    /// The name that no other is before: each begins with a letter or digit.
    pub(crate) fn least() -> Self {
        Self("0".into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        Self::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_and_plain() {
        for good in ["a", "orders", "a-b_c.d", "0x", &"a".repeat(253)] {
            assert_eq!(Name::new(good).map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "A", "a b", "a/b", "ä", ".", &"a".repeat(254)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
    }
}
