//! Numbers of bytes as people write them: `512B`, `64KiB`, `1MiB`, `2GiB`, or a bare number, in serde's `with` form.

use serde::{Deserializer, Serializer, de};

/// The units, largest first, each with its bytes (IEC 80000-13: powers of 1,024).
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A number of bytes, of a whole number and one unit.
pub fn parse(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let bad = || {
        format!("{text:?} is no number of bytes: write a whole number and B, KiB, MiB or GiB, as in 64KiB")
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    let (_, bytes) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    number.checked_mul(*bytes).ok_or_else(bad)
}

/// The number in the largest unit that loses nothing.
pub fn format(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes >= *unit && bytes.is_multiple_of(*unit);
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&("B", 1));
    format!("{}{name}", bytes / unit)
}

/// For `#[serde(with = "model::size")]`.
pub fn serialize<S: Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format(*bytes))
}

/// For `#[serde(with = "model::size")]`.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = u64;

        fn expecting(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            to.write_str("a number of bytes, as in 64KiB")
        }

        fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<u64, E> {
            Ok(bytes)
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<u64, E> {
            parse(text).map_err(E::custom)
        }
    }

    from.deserialize_any(Visitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["0B", "1B", "512B", "1KiB", "1025B", "64KiB", "1MiB", "3GiB"] {
            assert_eq!(parse(text).map(format), Ok(text.to_owned()));
        }
        assert_eq!(parse("1024KiB").map(format), Ok("1MiB".to_owned()));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "1",
            "KiB",
            "-1B",
            "1.5MiB",
            "1 MiB",
            "1MB",
            "1mib",
            "99999999999999999999B",
            "99999999999GiB",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_bare_number_is_bytes() {
        #[derive(serde::Deserialize)]
        struct Has {
            #[serde(with = "super")]
            size: u64,
        }
        let read = |text| serde_json::from_str::<Has>(text).map(|has| has.size);
        assert_eq!(read(r#"{"size": 17}"#).unwrap(), 17);
        assert_eq!(read(r#"{"size": "1KiB"}"#).unwrap(), 1024);
        assert!(read(r#"{"size": -1}"#).is_err());
    }
}
