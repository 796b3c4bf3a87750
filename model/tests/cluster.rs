//! What holds of a cluster whatever is done to it, in whatever order: tokens, members and ids.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::collections::BTreeSet;

use model::{
    Code, NodeId,
    cluster::{
        AdminToken, Cluster, ClusterChange, ClusterOutcome, Founding, GossipKey, JoinToken, NODES_MAX, Node,
        Role, Secret, TOKENS_MAX,
    },
};
use proptest::{collection::vec, prelude::*};

/// The index of the entry that forms the cluster.
const FORMED_AT: u64 = 1;

fn node(number: u8, address: u8) -> Node {
    Node {
        name: format!("n{number}"),
        address: format!("10.0.0.{address}:7000"),
        admin: String::new(),
        public_key: number.to_string(),
        version: "1".into(),
        joined_at_ms: 0,
    }
}

fn form() -> ClusterChange {
    let text = String::new;
    ClusterChange::Form {
        founding: Founding {
            cluster_id: "c".into(),
            epoch: 1,
            ca_certificate: text(),
            ca_key: Secret(text()),
            pepper: Secret(text()),
        },
        node_id: NodeId(FORMED_AT),
        node: node(0, 0),
        admin_token_id: "a".into(),
        admin_token: AdminToken { digest: text(), role: Role::Admin, label: text(), expires_at_ms: None },
        gossip_key: GossipKey { id: 1, secret: Secret(text()) },
    }
}

fn formed() -> Cluster {
    let mut cluster = Cluster::default();
    assert_eq!(cluster.apply(&form(), FORMED_AT, 0), ClusterOutcome::Done);
    cluster
}

fn put_token(id: &str, uses_left: u32, expires_at_ms: u64) -> ClusterChange {
    let token = JoinToken { digest: format!("digest of {id}"), expires_at_ms, uses_left };
    ClusterChange::PutJoinToken { id: id.into(), token }
}

fn admit(token: &str, node: Node) -> ClusterChange {
    ClusterChange::Admit { token_id: token.into(), token_digest: format!("digest of {token}"), node }
}

fn code(outcome: &ClusterOutcome) -> Option<Code> {
    match outcome {
        ClusterOutcome::Refused { code, .. } => Some(*code),
        _ => None,
    }
}

/// Changes about so few things that they meet.
fn changes() -> impl Strategy<Value = Vec<(ClusterChange, u64)>> {
    let token = || "[st]";
    let change = prop_oneof![
        1 => Just(form()),
        8 => (token(), 0..6_u8, 0..6_u8)
            .prop_map(|(token, number, address)| admit(&token, node(number, address))),
        1 => (token(), 0..6_u8).prop_map(|(id, number)| ClusterChange::Admit {
            token_id: id,
            token_digest: "wrong".into(),
            node: node(number, number),
        }),
        2 => (1..40_u64, 0..6_u8, 0..6_u8).prop_map(|(id, number, address)| ClusterChange::Update {
            node_id: NodeId(id),
            node: node(number, address),
        }),
        2 => (1..40_u64).prop_map(|id| ClusterChange::Remove { node_id: NodeId(id) }),
        4 => (token(), 0..4_u32, 0..40_u64)
            .prop_map(|(id, uses, expires_at_ms)| put_token(&id, uses, expires_at_ms)),
        1 => token().prop_map(|id| ClusterChange::DeleteJoinToken { id }),
        1 => any::<u8>()
            .prop_map(|id| ClusterChange::RotateGossipKey { key: GossipKey { id, secret: Secret(String::new()) } }),
    ];
    vec((change, 0..40_u64), 0..40)
}

proptest! {
    #[test]
    fn what_holds_always(changes in changes()) {
        let mut cluster = formed();
        let mut ids = BTreeSet::from([NodeId(FORMED_AT)]);
        for ((change, at_ms), index) in changes.iter().zip(FORMED_AT + 1..) {
            let before = cluster.clone();
            let outcome = cluster.apply(change, index, *at_ms);
            if code(&outcome).is_some() {
                // Putting a token sweeps out those that are no good any more, and may then be refused.
                prop_assert_eq!(&cluster.nodes, &before.nodes);
                prop_assert_eq!(&cluster.gossip_keys, &before.gossip_keys);
            }
            if let (ClusterChange::Admit { token_id, node, .. }, ClusterOutcome::Admitted(id)) = (change, &outcome) {
                let token = &before.join_tokens[token_id];
                let known = before.nodes.iter().find(|(_, known)| known.public_key == node.public_key);
                prop_assert_eq!(&cluster.nodes[id].public_key, &node.public_key);
                match known {
                    Some((known, _)) => {
                        prop_assert_eq!(id, known, "a node that asks again keeps its id");
                        prop_assert_eq!(&cluster.join_tokens, &before.join_tokens);
                    }
                    None => {
                        prop_assert!(ids.insert(*id), "an id was used twice");
                        prop_assert_eq!(*id, NodeId(index));
                        prop_assert!(token.expires_at_ms > *at_ms && token.uses_left > 0);
                        prop_assert_eq!(cluster.join_tokens[token_id].uses_left, token.uses_left - 1);
                    }
                }
            }
            let addresses: BTreeSet<&String> = cluster.nodes.values().map(|node| &node.address).collect();
            prop_assert_eq!(addresses.len(), cluster.nodes.len(), "two nodes have one address");
            prop_assert!(cluster.nodes.keys().all(|id| ids.contains(id)));
            prop_assert!((1..=2).contains(&cluster.gossip_keys.len()));
            prop_assert_eq!(&cluster.founding, &before.founding);
        }
    }

    #[test]
    fn every_node_that_replays_the_log_agrees(changes in changes()) {
        let replay = || {
            let mut cluster = formed();
            let outcomes: Vec<_> = changes
                .iter()
                .zip(FORMED_AT + 1..)
                .map(|((change, at_ms), index)| cluster.apply(change, index, *at_ms))
                .collect();
            (cluster, outcomes)
        };
        let (cluster, outcomes) = replay();
        prop_assert_eq!(replay(), (cluster.clone(), outcomes));
        // A snapshot between any two entries is JSON.
        let text = serde_json::to_string(&cluster).unwrap();
        prop_assert_eq!(serde_json::from_str::<Cluster>(&text).unwrap(), cluster);
    }
}

#[test]
fn a_cluster_is_formed_once() {
    let mut cluster = formed();
    assert_eq!(code(&cluster.apply(&form(), 2, 0)), Some(Code::Conflict));
    assert_eq!(cluster, formed());
}

#[test]
fn a_token_admits_as_often_as_it_says_and_no_longer() {
    let mut cluster = formed();
    cluster.apply(&put_token("s", 2, 100), 2, 0);
    assert_eq!(cluster.apply(&admit("s", node(1, 1)), 3, 99), ClusterOutcome::Admitted(NodeId(3)));
    assert_eq!(code(&cluster.apply(&admit("s", node(2, 2)), 4, 100)), Some(Code::Unauthenticated));
    assert_eq!(cluster.apply(&admit("s", node(2, 2)), 5, 99), ClusterOutcome::Admitted(NodeId(5)));
    assert_eq!(code(&cluster.apply(&admit("s", node(3, 3)), 6, 0)), Some(Code::Unauthenticated));
    // One that was admitted and never heard of it asks again, with a token that is used up and has expired.
    assert_eq!(cluster.apply(&admit("s", node(2, 2)), 7, 1_000), ClusterOutcome::Admitted(NodeId(5)));
    // One that was removed is new, whatever key it has.
    cluster.apply(&ClusterChange::Remove { node_id: NodeId(5) }, 8, 0);
    cluster.apply(&put_token("t", 1, 100), 9, 0);
    assert_eq!(cluster.apply(&admit("t", node(2, 2)), 10, 0), ClusterOutcome::Admitted(NodeId(10)));
}

#[test]
fn an_address_is_one_nodes_own() {
    let mut cluster = formed();
    cluster.apply(&put_token("s", 9, 100), 2, 0);
    cluster.apply(&admit("s", node(1, 1)), 3, 0);
    assert_eq!(code(&cluster.apply(&admit("s", node(2, 1)), 4, 0)), Some(Code::Conflict));
    assert_eq!(code(&cluster.apply(&admit("s", node(1, 0)), 5, 0)), Some(Code::Conflict), "asking again");
    let update = ClusterChange::Update { node_id: NodeId(3), node: node(1, 0) };
    assert_eq!(code(&cluster.apply(&update, 6, 0)), Some(Code::Conflict));
    assert_eq!(cluster.join_tokens["s"].uses_left, 8);
    assert_eq!(cluster.apply(&admit("s", node(1, 7)), 7, 0), ClusterOutcome::Admitted(NodeId(3)));
    assert_eq!(cluster.nodes[&NodeId(3)].address, node(1, 7).address);
}

#[test]
fn what_can_grow_is_bounded() {
    let mut cluster = formed();
    cluster.apply(&put_token("s", u32::MAX, 100), 2, 0);
    for number in 1..u8::try_from(NODES_MAX).unwrap() {
        let outcome = cluster.apply(&admit("s", node(number, number)), u64::from(number) + 10, 0);
        assert_eq!(code(&outcome), None);
    }
    assert_eq!(code(&cluster.apply(&admit("s", node(200, 200)), 200, 0)), Some(Code::Exhausted));
    for number in 1..TOKENS_MAX {
        assert_eq!(cluster.apply(&put_token(&number.to_string(), 1, 100), 500, 0), ClusterOutcome::Done);
    }
    assert_eq!(code(&cluster.apply(&put_token("x", 1, 100), 501, 0)), Some(Code::Exhausted));
    // Those that have expired make room.
    assert_eq!(cluster.apply(&put_token("x", 1, 200), 502, 100), ClusterOutcome::Done);
    assert_eq!(cluster.join_tokens.len(), 1);
}
