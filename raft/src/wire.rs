//! Between openraft's types and the messages of `cluster_proto::raft`, which are what is on the wire and on the disk.

use std::collections::{BTreeMap, BTreeSet};

use cluster_proto::{convert::Error, raft as proto};

use openraft::EntryPayload;
use prost::Message;

use crate::types::{Entry, LogId, Membership, PeerNode, StoredMembership, Vote, log_id, term};

pub(crate) fn log_id_message(id: &LogId) -> proto::LogId {
    proto::LogId { term: term(id), index: id.index }
}

pub(crate) fn read_log_id(id: proto::LogId) -> LogId {
    log_id(id.term, id.index)
}

pub(crate) fn membership(membership: &Membership) -> proto::Membership {
    let configs = membership.get_joint_config().iter();
    let nodes = membership.nodes();
    proto::Membership {
        configs: configs.map(|ids| proto::VoterSet { ids: ids.iter().copied().collect() }).collect(),
        nodes: nodes.map(|(id, node)| (*id, proto::Member { address: node.address.clone() })).collect(),
    }
}

pub(crate) fn read_membership(message: proto::Membership) -> Result<Membership, Error> {
    let configs: Vec<BTreeSet<u64>> =
        message.configs.into_iter().map(|config| config.ids.into_iter().collect()).collect();
    let nodes: BTreeMap<u64, PeerNode> =
        message.nodes.into_iter().map(|(id, node)| (id, PeerNode { address: node.address })).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes)
        .map_err(|error| Error::Unknown { what: "a membership", value: error.to_string() })
}

pub(crate) fn stored_membership(stored: &StoredMembership) -> proto::StoredMembership {
    proto::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_message),
        membership: Some(membership(stored.membership())),
    }
}

pub(crate) fn read_stored_membership(message: proto::StoredMembership) -> Result<StoredMembership, Error> {
    let membership = read_membership(message.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(message.log_id.map(read_log_id), membership))
}

pub(crate) fn vote(vote: &Vote) -> proto::Vote {
    let Vote { leader_id, committed } = vote;
    proto::Vote { term: leader_id.term, node_id: leader_id.voted_for, committed: *committed }
}

pub(crate) fn read_vote(vote: proto::Vote) -> Vote {
    match vote.committed {
        true => Vote::new_committed(vote.term, vote.node_id),
        false => Vote::new(vote.term, vote.node_id),
    }
}

pub(crate) fn entry(entry: &Entry) -> proto::Entry {
    use proto::entry::Payload as To;
    let payload = match &entry.payload {
        EntryPayload::Blank => To::Blank(true),
        EntryPayload::Normal(request) => {
            To::Request(cluster_proto::command::Request::from(request).encode_to_vec().into())
        }
        EntryPayload::Membership(of) => To::Membership(membership(of)),
    };
    proto::Entry { log_id: Some(log_id_message(&entry.log_id)), payload: Some(payload) }
}

pub(crate) fn read_entry(entry: proto::Entry) -> Result<Entry, Error> {
    use proto::entry::Payload as From;
    let log_id = read_log_id(entry.log_id.ok_or(Error::Missing("an entry's log id"))?);
    let payload = match entry.payload.ok_or(Error::Missing("an entry's payload"))? {
        From::Blank(_) => EntryPayload::Blank,
        From::Request(bytes) => {
            let request = cluster_proto::command::Request::decode(bytes)
                .map_err(|error| Error::Unknown { what: "a request", value: error.to_string() })?;
            EntryPayload::Normal(request.try_into()?)
        }
        From::Membership(message) => EntryPayload::Membership(read_membership(message)?),
    };
    Ok(Entry { log_id, payload })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Change, Kind, Name, Op, Revision};
    use proptest::{collection, option, prelude::*, sample::select};

    use super::*;
    use crate::types::{Command, Link, Request};

    fn ids() -> impl Strategy<Value = BTreeSet<u64>> {
        collection::btree_set(0..9_u64, 1..5)
    }

    fn any_membership() -> impl Strategy<Value = Membership> {
        (collection::vec(ids(), 1..3), any::<[String; 9]>()).prop_map(|(configs, addresses)| {
            let nodes = (0..).zip(addresses).map(|(id, address)| (id, PeerNode { address }));
            Membership::new(configs, nodes.collect::<BTreeMap<_, _>>()).unwrap()
        })
    }

    fn request() -> impl Strategy<Value = Request> {
        let op = (select(Kind::ALL.to_vec()), "[a-z]{1,9}", option::of(collection::vec(any::<u8>(), 0..32)));
        let op = op.prop_map(|(kind, name, doc)| (kind, Name::new(&name).unwrap(), doc)).prop_map(
            |(kind, name, doc)| match doc {
                Some(doc) => Op::Put { kind, name, doc: Arc::from(doc) },
                None => Op::Delete { kind, name },
            },
        );
        let change = (any::<u64>(), collection::vec(op, 0..5));
        (option::of(".{1,12}"), any::<String>(), any::<[u64; 3]>(), change).prop_map(
            |(idempotency_key, author, [at_ms, id, after], (base, ops))| Request {
                idempotency_key,
                author,
                at_ms,
                link: Link { id, after },
                command: Command::Change(Change { base: Revision(base), ops }),
            },
        )
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            request().prop_map(EntryPayload::Normal),
            any_membership().prop_map(EntryPayload::Membership),
        ];
        (any::<[u64; 2]>(), payload)
            .prop_map(|([term, index], payload)| Entry { log_id: log_id(term, index), payload })
    }

    proptest! {
        #[test]
        fn entries_are_read_as_they_were_written(one in any_entry()) {
            let bytes = entry(&one).encode_to_vec();
            prop_assert_eq!(read_entry(proto::Entry::decode(&*bytes).unwrap()), Ok(one));
        }

        #[test]
        fn votes_and_memberships_too(
            id in option::of(any::<[u64; 2]>()),
            members in any_membership(),
            of in any::<(u64, u64, bool)>(),
        ) {
            let stored = StoredMembership::new(id.map(|[term, index]| log_id(term, index)), members);
            let bytes = stored_membership(&stored).encode_to_vec();
            prop_assert_eq!(stored_membership(&stored).encode_to_vec(), bytes, "it has no one encoding");
            prop_assert_eq!(read_stored_membership(stored_membership(&stored)), Ok(stored));
            let message = proto::Vote { term: of.0, node_id: of.1, committed: of.2 };
            prop_assert_eq!(vote(&read_vote(message)), message);
        }

        #[test]
        fn no_damage_panics(one in any_entry(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = entry(&one).encode_to_vec();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            if let Ok(message) = proto::Entry::decode(&*bytes) {
                let _ = read_entry(message);
            }
        }
    }
}
