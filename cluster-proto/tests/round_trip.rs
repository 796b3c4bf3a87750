//! What is written is what is read: everything that goes into the log or between nodes, and no bytes panic.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::sync::Arc;

use cluster_proto::{
    command, common,
    convert::{self, Said},
    forward, peer, raft,
};
use model::{
    Change, Code, Kind, Name, NodeId, Op, Outcome, Revision,
    cluster::{
        AdminToken, ClusterChange, ClusterOutcome, Founding, GossipKey, JoinToken, Node, Role, Secret,
    },
    usage::{Start, Used},
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};
use prost::Message;

fn name() -> impl Strategy<Value = Name> {
    "[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?".prop_map(|text| Name::new(&text).unwrap())
}

fn change() -> impl Strategy<Value = Change> {
    let op = (select(Kind::ALL.to_vec()), name(), option::of(vec(any::<u8>(), 0..64)));
    let op = op.prop_map(|(kind, name, doc)| match doc {
        Some(doc) => Op::Put { kind, name, doc: Arc::from(doc) },
        None => Op::Delete { kind, name },
    });
    (any::<u64>(), vec(op, 0..8)).prop_map(|(base, ops)| Change { base: Revision(base), ops })
}

fn node() -> impl Strategy<Value = Node> {
    (any::<[String; 5]>(), any::<u64>()).prop_map(|(text, joined_at_ms)| {
        let [name, address, admin, public_key, version] = text;
        Node { name, address, admin, public_key, version, joined_at_ms }
    })
}

fn admin_token() -> impl Strategy<Value = AdminToken> {
    let role = select(vec![Role::Viewer, Role::Operator, Role::Admin]);
    (any::<String>(), role, any::<String>(), any::<Option<u64>>())
        .prop_map(|(digest, role, label, expires_at_ms)| AdminToken { digest, role, label, expires_at_ms })
}

fn gossip_key() -> impl Strategy<Value = GossipKey> {
    (any::<u8>(), any::<String>()).prop_map(|(id, secret)| GossipKey { id, secret: Secret(secret) })
}

fn founding() -> impl Strategy<Value = Founding> {
    (any::<[String; 4]>(), any::<u64>()).prop_map(|(text, epoch)| {
        let [cluster_id, ca_certificate, ca_key, pepper] = text;
        Founding { cluster_id, epoch, ca_certificate, ca_key: Secret(ca_key), pepper: Secret(pepper) }
    })
}

fn cluster_change() -> impl Strategy<Value = ClusterChange> {
    let id = || any::<u64>().prop_map(NodeId);
    let join_token = (any::<String>(), any::<u64>(), any::<u32>())
        .prop_map(|(digest, expires_at_ms, uses_left)| JoinToken { digest, expires_at_ms, uses_left });
    let form = (founding(), id(), node(), any::<String>(), admin_token(), gossip_key());
    prop_oneof![
        form.prop_map(|(founding, node_id, node, admin_token_id, admin_token, gossip_key)| {
            ClusterChange::Form { founding, node_id, node, admin_token_id, admin_token, gossip_key }
        }),
        (any::<String>(), any::<String>(), node()).prop_map(|(token_id, token_digest, node)| {
            ClusterChange::Admit { token_id, token_digest, node }
        }),
        (id(), node()).prop_map(|(node_id, node)| ClusterChange::Update { node_id, node }),
        id().prop_map(|node_id| ClusterChange::Remove { node_id }),
        (any::<String>(), join_token).prop_map(|(id, token)| ClusterChange::PutJoinToken { id, token }),
        any::<String>().prop_map(|id| ClusterChange::DeleteJoinToken { id }),
        (any::<String>(), admin_token()).prop_map(|(id, token)| ClusterChange::PutAdminToken { id, token }),
        any::<String>().prop_map(|id| ClusterChange::DeleteAdminToken { id }),
        gossip_key().prop_map(|key| ClusterChange::RotateGossipKey { key }),
    ]
}

fn used() -> impl Strategy<Value = Used> {
    let start = (any::<u64>(), any::<u64>()).prop_map(|(node, at_ms)| Start { node: NodeId(node), at_ms });
    let counts = btree_map(start, any::<u64>(), 0..6);
    (any::<[u64; 3]>(), any::<u32>(), any::<[String; 3]>(), counts).prop_map(
        |(numbers, period, text, counts)| {
            let ([key, ends_at_s, limit], [policy, limit_name, by]) = (numbers, text);
            Used { key, period, ends_at_s, policy, limit_name, by, limit, counts }
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let outcomes = vec![Outcome::Applied as fn(Revision) -> _, Outcome::Unchanged, Outcome::Conflict];
    (select(outcomes), any::<u64>()).prop_map(|(outcome, revision)| outcome(Revision(revision)))
}

fn cluster_outcome() -> impl Strategy<Value = ClusterOutcome> {
    let codes = vec![
        Code::Ok,
        Code::Invalid,
        Code::Unauthenticated,
        Code::Denied,
        Code::NotFound,
        Code::Conflict,
        Code::Exhausted,
        Code::Unavailable,
        Code::Timeout,
    ];
    prop_oneof![
        Just(ClusterOutcome::Done),
        any::<u64>().prop_map(|id| ClusterOutcome::Admitted(NodeId(id))),
        (select(codes), any::<String>()).prop_map(|(code, reason)| ClusterOutcome::Refused { code, reason }),
    ]
}

/// What the other side reads.
fn sent<M: Message + Default>(message: &M) -> M {
    M::decode(&*message.encode_to_vec()).unwrap()
}

/// Decodes the bytes as each of the messages.
macro_rules! decode {
    ($bytes:expr; $($message:ty),* $(,)?) => { $(drop(<$message>::decode($bytes));)* };
}

/// As a stranger or a newer version may send them, and what the conversions make of those that decode.
fn read_all(bytes: &[u8]) {
    if let Ok(change) = command::Change::decode(bytes) {
        let _ = Change::try_from(change);
    }
    if let Ok(response) = command::Response::decode(bytes) {
        let _ = Said::try_from(response);
    }
    if let Ok(command::Request { command: Some(command), .. }) = command::Request::decode(bytes) {
        match command {
            command::request::Command::Change(change) => drop(Change::try_from(change)),
            command::request::Command::Cluster(json) => drop(convert::cluster_change(&json)),
            command::request::Command::Usage(report) => {
                report.used.into_iter().for_each(|used| drop(Used::from(used)));
            }
        }
    }
    let _ = convert::cluster_change(bytes);
    decode!(bytes;
        common::Header, forward::ChangeRequest, forward::ClusterChangeRequest, forward::ReportUsageRequest, forward::ForwardReply,
        forward::ReadIndexReply, forward::TransferRequest, forward::TransferReply, peer::JoinRequest, peer::JoinReply,
        peer::RenewRequest, peer::RenewReply, peer::AwaitRequest, peer::AwaitReply, raft::Entry, raft::AppendRequest,
        raft::AppendReply, raft::VoteRequest, raft::VoteReply, raft::SnapshotChunk, raft::SnapshotHead,
        raft::SnapshotReply, raft::TransferLeaderRequest, raft::TransferLeaderReply, raft::StoredMembership,
    );
}

proptest! {
    #[test]
    fn changes(change in change()) {
        let message = command::Change::from(&change);
        prop_assert_eq!(Change::try_from(sent(&message)), Ok(change));
    }

    #[test]
    fn usage(used in used()) {
        let message = command::Used::from(&used);
        prop_assert_eq!(Used::from(sent(&message)), used);
    }

    #[test]
    fn cluster_changes(change in cluster_change()) {
        prop_assert_eq!(convert::cluster_change(&convert::cluster_change_bytes(&change)), Ok(change));
    }

    #[test]
    fn outcomes(outcome in outcome(), cluster in cluster_outcome()) {
        let message = command::Response::from(&outcome);
        prop_assert_eq!(Said::try_from(sent(&message)), Ok(Said::Change(outcome)));
        let message = command::Response::from(&cluster);
        prop_assert_eq!(Said::try_from(sent(&message)), Ok(Said::Cluster(cluster)));
    }

    #[test]
    fn kinds_and_names(kind in select(Kind::ALL.to_vec()), name in name()) {
        prop_assert_eq!(convert::kind(kind.plural()), Ok(kind));
        prop_assert_eq!(convert::name(name.as_str()), Ok(name));
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..256)) {
        read_all(&bytes);
    }

    /// Damage at one place leaves more of a message standing than bytes of chance do.
    #[test]
    fn no_damage_panics(
        change in change(),
        cluster in cluster_change(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let cluster = command::request::Command::Cluster(convert::cluster_change_bytes(&cluster));
        let request = |command| command::Request { command: Some(command), ..Default::default() };
        let change = command::Change::from(&change);
        for message in [
            change.encode_to_vec(),
            request(command::request::Command::Change(change.clone())).encode_to_vec(),
            request(cluster.clone()).encode_to_vec(),
        ] {
            let mut damaged = message;
            if let Some(place) = (!damaged.is_empty()).then(|| at.index(damaged.len())) {
                damaged[place] = byte;
            }
            read_all(&damaged);
        }
    }
}
