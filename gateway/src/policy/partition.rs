//! Who or what requests are counted for.

use std::{net::IpAddr, num::NonZeroU64};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderName;
use model::Name;
use serde::{Deserialize, Deserializer};
use siphasher::sip128::SipHasher13;
use smallvec::SmallVec;

use crate::{exchange::Exchange, violations::Violations};

/// The most parts.
const PARTS_MAX: usize = 8;
/// Header names of which the values are not for people to see.
const SECRET_WORDS: [&str; 14] = [
    "auth", "bearer", "cookie", "cred", "jwt", "key", "pass", "pin", "pwd", "secret", "session", "sid",
    "sign", "token",
];
/// Kinds of what is gathered for a digest: networks by their bits, which are less than 128 but for those of one address.
const NETWORK: u8 = 128;
const NETWORK_OF_ONE: u8 = 5;
/// The most characters of a header's value that are shown.
const SHOWN_MAX: usize = 64;
/// Bytes of a partition's number that clients are shown.
const SHOWN_BYTES: usize = 6;

/// One thing of a request that tells for whom it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Consumer,
    Group,
    Key,
    /// The client's network, of so many bits for IPv4 and for IPv6.
    Network {
        v4: u8,
        v6: u8,
    },
    Route,
    Header(HeaderName),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Word {
    Consumer,
    Group,
    Key,
    Address,
    Route,
    Header(String),
    Network {
        #[serde(default = "v4_default")]
        v4: u8,
        #[serde(default = "v6_default")]
        v6: u8,
    },
}

fn v4_default() -> u8 {
    32
}

fn v6_default() -> u8 {
    64
}

/// For whom is counted, as a config has it: one of the words, or a list of them.
#[derive(Default)]
pub(super) struct By(Vec<Word>);

impl<'de> Deserialize<'de> for By {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let words = match serde_json::Value::deserialize(from)? {
            serde_json::Value::Array(words) => words,
            one => vec![one],
        };
        let words = words.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
        words.map(Self).map_err(serde::de::Error::custom)
    }
}

impl By {
    /// The parts, or what is wrong with them, at this path.
    pub(super) fn compile(self, path: &str, violations: &mut Violations) -> Box<[Part]> {
        let mut parts = Vec::with_capacity(self.0.len());
        if self.0.len() > PARTS_MAX {
            violations.add(path.to_owned(), format!("has more than {PARTS_MAX}"));
        }
        for one in self.0.into_iter().take(PARTS_MAX) {
            let part = match one {
                Word::Consumer => Part::Consumer,
                Word::Group => Part::Group,
                Word::Key => Part::Key,
                Word::Route => Part::Route,
                Word::Address => Part::Network { v4: v4_default(), v6: v6_default() },
                Word::Network { v4, v6 } if v4 <= 32 && v6 <= 128 => Part::Network { v4, v6 },
                Word::Network { .. } => {
                    violations.add(
                        path.to_owned(),
                        "a network has 32 bits of IPv4 and 128 of IPv6 at the most".to_owned(),
                    );
                    continue;
                }
                Word::Header(name) => match HeaderName::from_bytes(name.as_bytes()) {
                    Ok(name) => Part::Header(name),
                    Err(_) => {
                        violations.add(path.to_owned(), format!("{name:?} is no header name"));
                        continue;
                    }
                },
            };
            if parts.contains(&part) {
                violations.add(path.to_owned(), "has the same twice".to_owned());
            }
            parts.push(part);
        }
        parts.into()
    }
}

/// What a part is for a request.
enum Value<'e> {
    Text(&'static str, &'e [u8]),
    Header(&'e HeaderName),
    Network(IpAddr, u8),
}

impl Part {
    /// What it is for this request. Where the request has none, the client's address stands for it: who leaves a header out, or
    /// calls without a key, is counted for himself.
    fn of<'e>(&'e self, exchange: &'e Exchange<'_>) -> Value<'e> {
        let name = |what, name: Option<&'e Name>| Some(Value::Text(what, name?.as_str().as_bytes()));
        let found = match self {
            Self::Consumer => name("consumer", exchange.consumer.as_ref()),
            Self::Group => name("group", exchange.groups.first()),
            Self::Key => name("key", exchange.key.as_ref()),
            Self::Route => name("route", Some(&exchange.route.name)),
            Self::Header(name) => exchange.headers.contains_key(name).then_some(Value::Header(name)),
            Self::Network { v4, v6 } => Some(network(exchange.client, *v4, *v6)),
        };
        found.unwrap_or_else(|| network(exchange.client, 32, 64))
    }
}

fn network(address: IpAddr, v4: u8, v6: u8) -> Value<'static> {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let bits = u32::from(address) & u32::MAX.checked_shl(32 - u32::from(v4)).unwrap_or(0);
            Value::Network(IpAddr::V4(bits.into()), v4)
        }
        IpAddr::V6(address) => {
            let bits = u128::from(address) & u128::MAX.checked_shl(128 - u32::from(v6)).unwrap_or(0);
            Value::Network(IpAddr::V6(bits.into()), v6)
        }
    }
}

/// For whom a request is counted under a policy, as a digest under the cluster's secret, so that nobody can choose to share another's
/// counter (SipHash-1-3: J.-P. Aumasson and D. J. Bernstein, "SipHash: a fast short-input PRF", 2012).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Partition {
    counted: u64,
    shown: u64,
}

impl Partition {
    /// Under a policy, or a group's form of it that has counters of its own.
    pub(super) fn of(policy: &Name, group: Option<&Name>, by: &[Part], exchange: &Exchange<'_>) -> Self {
        let (one, other) = exchange.plan.rate_secret;
        // Gathered first, since a hasher takes one piece sooner than many; each has its kind and length before it, so that no two
        // partitions are the same bytes.
        let mut bytes = SmallVec::<[u8; 128]>::new();
        let mut text = |kind: u8, text: &[u8]| {
            bytes.push(kind);
            bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            bytes.extend_from_slice(text);
        };
        text(0, policy.as_str().as_bytes());
        if let Some(group) = group {
            text(4, group.as_str().as_bytes());
        }
        for part in by {
            match part.of(exchange) {
                Value::Text(_, bytes) => text(1, bytes),
                Value::Header(name) => {
                    exchange.headers.get_all(name).iter().for_each(|value| text(2, value.as_bytes()));
                    text(3, &[]);
                }
                Value::Network(IpAddr::V4(address), bits) => text(NETWORK | bits, &address.octets()),
                Value::Network(IpAddr::V6(address), bits) => {
                    text(if bits == 128 { NETWORK_OF_ONE } else { NETWORK | bits }, &address.octets())
                }
            }
        }
        let digest = SipHasher13::new_with_keys(one, other).hash(&bytes);
        Self { counted: digest.h1, shown: digest.h2 }
    }

    /// The counter's key of this kind: a window's length in milliseconds, that of a calendar's periods, or 0 for what is in flight. The limit
    /// is not in it: so that can change, and what was counted stays.
    pub(super) fn key(&self, kind: u32) -> NonZeroU64 {
        let mut bits = self.counted ^ u64::from(kind).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        NonZeroU64::new(bits ^ (bits >> 31)).unwrap_or(NonZeroU64::MIN)
    }

    /// What clients are shown of it, as a number.
    pub(super) fn number(&self) -> u64 {
        self.shown
    }

    /// What clients are shown of it, in base64: enough to tell partitions apart, and nothing of the counter's key.
    pub(super) fn shown(&self) -> Shown {
        let mut text = [b'A'; Shown::BYTES];
        // There is just so much room.
        let _ = STANDARD.encode_slice(&self.shown.to_be_bytes()[..SHOWN_BYTES], &mut text);
        Shown(text)
    }
}

/// The group by whose form of a policy requests are counted apart from those of others. Where each caller is counted for himself there is none:
/// so his count stays when he gets into another group. Elsewhere one counter would have two limits.
pub(super) fn own_counters(by: &[Part], group: Option<&Name>) -> Option<Name> {
    let is_himself = by.iter().any(|part| matches!(part, Part::Consumer | Part::Key));
    group.filter(|_| !is_himself).cloned()
}

/// A partition as clients are shown it.
pub(super) struct Shown([u8; Self::BYTES]);

impl Shown {
    pub(super) const BYTES: usize = SHOWN_BYTES / 3 * 4;

    pub(super) fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

/// For whom the request is counted, as `consumer acme, route orders`.
pub(super) fn in_words(by: &[Part], exchange: &Exchange<'_>) -> String {
    let mut words = String::new();
    for part in by {
        if !words.is_empty() {
            words.push_str(", ");
        }
        match part.of(exchange) {
            Value::Text(what, bytes) => {
                words.push_str(what);
                words.push(' ');
                words.push_str(std::str::from_utf8(bytes).unwrap_or_default());
            }
            Value::Network(address, bits) => {
                let is_whole = bits == if address.is_ipv4() { 32 } else { 128 };
                words.push_str(&if is_whole {
                    format!("address {address}")
                } else {
                    format!("network {address}/{bits}")
                });
            }
            Value::Header(name) => {
                words.push_str(name.as_str());
                words.push(' ');
                if SECRET_WORDS.iter().any(|word| name.as_str().contains(word)) {
                    words.push_str("(hidden)");
                    continue;
                }
                let value = exchange.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
                let shown = value.iter().flat_map(|value| value.chars()).take(SHOWN_MAX);
                words.extend(shown.map(|one| if one.is_control() { '\u{fffd}' } else { one }));
            }
        }
    }
    words
}
