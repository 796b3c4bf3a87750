//! What the frames of a segment hold.

use prost::Message;

use crate::record::{BadRecord, EntryV1, LogIdRecord, VoteRecord};

const HEAD: u8 = 0;
const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const TRUNCATED: u8 = 3;
const PURGED: u8 = 4;

/// A step of the log's history. Played in their order, they come to the log as it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    /// The first of a segment.
    Head(Head),
    /// The next entry.
    Entry(EntryV1),
    /// The vote from here on.
    Vote(VoteRecord),
    /// No entry follows this one; where it is none, none is left.
    Truncated(Option<LogIdRecord>),
    /// No entry up to this one is needed any more.
    Purged(LogIdRecord),
}

/// What the segments before this one came to, so that they can be removed, and where the last of them ends.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct Head {
    #[prost(message, optional, tag = "1")]
    pub previous: Option<End>,
    #[prost(message, optional, tag = "2")]
    pub vote: Option<VoteRecord>,
    #[prost(message, optional, tag = "3")]
    pub purged: Option<LogIdRecord>,
}

/// Where a segment ends.
#[derive(Clone, PartialEq, Eq, Message)]
pub(crate) struct End {
    #[prost(uint64, tag = "1")]
    pub segment: u64,
    /// The byte behind its last frame.
    #[prost(uint64, tag = "2")]
    pub at: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Truncation {
    #[prost(message, optional, tag = "1")]
    last: Option<LogIdRecord>,
}

impl Record {
    /// Its bytes, the kind first.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, BadRecord> {
        let (kind, body) = match self {
            Self::Head(head) => (HEAD, head.encode_to_vec()),
            Self::Entry(entry) => (ENTRY, entry.encode()?),
            Self::Vote(vote) => (VOTE, vote.encode_to_vec()),
            Self::Truncated(last) => (TRUNCATED, Truncation { last: last.clone() }.encode_to_vec()),
            Self::Purged(upto) => (PURGED, upto.encode_to_vec()),
        };
        Ok([&[kind], &body[..]].concat())
    }

    /// The record of these bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        fn message<M: Message + Default>(body: &[u8]) -> Result<M, BadRecord> {
            M::decode(body).map_err(|error| BadRecord::Payload(error.to_string()))
        }
        let (kind, body) = bytes.split_first().ok_or(BadRecord::Short)?;
        Ok(match *kind {
            HEAD => Self::Head(message(body)?),
            ENTRY => Self::Entry(EntryV1::decode(body)?),
            VOTE => Self::Vote(message(body)?),
            TRUNCATED => Self::Truncated(message::<Truncation>(body)?.last),
            PURGED => Self::Purged(message(body)?),
            other => {
                let reason = format!("records of kind {other} are written by a newer version");
                return Err(BadRecord::Payload(reason));
            }
        })
    }
}

/// What a frame's kind is called, for a simulation that ends its node at one.
#[cfg(test)]
pub(crate) fn kind_name(kind: u8) -> &'static str {
    match kind {
        HEAD => "log head",
        ENTRY => "append",
        VOTE => "vote",
        TRUNCATED => "truncate",
        _ => "purge",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log_id() -> impl Strategy<Value = LogIdRecord> {
        any::<(u64, u64)>().prop_map(|(term, index)| LogIdRecord { term, index })
    }

    fn records() -> impl Strategy<Value = Record> {
        let vote = any::<(u64, u64, bool)>().prop_map(|(term, node_id, committed)| VoteRecord {
            term,
            node_id,
            committed,
        });
        let end = any::<(u64, u64)>().prop_map(|(segment, at)| End { segment, at });
        let head = (prop::option::of(end), prop::option::of(vote.clone()), prop::option::of(log_id()));
        prop_oneof![
            head.prop_map(|(previous, vote, purged)| Record::Head(Head { previous, vote, purged })),
            any::<(u64, u64, u8, Vec<u8>)>().prop_map(|(term, index, kind, body)| Record::Entry(EntryV1 {
                term,
                index,
                kind,
                body
            })),
            vote.prop_map(Record::Vote),
            prop::option::of(log_id()).prop_map(Record::Truncated),
            log_id().prop_map(Record::Purged),
        ]
    }

    proptest! {
        #[test]
        fn a_record_survives(record in records()) {
            prop_assert_eq!(Record::decode(&record.encode().unwrap()), Ok(record));
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Record::decode(&bytes);
        }
    }
}
