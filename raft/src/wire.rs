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
