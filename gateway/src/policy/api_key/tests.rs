//! Who gets through, who does not, and what the upstream is told.

use http::HeaderValue;
use model::{Code, Config, Kind, Name, config::Pepper, key};

use super::*;
use crate::{
    lease::Moment,
    plan::Plan,
    policy::test::{World, config, policy, run_in, run_under},
};

fn credential(seed: u8) -> String {
    key::generate(&[seed; 40]).unwrap()
}

fn keyed() -> Config {
    let pepper = Pepper([7; 32]);
    let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &pepper.0);
    let doc = |seed: u8, consumer: &str, more: &str| {
        let tag = aws_lc_rs::hmac::sign(&hmac, credential(seed).as_bytes());
        let digest: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!(r#"{{"consumer":"{consumer}","digest":"{digest}","hint":"abcd","issued_at_s":1{more}}}"#)
    };
    let mut config = config(&[
        (Kind::Consumer, "acme", r#"{"groups":["gold"]}"#),
        (Kind::Consumer, "off", r#"{"groups":["gold"],"disabled":true}"#),
        (Kind::Consumer, "plain", "{}"),
        (Kind::Key, "k1", &doc(1, "acme", "")),
        (Kind::Key, "k2", &doc(2, "off", "")),
        (Kind::Key, "k3", &doc(3, "plain", "")),
        (Kind::Key, "k4", &doc(4, "acme", r#","expires_at_s":1000"#)),
        (Kind::Key, "k5", &doc(5, "acme", r#","expires_at_s":1001"#)),
    ]);
    config.pepper = Some(Arc::new(pepper));
    config
}

fn ask(plan: &Plan, doc: &str, headers: &[(&'static str, &str)]) -> Result<(), (Code, &'static str)> {
    let built = policy(doc).unwrap();
    let prepare = |exchange: &mut Exchange<'_>| {
        for (name, value) in headers {
            exchange.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
    };
    run_in(plan, &*built, prepare, |_| ()).map_err(|refusal| (refusal.code, refusal.reason))
}

#[test]
fn where_it_closes_on_isolation_nobody_passes_without_a_confirmation() {
    let plan = Plan::empty().install(&keyed()).unwrap();
    let (closed, key) =
        (r#"{"type":"api-key","on_isolation":"closed","isolation_after":"1h"}"#, credential(1));
    let isolated = Err((Code::Unavailable, "isolated"));
    assert_eq!(ask(&plan, closed, &[("x-api-key", &key)]), isolated);
    // Nor does one without a key learn anything.
    assert_eq!(ask(&plan, closed, &[]), isolated);
    let world = World::default();
    let lease = &world.lease;
    lease.confirm(Moment::now());
    let with_lease = |doc: &str| {
        let built = policy(doc).unwrap();
        let value = HeaderValue::from_str(&key).unwrap();
        let prepare = |exchange: &mut Exchange<'_>| {
            exchange.headers.append("x-api-key", value);
        };
        run_under(&world, &plan, &*built, prepare, |_| ()).map_err(|refusal| (refusal.code, refusal.reason))
    };
    assert_eq!(with_lease(closed), Ok(()));
    let refused = policy(r#"{"type":"api-key","on_isolation":"closed","isolation_after":"4s"}"#).unwrap_err();
    assert_eq!(refused[0].path, "policies.p.isolation_after");
    assert!(policy(r#"{"type":"api-key","on_isolation":"ajar"}"#).is_err());
}

#[test]
fn only_a_good_key_of_one_who_may_gets_through() {
    let plan = Plan::empty().install(&keyed()).unwrap();
    let any = r#"{"type":"api-key"}"#;
    let gold = r#"{"type":"api-key","allow":{"groups":["gold"]}}"#;
    let named = r#"{"type":"api-key","allow":{"consumers":["plain"]}}"#;
    let with = |doc: &str, key: &str| ask(&plan, doc, &[("x-api-key", key)]);
    assert_eq!(with(any, &credential(1)), Ok(()));
    assert_eq!(with(gold, &credential(1)), Ok(()));
    assert_eq!(with(named, &credential(3)), Ok(()));
    assert_eq!(with(gold, &credential(3)), Err((Code::Denied, "consumer_not_allowed")));
    assert_eq!(with(named, &credential(1)), Err((Code::Denied, "consumer_not_allowed")));
    assert_eq!(with(any, &credential(2)), Err((Code::Denied, "consumer_disabled")));
    assert_eq!(with(any, &credential(4)), Err((Code::Unauthenticated, "key_expired")));
    assert_eq!(with(any, &credential(5)), Ok(()));
    assert_eq!(with(any, &credential(6)), Err((Code::Unauthenticated, "key_unknown")));
    assert_eq!(with(any, "gw_live_x"), Err((Code::Unauthenticated, "key_malformed")));
    assert_eq!(ask(&plan, any, &[]), Err((Code::Unauthenticated, "key_missing")));
    let (one, other) = (credential(1), credential(3));
    let twice = ask(&plan, any, &[("x-api-key", &one), ("x-api-key", &other)]);
    assert_eq!(twice, Err((Code::Unauthenticated, "key_repeated")));
}

#[test]
fn a_revoked_key_is_refused_by_the_next_plan() {
    let mut config = keyed();
    let plan = Plan::empty().install(&config).unwrap();
    config.remove(Kind::Key, &Name::new("k1").unwrap());
    let next = plan.install(&config).unwrap();
    let key = credential(1);
    assert_eq!(ask(&plan, r#"{"type":"api-key"}"#, &[("x-api-key", &key)]), Ok(()));
    assert!(ask(&next, r#"{"type":"api-key"}"#, &[("x-api-key", &key)]).is_err());
}

#[test]
fn the_upstream_is_told_who_calls_and_not_with_what() {
    let plan = Plan::empty().install(&keyed()).unwrap();
    let key = credential(1);
    for (doc, header, value) in [
        (r#"{"type":"api-key"}"#, "x-api-key", key.clone()),
        (r#"{"type":"api-key","in":"bearer"}"#, "authorization", format!("bearer {key}")),
    ] {
        let prepare = |exchange: &mut Exchange<'_>| {
            exchange.headers.insert(HeaderName::from_static(header), HeaderValue::from_str(&value).unwrap());
            exchange.headers.insert("x-consumer", HeaderValue::from_static("forged"));
        };
        let seen = |exchange: &Exchange<'_>| {
            assert_eq!(exchange.headers.get(header), None);
            assert_eq!(exchange.headers.get_all("x-consumer").iter().collect::<Vec<_>>(), ["acme"]);
            assert_eq!(exchange.consumer.as_ref().map(Name::as_str), Some("acme"));
        };
        assert_eq!(run_in(&plan, &*policy(doc).unwrap(), prepare, seen), Ok(()));
    }
    let doc = r#"{"type":"api-key","in":{"query":"k"}}"#;
    let prepare = |exchange: &mut Exchange<'_>| exchange.query = Some(format!("a=1&k={key}&%6b=x&b").into());
    let seen = |exchange: &Exchange<'_>| assert_eq!(exchange.query.as_deref(), Some("a=1&b"));
    assert_eq!(run_in(&plan, &*policy(doc).unwrap(), prepare, seen), Ok(()));
}
