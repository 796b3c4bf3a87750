use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Revision, document::canonical};

fn put(kind: Kind, name: &str, value: &Value) -> Op {
    Op::Put { kind, name: Name::new(name).unwrap(), doc: canonical(value) }
}

fn change(config: &Config, ops: Vec<Op>) -> Change {
    Change { base: config.revision, ops }
}

/// The paths of what is wrong with these on top of a small good config.
fn wrong(ops: Vec<Op>) -> Vec<String> {
    let config = small();
    let violations = check(&config, &change(&config, ops));
    violations.into_iter().map(|violation| violation.path).collect()
}

fn small() -> Config {
    let mut config = Config::default();
    let good = change(
        &config,
        vec![
            put(Kind::Upstream, "u", &json!({"targets": [{"address": "10.0.0.1:80"}]})),
            put(Kind::Policy, "p", &json!({"type": "api-key"})),
            put(Kind::Group, "g", &json!({})),
            put(Kind::Consumer, "c", &json!({"groups": ["g"]})),
            put(
                Kind::Route,
                "r",
                &json!({"hosts": ["a.example"], "match": [{"path": {"prefix": "/a"}}], "policies": ["p"], "upstream": "u"}),
            ),
        ],
    );
    assert_eq!(check(&config, &good), []);
    config.apply(&good);
    config
}

/// An upstream with one target and these fields.
fn with(fields: Value) -> Value {
    let mut upstream = json!({"targets": [{"address": "a:1"}]});
    upstream.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    upstream
}

#[test]
fn an_upstream_is_checked() {
    let http2 = |http2: Value| with(json!({"protocol": "http2", "http2": http2}));
    let cases = [
        (json!({"targets": []}), "upstreams.x.targets"),
        (json!({"targets": [{"address": "nowhere"}]}), "upstreams.x.targets[0].address"),
        (json!({"targets": [{"address": "a:0"}]}), "upstreams.x.targets[0].address"),
        (json!({"targets": [{"address": "a:1", "weight": 0}]}), "upstreams.x.targets"),
        (json!({"targets": [{"address": "a:1"}, {"address": "a:1"}]}), "upstreams.x.targets[1].address"),
        (json!({"targets": [{"address": "a:1"}], "retry": {"attempts": 11}}), "upstreams.x.retry.attempts"),
        (
            json!({"targets": [{"address": "a:1"}], "timeout": {"connect": "0ms"}}),
            "upstreams.x.timeout.connect",
        ),
        (
            json!({"targets": [{"address": "a:1"}], "timeout": {"response": "2h"}}),
            "upstreams.x.timeout.response",
        ),
        (with(json!({"timeout": {"idle": "25h"}})), "upstreams.x.timeout.idle"),
        (with(json!({"timeout": {"attempt": "2h"}})), "upstreams.x.timeout.attempt"),
        (with(json!({"retry": {"methods": ["post"]}})), "upstreams.x.retry.methods[0]"),
        (with(json!({"retry": {"budget": {"percent": 101}}})), "upstreams.x.retry.budget.percent"),
        (with(json!({"retry": {"backoff": {"base": "1s"}}})), "upstreams.x.retry.backoff.base"),
        (with(json!({"retry": {"body_bytes_max": 2_000_000}})), "upstreams.x.retry.body_bytes_max"),
        (with(json!({"hedge": {"after": "0ms"}})), "upstreams.x.hedge.after"),
        (with(json!({"hedge": {"after": "15s"}})), "upstreams.x.hedge.after"),
        (with(json!({"hedge": {"after": "2s"}, "timeout": {"attempt": "1s"}})), "upstreams.x.hedge.after"),
        (with(json!({"hedge": {"after": "p49"}})), "upstreams.x.hedge.after"),
        (with(json!({"hedge": {"after": "p100"}})), "upstreams.x.hedge.after"),
        (with(json!({"hedge": {"after": "soon"}})), "upstreams.x"),
        (with(json!({"hedge": {"after": "p95", "floor": "2m"}})), "upstreams.x.hedge.floor"),
        (with(json!({"hedge": {"after": "1s", "max": 5}})), "upstreams.x.hedge.max"),
        (with(json!({"hedge": {"after": "1s"}, "retry": {"attempts": 0}})), "upstreams.x.hedge.max"),
        (with(json!({"limits": {"connections": 1_000_001}})), "upstreams.x.limits.connections"),
        (with(json!({"http2": {}})), "upstreams.x.http2"),
        (with(json!({"protocol": "auto", "http2": {}})), "upstreams.x.http2"),
        (http2(json!({"streams_max": 0})), "upstreams.x.http2.streams_max"),
        (http2(json!({"streams_max": 1_025})), "upstreams.x.http2.streams_max"),
        (http2(json!({"stream_window": "8KiB"})), "upstreams.x.http2.stream_window"),
        (http2(json!({"stream_window": "16MiB"})), "upstreams.x.http2.stream_window"),
        (http2(json!({"frame_max": "16383B"})), "upstreams.x.http2.frame_max"),
        (http2(json!({"frame_max": "2MiB"})), "upstreams.x.http2.frame_max"),
        (http2(json!({"ping_interval": "500ms"})), "upstreams.x.http2.ping_interval"),
        (http2(json!({"ping_timeout": "0s"})), "upstreams.x.http2.ping_timeout"),
        (
            with(json!({"health": {"passive": {"max_ejected": 101}}})),
            "upstreams.x.health.passive.max_ejected",
        ),
        (
            with(json!({"health": {"passive": {"rate": {"requests": 0}}}})),
            "upstreams.x.health.passive.rate.requests",
        ),
        (with(json!({"health": {"active": {}}})), "upstreams.x.health.active"),
        (
            with(json!({"health": {"active": {"tcp": {}, "checkers": 65}}})),
            "upstreams.x.health.active.checkers",
        ),
        (with(json!({"health": {"active": {"http": {}, "tcp": {}}}})), "upstreams.x.health.active"),
        (
            with(json!({"health": {"active": {"tcp": {}, "timeout": "9s"}}})),
            "upstreams.x.health.active.timeout",
        ),
        (with(json!({"health": {"active": {"http": {"path": "x"}}}})), "upstreams.x.health.active.http.path"),
        (with(json!({"health": {"active": {"grpc": {}}}})), "upstreams.x.health.active.grpc"),
        (json!({"targets": 7}), "upstreams.x"),
        (
            json!({"targets": [{"address": "a:1"}], "balance": {"maglev": {"by": {"header": "a b"}}}}),
            "upstreams.x.balance.maglev.by.header",
        ),
        (
            json!({"targets": [{"address": "a:1"}], "balance": {"maglev": {"by": {"cookie": "a=b"}}}}),
            "upstreams.x.balance.maglev.by.cookie",
        ),
        (
            json!({"targets": [{"address": "a:1"}], "balance": {"maglev": {"by": {"query": ""}}}}),
            "upstreams.x.balance.maglev.by.query",
        ),
        (json!({"targets": [{"address": "a:1"}], "balance": "magic"}), "upstreams.x"),
        (json!({"targets": [{"address": "a:1"}], "sticky": {"cookie": "a;b"}}), "upstreams.x.sticky.cookie"),
        (
            json!({"targets": [{"address": "a:1"}], "sticky": {"cookie": "a", "ttl": "401d"}}),
            "upstreams.x.sticky.ttl",
        ),
        (
            json!({"targets": [{"address": "a:1"}], "sticky": {"cookie": "a", "path": "/;"}}),
            "upstreams.x.sticky.path",
        ),
        (
            json!({"targets": [{"address": "a:1"}], "sticky": {"cookie": "a", "same_site": "none"}}),
            "upstreams.x.sticky.same_site",
        ),
        (json!({"targets": [{"address": "a:1"}], "slow_start": "2h"}), "upstreams.x.slow_start"),
        (json!({"targets": [{"address": "a:1"}], "panic_percent": 101}), "upstreams.x.panic_percent"),
        (json!({"targets": [{"address": "a:1", "priority": 128}]}), "upstreams.x.targets[0].priority"),
        (json!({"targets": [{"address": "a:1", "zone": ""}]}), "upstreams.x.targets[0].zone"),
        (json!({"targets": [{"address": "a:1"}], "tls": {"sni": "10.0.0.1"}}), "upstreams.x.tls.sni"),
        (json!({"targets": [{"address": "a:1"}], "tls": {"sni": "A.example"}}), "upstreams.x.tls.sni"),
        (
            json!({"targets": [{"address": "a:1"}], "tls": {"sni": "a", "sni_from": "host"}}),
            "upstreams.x.tls.sni_from",
        ),
        (json!({"targets": [{"address": "a:1"}], "tls": {"name": "a:1"}}), "upstreams.x.tls.name"),
        (
            json!({"targets": [{"address": "a:1"}], "tls": {"verify": false, "name": "a"}}),
            "upstreams.x.tls.name",
        ),
        (json!({"targets": [{"address": "a:1"}], "tls": {"min_version": "1.1"}}), "upstreams.x"),
        (
            json!({"targets": [{"address": "a:1"}], "tls": {"certificate": "gone"}}),
            "upstreams.x.tls.certificate",
        ),
    ];
    for (value, path) in cases {
        assert_eq!(wrong(vec![put(Kind::Upstream, "x", &value)]), [path], "{value}");
    }
    for address in ["10.0.0.1:80", "[::1]:80", "some-host.example:65535"] {
        assert!(
            wrong(vec![put(Kind::Upstream, "x", &json!({"targets": [{"address": address}]}))]).is_empty(),
            "{address}"
        );
    }
}

#[test]
fn a_route_is_checked() {
    let cases = [
        (json!({}), "routes.x"),
        (json!({"upstream": "u", "respond": {"status": 200}}), "routes.x"),
        (json!({"upstream": "v"}), "routes.x.upstream"),
        (json!({"upstream": "u", "policies": ["q"]}), "routes.x.policies[0]"),
        (json!({"upstreams": [{"upstream": "u", "weight": 0}]}), "routes.x.upstreams"),
        (json!({"upstream": "u", "mirror": [{"upstream": "v"}]}), "routes.x.mirror[0].upstream"),
        (json!({"upstream": "u", "mirror": [{"upstream": "u", "percent": 0}]}), "routes.x.mirror[0].percent"),
        (json!({"redirect": {"host": "a"}, "mirror": [{"upstream": "u"}]}), "routes.x.mirror"),
        (json!({"upstream": "u", "timeout": {"request": "25h"}}), "routes.x.timeout.request"),
        (json!({"upstream": "u", "hosts": ["A.example"]}), "routes.x.hosts[0]"),
        (json!({"upstream": "u", "hosts": ["a.example:80"]}), "routes.x.hosts[0]"),
        (json!({"upstream": "u", "hosts": ["a.*.example"]}), "routes.x.hosts[0]"),
        (json!({"upstream": "u", "match": [{"path": {"prefix": "a"}}]}), "routes.x.match[0].path.prefix"),
        (json!({"upstream": "u", "match": [{"path": {"exact": "/a/../b"}}]}), "routes.x.match[0].path.exact"),
        (json!({"upstream": "u", "match": [{"path": {"regex": "("}}]}), "routes.x.match[0].path.regex"),
        (
            json!({"upstream": "u", "match": [{"path": {"template": "/a/{id"}}]}),
            "routes.x.match[0].path.template",
        ),
        (
            json!({"upstream": "u", "match": [{"path": {"template": "/{a...}/b"}}]}),
            "routes.x.match[0].path.template",
        ),
        (json!({"upstream": "u", "match": [{"methods": ["get"]}]}), "routes.x.match[0].methods[0]"),
        (
            json!({"upstream": "u", "match": [{"headers": {"a b": {"exact": "1"}}}]}),
            "routes.x.match[0].headers.a b",
        ),
        (
            json!({"upstream": "u", "request": {"headers": {"set": {"host": "b"}}}}),
            "routes.x.request.headers.set.host",
        ),
        (
            json!({"upstream": "u", "response": {"headers": {"remove": ["content-length"]}}}),
            "routes.x.response.headers.remove[0]",
        ),
        (
            json!({"upstream": "u", "match": [{"path": {"exact": "/e"}}], "request": {"path": {"prefix": "/b"}}}),
            "routes.x.request.path.prefix",
        ),
        (json!({"redirect": {"status": 200, "scheme": "https"}}), "routes.x.redirect.status"),
        (json!({"redirect": {}}), "routes.x.redirect"),
        (json!({"respond": {"status": 99}}), "routes.x.respond.status"),
        (json!({"respond": {"status": 204, "body": "x"}}), "routes.x.respond.body"),
    ];
    for (value, path) in cases {
        assert_eq!(wrong(vec![put(Kind::Route, "x", &value)]), [path], "{value}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let upstream = put(Kind::Upstream, "x", &json!({"targets": []}));
    let route = put(Kind::Route, "x", &json!({"hosts": ["B"], "upstream": "gone", "policies": ["none"]}));
    assert_eq!(wrong(vec![upstream, route]).len(), 4);
}

#[test]
fn what_is_used_is_not_deleted_unless_its_user_goes_too() {
    let delete = |kind, name| Op::Delete { kind, name: Name::new(name).unwrap() };
    assert_eq!(wrong(vec![delete(Kind::Upstream, "u")]), ["upstreams.u"]);
    assert_eq!(wrong(vec![delete(Kind::Policy, "p")]), ["policies.p"]);
    assert_eq!(wrong(vec![delete(Kind::Group, "g")]), ["groups.g"]);
    assert!(wrong(vec![delete(Kind::Upstream, "u"), delete(Kind::Route, "r")]).is_empty());
    assert!(wrong(vec![delete(Kind::Consumer, "c")]).is_empty());
}

#[test]
fn two_routes_do_not_take_the_same_requests() {
    let route = |path: &str| json!({"hosts": ["a.example", "b.example"], "match": [{"path": {"prefix": path}}], "upstream": "u"});
    assert_eq!(wrong(vec![put(Kind::Route, "x", &route("/a/"))]), ["routes.x.match"]);
    assert!(wrong(vec![put(Kind::Route, "x", &route("/b"))]).is_empty());
    assert_eq!(
        wrong(vec![put(Kind::Route, "x", &route("/b")), put(Kind::Route, "y", &route("/b"))]).len(),
        2
    );
    // A change of the route itself is none.
    assert!(
        wrong(vec![put(
            Kind::Route,
            "r",
            &json!({"hosts": ["a.example"], "match": [{"path": {"prefix": "/a"}}], "upstream": "u"})
        )])
        .is_empty()
    );
}

fn any_op() -> impl Strategy<Value = Op> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")].prop_map(|name| Name::new(name).unwrap());
    let doc = prop_oneof![
        Just(r#"{"targets":[]}"#),
        Just("{}"),
        Just("[]"),
        Just(r#"{"upstream":"a"}"#),
        Just("?")
    ];
    (0..Kind::ALL.len(), name, prop::option::of(doc)).prop_map(|(kind, name, doc)| match doc {
        Some(doc) => Op::Put { kind: Kind::ALL[kind], name, doc: Arc::from(doc.as_bytes()) },
        None => Op::Delete { kind: Kind::ALL[kind], name },
    })
}

proptest! {
    /// Applying is total, the same each time, dense in its revisions, and does nothing on a conflict.
    #[test]
    fn apply_is_total_and_deterministic(changes in prop::collection::vec(prop::collection::vec(any_op(), 0..6), 0..12)) {
        let (mut one, mut other) = (Config::default(), Config::default());
        for ops in changes {
            let before = one.clone();
            let stale = Change { base: Revision(before.revision.0 + 1), ops: ops.clone() };
            prop_assert_eq!(one.apply(&stale), crate::Outcome::Conflict(before.revision));
            prop_assert_eq!(&one, &before);
            let change = Change { base: one.revision, ops };
            let _ = check(&one, &change);
            let outcome = one.apply(&change);
            prop_assert_eq!(outcome, other.apply(&change));
            prop_assert_eq!(&one, &other);
            match outcome {
                crate::Outcome::Applied(revision) => prop_assert_eq!(revision, before.revision.next()),
                crate::Outcome::Unchanged(revision) => {
                    prop_assert_eq!(revision, before.revision);
                    prop_assert_eq!(&one, &before);
                }
                crate::Outcome::Conflict(_) => prop_assert!(false),
            }
        }
    }
}

#[test]
fn a_claim_ends_with_what_made_it() {
    let route = |path: &str| json!({"match": [{"path": {"prefix": path}}], "upstream": "u"});
    let mut config = small();
    let overlaps = |config: &Config| {
        let new = change(config, vec![put(Kind::Route, "new", &route("/one/"))]);
        check(config, &new).into_iter().map(|violation| violation.path).collect::<Vec<_>>()
    };
    config.apply(&change(&config, vec![put(Kind::Route, "old", &route("/one"))]));
    assert_eq!(overlaps(&config), ["routes.new.match"]);
    config.apply(&change(&config, vec![put(Kind::Route, "old", &route("/two"))]));
    assert_eq!(overlaps(&config), [""; 0]);
    config.apply(&change(&config, vec![put(Kind::Route, "old", &route("/one"))]));
    let gone = Op::Delete { kind: Kind::Route, name: Name::new("old").unwrap() };
    config.apply(&change(&config, vec![gone]));
    assert_eq!(overlaps(&config), [""; 0]);
    let fresh = small();
    assert_eq!((config.routes, config.claims), (fresh.routes, fresh.claims));
}

#[test]
fn a_tcp_route_says_what_it_takes_and_where_that_goes() {
    let tcp = |spec: serde_json::Value| wrong(vec![put(Kind::TcpRoute, "t", &spec)]);
    for good in [
        json!({"hosts": ["db.example", "*.db.example"], "upstream": "u"}),
        json!({"listeners": ["postgres"], "upstreams": [{"upstream": "u"}, {"upstream": "u", "weight": 0}]}),
        json!({"listeners": ["proxy-tls"], "upstream": "u", "idle_timeout": "0s", "connections_max": 10}),
    ] {
        assert!(tcp(good.clone()).is_empty(), "{good}");
    }
    for (bad, paths) in [
        (json!({"upstream": "u"}), &["tcp_routes.t"][..]),
        (json!({"hosts": ["a.example"]}), &["tcp_routes.t"]),
        (json!({"hosts": ["a.example"], "upstream": "nope"}), &["tcp_routes.t.upstream"]),
        (
            json!({"hosts": ["A.example", "192.0.2.1", "a.*"], "upstream": "u"}),
            &["tcp_routes.t.hosts[0]", "tcp_routes.t.hosts[1]", "tcp_routes.t.hosts[2]"],
        ),
        (
            json!({"listeners": ["a", "a"], "upstream": "u", "upstreams": [{"upstream": "u"}]}),
            &["tcp_routes.t.listeners[1]", "tcp_routes.t"],
        ),
        (json!({"hosts": ["a.b"], "upstream": "u", "idle_timeout": "2d"}), &["tcp_routes.t.idle_timeout"]),
    ] {
        assert_eq!(tcp(bad.clone()), paths, "{bad}");
    }
}

#[test]
fn two_tcp_routes_do_not_take_the_same_connections() {
    let tcp =
        |listener: &str, hosts: &[&str]| json!({"listeners": [listener], "hosts": hosts, "upstream": "u"});
    let mut config = small();
    let first = json!({"hosts": ["a.example", "*.example"], "upstream": "u"});
    config.apply(&change(&config, vec![put(Kind::TcpRoute, "first", &first)]));
    let overlaps = |config: &Config, listener: &str, hosts: &[&str]| {
        let new = change(config, vec![put(Kind::TcpRoute, "new", &tcp(listener, hosts))]);
        check(config, &new).into_iter().map(|violation| violation.path).collect::<Vec<_>>()
    };
    assert_eq!(overlaps(&config, "proxy-tls", &["a.example"]), ["tcp_routes.new.hosts"]);
    assert_eq!(overlaps(&config, "proxy-tls", &["b.example"]), [""; 0]);
    assert_eq!(overlaps(&config, "postgres", &["a.example"]), [""; 0]);
    assert_eq!(overlaps(&config, "proxy-tls", &[]), [""; 0]);
    let gone = Op::Delete { kind: Kind::TcpRoute, name: Name::new("first").unwrap() };
    config.apply(&change(&config, vec![gone]));
    assert_eq!(overlaps(&config, "proxy-tls", &["a.example"]), [""; 0]);
    assert_eq!(config.tcp_claims, small().tcp_claims);
}

#[test]
fn the_bytes_of_a_tcp_route_go_into_no_second_tls() {
    let tls = json!({"targets": [{"address": "a:1"}], "tls": {}});
    let plain = json!({"targets": [{"address": "a:1"}]});
    let route = json!({"hosts": ["a.example"], "upstream": "x"});
    let both = |upstream| vec![put(Kind::Upstream, "x", upstream), put(Kind::TcpRoute, "t", &route)];
    assert!(wrong(both(&plain)).is_empty());
    assert_eq!(wrong(both(&tls)), ["upstreams.x.tls", "tcp_routes.t.upstream"]);
    let mut config = small();
    config.apply(&change(&config, both(&plain)));
    let later = check(&config, &change(&config, vec![put(Kind::Upstream, "x", &tls)]));
    assert_eq!(later.iter().map(|violation| &*violation.path).collect::<Vec<_>>(), ["upstreams.x.tls"]);
    let gone = Op::Delete { kind: Kind::Upstream, name: Name::new("x").unwrap() };
    let used = check(&config, &change(&config, vec![gone]));
    assert_eq!(used[0].path, "upstreams.x");
}
