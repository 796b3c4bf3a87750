//! Messages between nodes: what is read is written and read back as the same, and so is what the model makes of it. The first
//! byte says as which message the rest is read.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::fmt::Debug;

use cluster_proto::{
    command, common,
    convert::{self, Said},
    forward, peer, raft as wire,
};
use model::Change;
use phalanx_fuzz::Input;
use prost::Message;
use raft::fuzzing;

phalanx_fuzz::target!(|data| {
    let mut input = Input(data);
    let sort = input.byte();
    let bytes = input.0;
    match sort % 16 {
        0 => change(bytes),
        1 => response(bytes),
        2 => request(bytes),
        3 => cluster_change(bytes),
        4 => entry(bytes),
        5 => membership(bytes),
        6 => append(bytes),
        7 => one::<wire::SnapshotChunk>(bytes),
        8 => one::<forward::ChangeRequest>(bytes),
        9 => cluster_change_request(bytes),
        10 => one::<forward::ForwardReply>(bytes),
        11 => one::<peer::JoinRequest>(bytes),
        12 => one::<peer::JoinReply>(bytes),
        13 => vote(bytes),
        _ => others(bytes),
    }
});

/// Reads, writes and reads again.
fn same<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let written = message.encode_to_vec();
    assert_eq!(written.len(), message.encoded_len());
    assert_eq!(M::decode(&written[..]).as_ref(), Ok(&message));
    Some(message)
}

/// One that is read field by field where it comes in.
fn one<M: Message + Default + PartialEq + Debug>(bytes: &[u8]) {
    let _: Option<M> = same(bytes);
}

fn change(bytes: &[u8]) {
    let Some(message) = same::<command::Change>(bytes) else { return };
    let Ok(change) = Change::try_from(message.clone()) else { return };
    let written = command::Change::from(&change);
    assert_eq!(written, message, "the model says it otherwise");
    assert_eq!(Change::try_from(written), Ok(change));
}

fn response(bytes: &[u8]) {
    let Some(message) = same::<command::Response>(bytes) else { return };
    let Ok(said) = Said::try_from(message.clone()) else { return };
    let written = match &said {
        Said::Change(outcome) => command::Response::from(outcome),
        Said::Cluster(outcome) => command::Response::from(outcome),
    };
    assert_eq!(Said::try_from(written), Ok(said));
    let stored = raft::Response::try_from(message).expect("what the model reads, the log does");
    assert_eq!(raft::Response::try_from(command::Response::from(&stored)), Ok(stored));
}

fn request(bytes: &[u8]) {
    let Some(message) = same::<command::Request>(bytes) else { return };
    if let Ok(request) = raft::Request::try_from(message) {
        assert_eq!(raft::Request::try_from(command::Request::from(&request)), Ok(request));
    }
}

fn cluster_change(json: &[u8]) {
    if let Ok(change) = convert::cluster_change(json) {
        assert_eq!(convert::cluster_change(&convert::cluster_change_bytes(&change)), Ok(change));
    }
}

fn entry(bytes: &[u8]) {
    same::<wire::Entry>(bytes).into_iter().for_each(one_entry);
}

fn one_entry(message: wire::Entry) {
    if let Ok(written) = fuzzing::wire_entry_again(message) {
        assert_eq!(fuzzing::wire_entry_again(written.clone()), Ok(written));
    }
}

fn append(bytes: &[u8]) {
    let message = same::<wire::AppendRequest>(bytes);
    message.into_iter().flat_map(|message| message.entries).for_each(one_entry);
}

fn cluster_change_request(bytes: &[u8]) {
    let message = same::<forward::ClusterChangeRequest>(bytes);
    message.into_iter().for_each(|message| cluster_change(&message.change));
}

fn membership(bytes: &[u8]) {
    let Some(message) = same::<wire::StoredMembership>(bytes) else { return };
    if let Ok(written) = fuzzing::wire_membership_again(message) {
        assert_eq!(fuzzing::wire_membership_again(written.clone()), Ok(written));
    }
}

fn vote(bytes: &[u8]) {
    if let Some(message) = same::<wire::Vote>(bytes) {
        assert_eq!(fuzzing::wire_vote_again(message), message);
    }
}

/// Reads the bytes as each of these.
macro_rules! each {
    ($bytes:expr; $($message:ty),* $(,)?) => { $(one::<$message>($bytes);)* };
}

fn others(bytes: &[u8]) {
    each!(bytes;
        common::Header, forward::ReadIndexReply, forward::TransferRequest, forward::TransferReply, peer::RenewRequest,
        peer::RenewReply, peer::AwaitRequest, peer::AwaitReply, wire::AppendReply, wire::VoteRequest, wire::VoteReply,
        wire::SnapshotHead, wire::SnapshotReply, wire::TransferLeaderRequest, wire::TransferLeaderReply,
    );
}
