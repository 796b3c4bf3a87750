//! A key: a consumer's API credential, of which only a keyed digest is ever stored.

use serde::{Deserialize, Serialize};

use crate::Name;

/// What every key begins with.
pub const PREFIX: &str = "gw_live_";

/// A key as it is stored. Its name is its public id; the credential itself is shown once and never kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Whose it is.
    pub consumer: Name,
    /// HMAC-SHA256(pepper, credential), 64 lower-case hexadecimal digits.
    pub digest: String,
    /// The credential's last four characters, to tell keys apart.
    pub hint: String,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// Seconds since the Unix epoch at which it was issued.
    pub issued_at_s: u64,
    /// Seconds since the Unix epoch from which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_s: Option<u64>,
}

/// Digits of a credential between [`PREFIX`] and its checksum: 178 bits of chance.
const RANDOM_DIGITS: usize = 30;

/// Digits of its checksum.
const CHECK_DIGITS: usize = 6;

/// The digits, in the order of their values.
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Random bytes that [`generate`] takes: of 64, fewer than 30 fall in base62's range once in 10^16 times.
pub const RANDOM_BYTES: usize = 64;

/// The credential made of `random`, which must come from a cryptographic source; none if it holds too few bytes that
/// can be used, which calls for other ones. Bytes from 248 up are skipped, so that every digit is as likely.
pub fn generate(random: &[u8]) -> Option<String> {
    let mut credential = String::with_capacity(PREFIX.len() + RANDOM_DIGITS + CHECK_DIGITS);
    credential.push_str(PREFIX);
    let digits = random.iter().filter(|byte| **byte < 248).map(|byte| BASE62[usize::from(byte % 62)]);
    credential.extend(digits.take(RANDOM_DIGITS).map(char::from));
    if credential.len() < PREFIX.len() + RANDOM_DIGITS {
        return None;
    }
    let check = checksum(credential.as_bytes());
    credential.extend(check.map(char::from));
    Some(credential)
}

/// Whether `credential` has the form of a key and its checksum holds: what a typing mistake or a guess fails, before
/// anything is looked up.
pub fn well_formed(credential: &str) -> bool {
    let Some((body, check)) = credential.split_at_checked(PREFIX.len() + RANDOM_DIGITS) else { return false };
    body.strip_prefix(PREFIX).is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        && check.as_bytes() == checksum(body.as_bytes())
}

/// The CRC-32 (IEEE) of `body` in base62, the highest digit first.
fn checksum(body: &[u8]) -> [u8; CHECK_DIGITS] {
    let mut crc = crc32fast::hash(body);
    let mut digits = [b'0'; CHECK_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(crc % 62) as usize];
        crc /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_random_bytes_and_their_checksum() {
        let zeroes = generate(&[0; 30]).unwrap();
        assert_eq!(&zeroes[..38], "gw_live_000000000000000000000000000000");
        assert_eq!(zeroes.len(), 44);
        let counted: Vec<u8> = (0..64).collect();
        let key = generate(&counted).unwrap();
        assert!(key.starts_with("gw_live_0123456789ABCDEFGHIJKLMNOPQRST"), "{key}");
        assert!(well_formed(&zeroes) && well_formed(&key));
    }

    #[test]
    fn bytes_that_would_favour_a_digit_are_skipped() {
        assert_eq!(generate(&[255; 64]), None);
        assert_eq!(generate(&[0; 29]), None);
        let mixed: Vec<u8> = [250, 0].repeat(30);
        assert_eq!(generate(&mixed), generate(&[0; 30]));
    }

    #[test]
    fn any_changed_character_is_noticed() {
        let key = generate(&(10..60).collect::<Vec<u8>>()).unwrap();
        for place in 0..key.len() {
            let mut other = key.clone().into_bytes();
            other[place] = if other[place] == b'x' { b'y' } else { b'x' };
            assert!(!well_formed(&String::from_utf8(other).unwrap()), "{place}");
        }
        for bad in ["", "gw_live_", "gw_live_é", &key[..43], &format!("{key}0"), &key.to_uppercase()] {
            assert!(!well_formed(bad), "{bad}");
        }
    }
}
