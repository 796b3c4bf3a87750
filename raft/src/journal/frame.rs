//! The frames of a segment: `[length u32, little-endian][record]`, the record's checksum covering where it is.
//!
//! Behind the last frame there are zeros, written ahead of need: a length of zero ends the segment.

use crate::record::{self, BadRecord};

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;
/// The largest record, in bytes: an entry is no larger than the message that brought it, and its envelope is small.
const RECORD_BYTES_MAX: usize = cluster_proto::MESSAGE_BYTES_MAX + 1_024;

/// A frame that was once written elsewhere, in another segment or at another byte, is no good one here.
fn key(segment: u64, at: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&segment.to_le_bytes());
    key[8..].copy_from_slice(&at.to_le_bytes());
    key
}

/// The frame with this payload, for byte `at` of this segment.
pub(crate) fn seal(segment: u64, at: u64, payload: &[u8]) -> Result<Vec<u8>, BadRecord> {
    let record = record::seal(&key(segment, at), payload);
    if record.len() > RECORD_BYTES_MAX {
        return Err(BadRecord::Payload(format!("{} bytes are too many for one record", payload.len())));
    }
    let length = u32::try_from(record.len()).expect("it is under the bound");
    Ok([&length.to_le_bytes(), &record[..]].concat())
}

/// The payload of the frame at byte `at` of this segment, and the frame's bytes. None where there is no more.
pub(super) fn open(segment: u64, at: u64, bytes: &[u8]) -> Result<Option<(&[u8], usize)>, BadRecord> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return if is_zero(bytes) { Ok(None) } else { Err(BadRecord::Short) };
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 {
        return Ok(None);
    }
    let record = rest.get(..length).ok_or(BadRecord::Short)?;
    let payload = record::open(&key(segment, at), record)?;
    Ok(Some((payload, LENGTH_BYTES + length)))
}

/// Whether nothing was ever written here.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_frame_is_good_in_its_place_alone(segment: u64, at: u64, payload: Vec<u8>, elsewhere: u64) {
            let frame = seal(segment, at, &payload).unwrap();
            prop_assert_eq!(open(segment, at, &frame), Ok(Some((&payload[..], frame.len()))));
            prop_assume!(elsewhere != at && elsewhere != segment);
            prop_assert!(open(segment, elsewhere, &frame).is_err());
            prop_assert!(open(elsewhere, at, &frame).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = open(1, 2, &bytes);
        }
    }

    #[test]
    fn zeros_are_the_end_and_half_a_frame_is_not() {
        assert_eq!(open(1, 0, &[0; 9]), Ok(None));
        assert_eq!(open(1, 0, &[]), Ok(None));
        let frame = seal(1, 0, b"whole").unwrap();
        for cut in 1..frame.len() {
            assert!(open(1, 0, &frame[..cut]).is_err(), "{cut}");
        }
    }
}
