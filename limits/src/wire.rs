//! Records as the bytes of a datagram.
//!
//! A byte says the version, 1. Then follow records, of 24 bytes each; numbers are big-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | the key's digest, not 0 |
//! | 4 | the window's number |
//! | 4 | admitted in it |
//! | 4 | admitted in the window before |
//! | 2 | rate of admission a second, as the upper half of an f32 (bfloat16) |
//! | 2 | rate of asking, likewise |

use std::num::NonZeroU64;

use crate::Record;

/// Records that a datagram has at the most: with what sealing and UDP add it fits into 1,280 bytes, which every IPv6 path carries
/// whole (RFC 8200, section 5).
pub const RECORDS_MAX: usize = 48;
const VERSION: u8 = 1;
const RECORD_BYTES: usize = 24;

/// Why bytes are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They are of a version that this node does not know, or there are none.
    Version,
    /// They end within a record, or have more than there may be.
    Length,
    /// A record has no key.
    Key,
}

/// These records as bytes; what is more than [`RECORDS_MAX`] is left out.
pub fn encode(records: &[Record]) -> Vec<u8> {
    let records = &records[..records.len().min(RECORDS_MAX)];
    let mut bytes = Vec::with_capacity(1 + records.len() * RECORD_BYTES);
    bytes.push(VERSION);
    for record in records {
        bytes.extend(record.key.get().to_be_bytes());
        for number in [record.window, record.current, record.previous] {
            bytes.extend(number.to_be_bytes());
        }
        for rate in [record.admitted_rate, record.asked_rate] {
            // The nearest that half the bits can say.
            let bits = rate.to_bits().saturating_add(1 << 15);
            bytes.extend(&bits.to_be_bytes()[..2]);
        }
    }
    bytes
}

/// The records that these bytes are.
///
/// # Errors
/// What is wrong with them; then none of them is to be heeded.
pub fn decode(bytes: &[u8]) -> Result<Vec<Record>, Malformed> {
    let (version, rest) = bytes.split_first().ok_or(Malformed::Version)?;
    if *version != VERSION {
        return Err(Malformed::Version);
    }
    let (records, left) = rest.as_chunks::<RECORD_BYTES>();
    if !left.is_empty() || records.len() > RECORDS_MAX {
        return Err(Malformed::Length);
    }
    records.iter().map(record).collect()
}

fn record(bytes: &[u8; RECORD_BYTES]) -> Result<Record, Malformed> {
    let [k0, k1, k2, k3, k4, k5, k6, k7, rest @ ..] = *bytes;
    let key = NonZeroU64::new(u64::from_be_bytes([k0, k1, k2, k3, k4, k5, k6, k7])).ok_or(Malformed::Key)?;
    let number = |at: usize| u32::from_be_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
    let rate = |at: usize| f32::from_be_bytes([rest[at], rest[at + 1], 0, 0]);
    Ok(Record {
        key,
        window: number(0),
        current: number(4),
        previous: number(8),
        admitted_rate: rate(12),
        asked_rate: rate(14),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let rate = || 0.0_f32..1e8;
        (1_u64.., any::<u32>(), any::<u32>(), any::<u32>(), rate(), rate()).prop_map(
            |(key, window, current, previous, admitted_rate, asked_rate)| Record {
                key: NonZeroU64::new(key).unwrap(),
                window,
                current,
                previous,
                admitted_rate,
                asked_rate,
            },
        )
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(records in prop::collection::vec(record(), 0..=RECORDS_MAX)) {
            let bytes = encode(&records);
            let read = decode(&bytes).unwrap();
            prop_assert_eq!(read.len(), records.len());
            for (read, written) in read.iter().zip(&records) {
                let counts = |record: &Record| (record.key, record.window, record.current, record.previous);
                prop_assert_eq!(counts(read), counts(written));
                let close = |read: f32, written: f32| (read - written).abs() <= written / 256.0;
                prop_assert!(close(read.admitted_rate, written.admitted_rate), "{read:?} {written:?}");
                prop_assert!(close(read.asked_rate, written.asked_rate), "{read:?} {written:?}");
            }
            // What was read is written as the same bytes.
            prop_assert_eq!(encode(&read), bytes);
        }

        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..1_300)) {
            if let Ok(records) = decode(&bytes) {
                prop_assert_eq!(bytes.len(), 1 + records.len() * RECORD_BYTES);
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let record = Record {
            key: NonZeroU64::MIN,
            window: 1,
            current: 2,
            previous: 3,
            admitted_rate: 4.0,
            asked_rate: 5.0,
        };
        let bytes = encode(&[record]);
        assert_eq!(decode(&bytes), Ok(vec![record]));
        assert_eq!(decode(&[]), Err(Malformed::Version));
        assert_eq!(decode(&[2]), Err(Malformed::Version));
        assert_eq!(decode(&bytes[..24]), Err(Malformed::Length));
        assert_eq!(decode(&[&bytes[..1], &[0; 24]].concat()), Err(Malformed::Key));
        assert_eq!(decode(&[&[1][..], &[7; 49 * 24]].concat()), Err(Malformed::Length));
        assert_eq!(encode(&[record; 60]).len(), 1 + RECORDS_MAX * RECORD_BYTES);
    }
}
