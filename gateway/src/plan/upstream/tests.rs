//! What upstreams are compiled to: what targets are read as, what state stays, and what names stand for.

use std::net::IpAddr;

use super::*;
use crate::names::{
    Names, Place, Question, Record,
    tests::{answer, fail},
};

fn upstream(text: &str, old: Option<&CompiledUpstream>, around: &Surroundings) -> CompiledUpstream {
    let spec = Arc::new(serde_json::from_str(text).unwrap());
    CompiledUpstream::compile(&Name::new("u").unwrap(), &spec, old, around, |_| None).unwrap()
}

/// Each endpoint's label and weight.
fn endpoints(upstream: &CompiledUpstream) -> Vec<(&str, u32)> {
    upstream.endpoints.all().iter().map(|endpoint| (&*endpoint.label, endpoint.weight)).collect()
}

fn host(ip: &str) -> Place {
    Place { ip: ip.parse().unwrap(), record: None }
}

fn service(ip: &str, port: u16, priority: u16, weight: u16) -> Place {
    let host = format!("host-{}.", ip.replace(['.', ':'], "-")).into();
    Place { ip: ip.parse().unwrap(), record: Some(Record { host, port, priority, weight }) }
}

#[test]
fn a_target_is_an_address_or_a_name_with_a_port_or_a_service() {
    for good in ["10.0.0.1:80", "[::1]:8080", "orders:80", "orders.internal.:443", "_http._tcp.orders"] {
        assert!(TargetHost::parse(good).is_some(), "{good}");
    }
    assert_eq!(TargetHost::parse("Orders:80"), Some(TargetHost::Dns("orders".into(), 80)));
    for bad in [
        "",
        "orders",
        "orders:",
        ":80",
        "orders:0",
        "orders:65536",
        "::1:80",
        "http://x:80",
        "a b:80",
        "_a/b",
    ] {
        assert!(TargetHost::parse(bad).is_none(), "{bad}");
    }
}

#[test]
fn state_stays_with_an_address_across_changes() {
    let around = Surroundings::new(Names::new().0, None);
    let old = upstream(r#"{"targets":[{"address":"10.0.0.1:1"},{"address":"10.0.0.2:1"}]}"#, None, &around);
    let text = r#"{"targets":[{"address":"10.0.0.2:1","weight":3},{"address":"10.0.0.3:1"},
        {"address":"10.0.0.4:1","weight":0}]}"#;
    let new = upstream(text, Some(&old), &around);
    assert!(Arc::ptr_eq(&old.state, &new.state));
    assert_eq!(endpoints(&new), [("10.0.0.2:1", 3), ("10.0.0.3:1", 1)]);
    let (old, new) = (old.endpoints.all(), new.endpoints.all());
    assert!(Arc::ptr_eq(&old[1].state, &new[0].state));
    assert!(old.iter().all(|known| known.state.id != new[1].state.id));
}

#[test]
fn each_address_of_a_name_is_an_endpoint_that_keeps_its_state() {
    let around = Surroundings::new(Names::new().0, None);
    let names = &*around.names;
    let text = r#"{"targets":[{"address":"a:80","weight":2},{"address":"[::1]:81"}]}"#;
    let awaiting = upstream(text, None, &around);
    assert_eq!(endpoints(&awaiting), [("[::1]:81", 1)]);
    assert!(!awaiting.is_awaited && !awaiting.is_outdated(), "there is somewhere to go");
    let question = Question::Host("a".into());
    answer(names, question.clone(), &[host("10.0.0.1"), host("fd00::2")]);
    assert!(awaiting.is_outdated());
    let old = upstream(text, Some(&awaiting), &around);
    assert!(!old.is_outdated());
    assert_eq!(endpoints(&old), [("a:80/10.0.0.1:80", 2), ("a:80/[fd00::2]:80", 2), ("[::1]:81", 1)]);
    assert_eq!(old.endpoints.all()[1].address, (IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 2]), 80).into());
    assert_eq!(&*old.endpoints.all()[1].authority, "a:80");
    answer(names, question, &[host("10.0.0.3"), host("fd00::2")]);
    let new = upstream(text, Some(&old), &around);
    assert_eq!(endpoints(&new)[0].0, "a:80/10.0.0.3:80");
    assert!(Arc::ptr_eq(&old.endpoints.all()[1].state, &new.endpoints.all()[1].state));
}

#[test]
fn a_name_is_awaited_until_it_is_answered_or_fails() {
    let around = Surroundings::new(Names::new().0, None);
    let names = &*around.names;
    let text = r#"{"targets":[{"address":"a:80"}]}"#;
    let awaiting = upstream(text, None, &around);
    assert!(awaiting.is_awaited);
    fail(names, Question::Host("a".into()));
    assert!(awaiting.is_outdated());
    let failed = upstream(text, Some(&awaiting), &around);
    assert!(!failed.is_awaited && failed.endpoints.all().is_empty());
    answer(names, Question::Host("a".into()), &[host("10.0.0.1")]);
    assert!(failed.is_outdated());
}

#[test]
fn a_service_says_ports_and_weights() {
    let around = Surroundings::new(Names::new().0, None);
    let names = &*around.names;
    let text = r#"{"targets":[{"address":"_http._tcp.a","weight":3}]}"#;
    let _followed = upstream(text, None, &around);
    let places = [service("10.0.0.1", 8080, 0, 10), service("10.0.0.2", 8081, 0, 0)];
    answer(names, Question::Service("_http._tcp.a".into()), &places);
    let upstream = upstream(text, None, &around);
    assert_eq!(endpoints(&upstream), [("_http._tcp.a/10.0.0.1:8080", 30), ("_http._tcp.a/10.0.0.2:8081", 3)]);
    assert_eq!(&*upstream.endpoints.all()[0].authority, "host-10-0-0-1:8080");
}

/// The labels of each level.
fn levels(upstream: &CompiledUpstream) -> Vec<Vec<&str>> {
    let levels = upstream.endpoints.levels().iter();
    levels.map(|level| upstream.endpoints.of(level).iter().map(|one| &*one.label).collect()).collect()
}

#[test]
fn levels_are_by_priority_then_by_zone() {
    let text = r#"{"targets":[{"address":"10.0.0.1:1","zone":"b","priority":1},{"address":"10.0.0.2:1","zone":"a","priority":1},
        {"address":"10.0.0.3:1","priority":1},{"address":"10.0.0.4:1","zone":"b"},{"address":"10.0.0.5:1","weight":0}]}"#;
    let at = |zone: Option<&str>| {
        let around = Surroundings::new(Names::new().0, zone.map(String::from));
        upstream(text, None, &around)
    };
    let (anywhere, in_a) = (at(None), at(Some("a")));
    assert_eq!(levels(&anywhere), [vec!["10.0.0.4:1"], vec!["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"]]);
    assert_eq!(levels(&in_a), [vec!["10.0.0.4:1"], vec!["10.0.0.2:1"], vec!["10.0.0.1:1", "10.0.0.3:1"]]);
    assert_eq!(in_a.endpoints.all().len(), 4);
}

#[test]
fn a_record_of_a_service_has_a_priority_within_that_of_its_target() {
    let around = Surroundings::new(Names::new().0, None);
    let text = r#"{"targets":[{"address":"10.0.0.9:1","priority":1},{"address":"_http._tcp.a"}]}"#;
    let _followed = upstream(text, None, &around);
    let places = [service("10.0.0.1", 1, 20, 1), service("10.0.0.2", 1, 10, 1)];
    answer(&around.names, Question::Service("_http._tcp.a".into()), &places);
    let upstream = upstream(text, None, &around);
    let want = [["_http._tcp.a/10.0.0.2:1"], ["_http._tcp.a/10.0.0.1:1"], ["10.0.0.9:1"]];
    assert_eq!(levels(&upstream), want);
}

#[test]
fn a_target_of_weight_0_is_there_for_its_cookies() {
    let around = Surroundings::new(Names::new().0, None);
    let text = r#"{"sticky":{"cookie":"c"},"targets":[{"address":"10.0.0.1:1","weight":0},{"address":"10.0.0.2:1"}]}"#;
    let upstream = upstream(text, None, &around);
    assert_eq!(levels(&upstream), [["10.0.0.2:1"]]);
    assert_eq!(endpoints(&upstream), [("10.0.0.2:1", 1), ("10.0.0.1:1", 0)]);
}
