//! Records as the bytes of a datagram.
//!
//! A byte says what they are. Numbers are big-endian. After 1 follow records of counts, of 24 bytes each:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | the key's digest, not 0 |
//! | 4 | the window's number |
//! | 4 | admitted in it |
//! | 4 | admitted in the window before |
//! | 2 | rate of admission a second, as the upper half of an f32 (bfloat16) |
//! | 2 | rate of asking, likewise |
//!
//! After 2 follow records of what is in flight, of 12 bytes each:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | the key's digest, not 0 |
//! | 4 | how many are in flight; the highest bit says that the node would have more |

use std::num::NonZeroU64;

use crate::{GaugeRecord, Record};

/// Records that a datagram has at the most: with what sealing and UDP add it fits into 1,280 bytes, which every IPv6 path carries
/// whole (RFC 8200, section 5).
pub const RECORDS_MAX: usize = 48;
/// The same of records of what is in flight.
pub const GAUGES_MAX: usize = 96;
const COUNTS: u8 = 1;
const GAUGES: u8 = 2;
const RECORD_BYTES: usize = 24;
const GAUGE_BYTES: usize = 12;
const WANTS: u32 = 1 << 31;

/// What a datagram has.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Counts.
    Records(Vec<Record>),
    /// What is in flight.
    Gauges(Vec<GaugeRecord>),
}

/// Why bytes are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// They are of a kind that this node does not know, or there are none.
    Kind,
    /// They end within a record, or have more than there may be.
    Length,
    /// A record has no key.
    Key,
}

/// These records as bytes; what is more than [`RECORDS_MAX`] is left out.
pub fn encode(records: &[Record]) -> Vec<u8> {
    let records = &records[..records.len().min(RECORDS_MAX)];
    let mut bytes = Vec::with_capacity(1 + records.len() * RECORD_BYTES);
    bytes.push(COUNTS);
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

/// These records as bytes; what is more than [`GAUGES_MAX`] is left out.
pub fn encode_gauges(records: &[GaugeRecord]) -> Vec<u8> {
    let records = &records[..records.len().min(GAUGES_MAX)];
    let mut bytes = Vec::with_capacity(1 + records.len() * GAUGE_BYTES);
    bytes.push(GAUGES);
    for record in records {
        let word = record.in_flight.min(WANTS - 1) | if record.wants { WANTS } else { 0 };
        bytes.extend(record.key.get().to_be_bytes());
        bytes.extend(word.to_be_bytes());
    }
    bytes
}

/// The records that these bytes are.
///
/// # Errors
/// What is wrong with them; then none of them is to be heeded.
pub fn decode(bytes: &[u8]) -> Result<Body, Malformed> {
    let (kind, rest) = bytes.split_first().ok_or(Malformed::Kind)?;
    match *kind {
        COUNTS => {
            let (records, left) = rest.as_chunks::<RECORD_BYTES>();
            if !left.is_empty() || records.len() > RECORDS_MAX {
                return Err(Malformed::Length);
            }
            records.iter().map(record).collect::<Result<_, _>>().map(Body::Records)
        }
        GAUGES => {
            let (records, left) = rest.as_chunks::<GAUGE_BYTES>();
            if !left.is_empty() || records.len() > GAUGES_MAX {
                return Err(Malformed::Length);
            }
            records.iter().map(gauge).collect::<Result<_, _>>().map(Body::Gauges)
        }
        _ => Err(Malformed::Kind),
    }
}

fn gauge(bytes: &[u8; GAUGE_BYTES]) -> Result<GaugeRecord, Malformed> {
    let [k0, k1, k2, k3, k4, k5, k6, k7, n0, n1, n2, n3] = *bytes;
    let key = NonZeroU64::new(u64::from_be_bytes([k0, k1, k2, k3, k4, k5, k6, k7])).ok_or(Malformed::Key)?;
    let word = u32::from_be_bytes([n0, n1, n2, n3]);
    Ok(GaugeRecord { key, in_flight: word & !WANTS, wants: word & WANTS != 0 })
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
            let Body::Records(read) = decode(&bytes).unwrap() else { panic!("they are counts") };
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
            match decode(&bytes) {
                Ok(Body::Records(records)) => prop_assert_eq!(bytes.len(), 1 + records.len() * RECORD_BYTES),
                // What was read is written as the same bytes.
                Ok(Body::Gauges(records)) => prop_assert_eq!(encode_gauges(&records), bytes),
                Err(_) => {}
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
        assert_eq!(decode(&bytes), Ok(Body::Records(vec![record])));
        assert_eq!(decode(&[]), Err(Malformed::Kind));
        assert_eq!(decode(&[3]), Err(Malformed::Kind));
        assert_eq!(decode(&bytes[..24]), Err(Malformed::Length));
        assert_eq!(decode(&[&bytes[..1], &[0; 24]].concat()), Err(Malformed::Key));
        assert_eq!(decode(&[&[1][..], &[7; 49 * 24]].concat()), Err(Malformed::Length));
        let gauge = GaugeRecord { key: NonZeroU64::MAX, in_flight: 7, wants: true };
        let bytes = encode_gauges(&[gauge]);
        assert_eq!(decode(&bytes), Ok(Body::Gauges(vec![gauge])));
        assert_eq!(decode(&bytes[..12]), Err(Malformed::Length));
        assert_eq!(decode(&[&[2][..], &[0; 12]].concat()), Err(Malformed::Key));
        assert_eq!(encode_gauges(&[gauge; 100]).len(), 1 + GAUGES_MAX * GAUGE_BYTES);
        assert_eq!(encode(&[record; 60]).len(), 1 + RECORDS_MAX * RECORD_BYTES);
    }
}
