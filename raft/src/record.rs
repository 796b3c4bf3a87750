//! What is on disk: records with a format byte and a checksum, and the messages in them.
//!
//! A record is `[format u8][CRC-32 of key, format and payload, u32 little-endian][payload]`. The key is in the checksum, so
//! that a good record in the wrong place is found too. Payloads are protobuf, whose fields can be added and dropped across
//! versions, but for the log's envelope, which is frozen (docs/adr/0001).

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::outcomes::Kept;

/// The format that this build writes.
const FORMAT: u8 = 1;
/// Bytes before the payload.
const HEAD_BYTES: usize = 5;

/// Why a record can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRecord {
    #[error("the record is cut short")]
    Short,
    #[error("the record's format is {0}, and this version knows 1: was it written by a newer version?")]
    Format(u8),
    #[error("the checksum does not match")]
    Checksum,
    #[error("the record can't be read: {0}")]
    Payload(String),
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&[FORMAT]);
    hasher.update(payload);
    hasher.finalize()
}

/// The record that holds `payload` under `key`.
pub(crate) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD_BYTES + payload.len());
    record.push(FORMAT);
    record.extend_from_slice(&checksum(key, payload).to_le_bytes());
    record.extend_from_slice(payload);
    record
}

/// The payload of the record under `key`.
pub(crate) fn open<'r>(key: &[u8], record: &'r [u8]) -> Result<&'r [u8], BadRecord> {
    let (head, payload) = record.split_at_checked(HEAD_BYTES).ok_or(BadRecord::Short)?;
    if head[0] != FORMAT {
        return Err(BadRecord::Format(head[0]));
    }
    if head[1..] != checksum(key, payload).to_le_bytes() {
        return Err(BadRecord::Checksum);
    }
    Ok(payload)
}

/// The record that holds this message.
pub(crate) fn seal_message(key: &[u8], message: &impl Message) -> Vec<u8> {
    seal(key, &message.encode_to_vec())
}

/// The message in the record under `key`.
pub(crate) fn open_message<M: Message + Default>(key: &[u8], record: &[u8]) -> Result<M, BadRecord> {
    M::decode(open(key, record)?).map_err(|error| BadRecord::Payload(error.to_string()))
}

/// A log entry's envelope: bincode 1.3 and frozen. What may change is the body, in protobuf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryV1 {
    pub term: u64,
    pub index: u64,
    /// One of the `KIND_` constants.
    pub kind: u8,
    #[serde(with = "serde_bytes")]
    pub body: Vec<u8>,
}

/// An entry with nothing in it.
pub(crate) const KIND_BLANK: u8 = 0;
/// An entry whose body is a `cluster_proto::command::Request`.
pub(crate) const KIND_REQUEST: u8 = 1;
/// An entry whose body is a `cluster_proto::raft::Membership`.
pub(crate) const KIND_MEMBERSHIP: u8 = 2;

fn bincode_options() -> impl bincode::Options {
    use bincode::Options;
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(cluster_proto::MESSAGE_BYTES_MAX as u64)
        .reject_trailing_bytes()
}

impl EntryV1 {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, BadRecord> {
        use bincode::Options;
        bincode_options().serialize(self).map_err(|error| BadRecord::Payload(error.to_string()))
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        use bincode::Options;
        bincode_options().deserialize(bytes).map_err(|error| BadRecord::Payload(error.to_string()))
    }
}

/// A vote.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct VoteRecord {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub node_id: u64,
    #[prost(bool, tag = "3")]
    pub committed: bool,
}

/// A log id.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct LogIdRecord {
    #[prost(uint64, tag = "1")]
    pub term: u64,
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

/// How far the state machine is.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct AppliedRecord {
    #[prost(message, optional, tag = "1")]
    pub last: Option<LogIdRecord>,
    #[prost(message, optional, tag = "2")]
    pub membership: Option<cluster_proto::raft::StoredMembership>,
    #[prost(uint64, tag = "3")]
    pub revision: u64,
    /// Which generation of state records is the current one; a snapshot brings the next.
    #[prost(uint32, tag = "4")]
    pub generation: u32,
    /// The id of the change that made the revision.
    #[prost(fixed64, tag = "5")]
    pub made_by: u64,
}

/// An object of the config.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct ObjectRecord {
    #[prost(uint64, tag = "1")]
    pub created: u64,
    #[prost(uint64, tag = "2")]
    pub changed: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub doc: Vec<u8>,
}

/// The outcome that is kept under an idempotency key.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OutcomeRecord {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub response: Option<cluster_proto::command::Response>,
    #[prost(fixed32, optional, tag = "3")]
    pub fingerprint: Option<u32>,
}

impl From<&Kept> for OutcomeRecord {
    fn from(kept: &Kept) -> Self {
        let Kept { key, fingerprint, response } = kept;
        Self { key: key.clone(), response: Some(response.into()), fingerprint: *fingerprint }
    }
}

impl TryFrom<OutcomeRecord> for Kept {
    type Error = cluster_proto::convert::Error;

    fn try_from(record: OutcomeRecord) -> Result<Self, Self::Error> {
        let OutcomeRecord { key, fingerprint, response } = record;
        Ok(Self { key, fingerprint, response: response.unwrap_or_default().try_into()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sealed_is_opened(key: Vec<u8>, payload: Vec<u8>) {
            let record = seal(&key, &payload);
            prop_assert_eq!(open(&key, &record), Ok(&payload[..]));
        }

        #[test]
        fn any_flipped_bit_is_found(payload in prop::collection::vec(any::<u8>(), 1..64), at: usize, bit in 0..8_u8) {
            let mut record = seal(b"k", &payload);
            let at = at % record.len();
            record[at] ^= 1 << bit;
            prop_assert!(open(b"k", &record).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = open(b"k", &bytes);
            let _ = EntryV1::decode(&bytes);
        }

        #[test]
        fn an_entry_survives(term: u64, index: u64, kind: u8, body: Vec<u8>) {
            let entry = EntryV1 { term, index, kind, body };
            prop_assert_eq!(EntryV1::decode(&entry.encode().unwrap()), Ok(entry));
        }
    }

    #[test]
    fn a_record_in_the_wrong_place_is_found() {
        assert_eq!(open(b"b", &seal(b"a", b"x")), Err(BadRecord::Checksum));
    }
}
