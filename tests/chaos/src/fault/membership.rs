//! Nodes come and go, while other things happen.

use std::time::{Duration, Instant};

use phalanx_tests::{
    invariant::{Burden, Retried},
    until,
};
use serde_json::{Value, json};

use super::Fault;
use crate::{
    figures::Figure::{CaughtUp, Elections, Failed, Lost, NewLeader, Settled},
    stage::Stage,
};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "a node joins during a partition",
        needs: &[],
        bars: &[(Failed, 0.0), (Lost, 0.0), (Settled, 10.0), (CaughtUp, 5.0), (Elections, 1.0)],
        strike: |stage| {
            let follower = stage.nodes.follower();
            stage.nodes.isolate(follower);
            stage.bears(follower, Burden::Apart);
            let place = add(stage);
            // It is not heard by the one that is alone either.
            stage.nodes.cut(follower, place);
            stage.nodes.cut(place, follower);
            let via = stage.nodes.others(follower)[0];
            let since = Instant::now();
            let id = join(stage, place, via);
            settles(stage, &[via], id, since);
            stage.is_free(follower);
            let healed = Instant::now();
            stage.nodes.heal();
            stage.converges(healed);
        },
    },
    Fault {
        name: "the leader is killed while a vote is given",
        needs: &[],
        bars: &[(Failed, 0.0), (Lost, 0.0), (Settled, 10.0), (NewLeader, 5.0)],
        strike: |stage| {
            let leader = stage.nodes.leader();
            let others = stage.nodes.others(leader);
            stage.expects_elections(1);
            let place = add(stage);
            let id = join(stage, place, others[0]);
            // It is given its vote after 200 ms or so as a learner.
            let moment = stage.dice.ms(0..500);
            stage.lasts(moment);
            stage.bears(leader, Burden::Down);
            stage.nodes.kill(&[leader]);
            let killed = Instant::now();
            // The new one may have its vote, and lead.
            stage.elects_among(&[others.clone(), vec![place]].concat(), killed);
            settles(stage, &others, id, killed);
            stage.comes_back(leader);
        },
    },
    Fault {
        name: "3 → 5 → 3, the leader among the removed",
        needs: &[],
        bars: &[(Failed, 0.0), (Lost, 0.0)],
        strike: |stage| {
            for _ in 0..2 {
                let place = add(stage);
                let (id, since) = (join(stage, place, 0), Instant::now());
                settles(stage, &[0], id, since);
            }
            for _ in 0..2 {
                let leader = stage.nodes.leader();
                stage.expects_elections(1);
                remove(stage, leader);
            }
            stage.goes_on();
        },
    },
    Fault {
        name: "wiped disk, same address",
        needs: &[],
        bars: &[(Failed, 0.0), (Lost, 0.0), (CaughtUp, 5.0), (Elections, 0.0)],
        strike: |stage| {
            let leader = stage.nodes.leader();
            let wiped = stage.nodes.others(leader)[0];
            let old = stage.nodes.admin(wiped).id();
            stage.bears(wiped, Burden::Down);
            stage.nodes.kill(&[wiped]);
            stage.nodes.wipe(wiped);
            stage.nodes.start(wiped);
            let body = ticket(stage, leader);
            let refused = stage.nodes.admin(wiped).ask("POST", "/v1/cluster/join", &body);
            assert_eq!(
                refused.expect("it answers").status,
                409,
                "it is refused under the address of the old"
            );
            let target = format!("/v1/cluster/members/{old}");
            twice(stage, leader, "DELETE", &target, &Value::Null);
            let since = Instant::now();
            let id = twice(stage, wiped, "POST", "/v1/cluster/join", &body).expect("an id");
            assert!(id > old, "the id {id} is not after {old}");
            settles(stage, &[leader], id, since);
            stage.serves(wiped);
            stage.is_free(wiped);
            stage.catches_up(wiped, since);
        },
    },
];

/// Starts one more node, which is in no cluster yet; gives its place.
pub(super) fn add(stage: &mut Stage) -> usize {
    stage.nodes.add()
}

/// What a node joins with, by way of the one at this place.
fn ticket(stage: &Stage, via: usize) -> Value {
    let made = stage.nodes.admin(via).must("POST", "/v1/cluster/tokens", &json!({}));
    json!({"address": stage.nodes.peer(via), "token": made["token"]})
}

/// Has the node at this place join by way of another, twice; gives its id.
pub(super) fn join(stage: &mut Stage, place: usize, via: usize) -> u64 {
    let body = ticket(stage, via);
    let id = twice(stage, place, "POST", "/v1/cluster/join", &body).expect("an id");
    until("the new node serves what the others do", || {
        let answer = phalanx_tests::http::get(stage.nodes.member(place).proxy, "/load", &[]).ok()?;
        (answer.status == 200).then_some(())
    });
    stage.looks_at(place);
    id
}

/// Asks the node at this place for the same twice; gives the id in the answer.
fn twice(stage: &mut Stage, place: usize, method: &str, target: &str, body: &Value) -> Option<u64> {
    let admin = stage.nodes.admin(place).within(Duration::from_secs(30));
    let ask = || {
        let answer = until("the node answers", || admin.ask(method, target, body).ok());
        (answer.status, answer.json()["node_id"].as_u64())
    };
    let (first, second) = (ask(), ask());
    stage.retried.push(Retried { what: format!("{method} {target}"), first, second });
    first.1
}

/// Measures until these see that the node with this id votes, or is no member, and nothing more is to be done.
pub(super) fn settles(stage: &mut Stage, places: &[usize], id: u64, since: Instant) {
    until("the members are settled", || {
        let settled = |place: &usize| {
            let status = stage.nodes.admin(*place).status();
            let member = status["members"].as_array()?.iter().find(|member| member["id"] == id).cloned();
            member.is_none_or(|member| member["role"] != "learner").then_some(())
        };
        places.iter().all(|place| settled(place).is_some()).then_some(())
    });
    stage.measure(Settled, since);
}

/// Removes the node at this place by another, and stops it.
fn remove(stage: &mut Stage, place: usize) {
    let id = stage.nodes.admin(place).id();
    let places: Vec<usize> = stage.nodes.others(place);
    let stays = |other: &usize| {
        let status = stage.nodes.admin(*other).status();
        status["removed"] != true && status["quorum"] == true
    };
    let by = places.into_iter().find(stays).expect("another node is in the cluster");
    twice(stage, by, "DELETE", &format!("/v1/cluster/members/{id}"), &Value::Null);
    until("the node is out, and another leads", || {
        let status = stage.nodes.admin(by).status();
        let is_out = status["members"].as_array()?.iter().all(|member| member["id"] != id);
        (is_out && status["leader"].is_u64() && status["leader"] != id).then_some(())
    });
    let out = stage.nodes.admin(place).clone();
    until("the node knows", || (out.status()["removed"] == true || out.status().is_null()).then_some(()));
}
