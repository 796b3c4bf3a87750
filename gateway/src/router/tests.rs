//! The router beside an oracle that tries every route, and the precedence of the Gateway API.

use http::{HeaderMap, HeaderValue, Method};
use model::{
    Config, Entry, Kind, Name, Revision, Route,
    config::Stored,
    route::{Match, PathMatch, ValueMatch},
};
use proptest::prelude::*;

use super::*;
use crate::plan::Plan;

fn put(config: &mut Config, name: &str, created: u64, doc: &str) {
    let stored =
        Stored { created: Revision(created), changed: Revision(created), doc: doc.as_bytes().into() };
    config.insert(Kind::Route, Name::new(name).unwrap(), stored);
}

fn plan(routes: &[(&str, &str)]) -> Plan {
    let mut config = Config::default();
    for (created, (name, spec)) in (1..).zip(routes) {
        put(&mut config, name, created, &format!(r#"{{{spec},"respond":{{"status":200}}}}"#));
    }
    Plan::empty().install(&config).unwrap()
}

fn taken(plan: &Plan, method: &str, host: &str, path: &str, headers: &[&'static str]) -> Option<String> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut map = HeaderMap::new();
    for name in headers {
        map.insert(*name, HeaderValue::from_static("1"));
    }
    let head = Head { method: &method, host, path, query: Some("q=1"), headers: &map };
    plan.route(&head).map(|matched| matched.route.name.to_string())
}

#[test]
fn the_more_specific_goes_first() {
    // Each route outranks the next, and is created after it but for the last two.
    let h = r#""hosts":["h"]"#;
    let rows = [
        ("any", r#""hosts":[]"#.to_owned()),
        ("wild", r#""hosts":["*.h"]"#.to_owned()),
        ("longer-wild", r#""hosts":["*.b.h"]"#.to_owned()),
        ("regex", format!(r#"{h},"match":[{{"path":{{"regex":"/a/.*"}}}}]"#)),
        ("root", format!(r#"{h},"match":[{{"path":{{"regex":"/a/.*|/nope"}},"methods":["PUT"]}}]"#)),
        ("short", format!(r#"{h},"match":[{{"path":{{"prefix":"/a"}}}}]"#)),
        ("long", format!(r#"{h},"match":[{{"path":{{"prefix":"/a/b/"}}}}]"#)),
        ("query", format!(r#"{h},"match":[{{"path":{{"prefix":"/a/b"}},"query":{{"q":{{"exact":"1"}}}}}}]"#)),
        (
            "header",
            format!(r#"{h},"match":[{{"path":{{"prefix":"/a/b"}},"headers":{{"x":{{"exact":"1"}}}}}}]"#),
        ),
        ("method", format!(r#"{h},"match":[{{"path":{{"prefix":"/a/b"}},"methods":["POST"]}}]"#)),
        ("template", format!(r#"{h},"match":[{{"path":{{"template":"/a/{{x}}/c"}}}}]"#)),
        ("exact", format!(r#"{h},"match":[{{"path":{{"exact":"/a/b/c/d"}}}}]"#)),
    ];
    let routes: Vec<(&str, &str)> = rows.iter().map(|(name, spec)| (*name, &**spec)).collect();
    let plan = plan(&routes);
    for (method, host, path, headers, route) in [
        ("GET", "h", "/a/b/c/d", &["x"][..], "exact"),
        ("POST", "h", "/a/b/c", &["x"], "template"),
        ("POST", "h", "/a/b/x", &["x"], "method"),
        ("GET", "h", "/a/b/x", &["x"], "header"),
        ("GET", "h", "/a/b/x", &[], "query"),
        ("GET", "h", "/a/bc", &[], "short"),
        ("PUT", "h", "/nope", &[], "root"),
        ("GET", "h", "/nope", &[], "any"),
        ("GET", "h", "/ab", &[], "any"),
        ("GET", "x.h", "/", &[], "wild"),
        ("GET", "y.x.h", "/", &[], "wild"),
        ("GET", "x.b.h", "/", &[], "longer-wild"),
        ("GET", "b.h", "/", &[], "wild"),
        ("GET", ".h", "/", &[], "any"),
        ("GET", "xh", "/", &[], "any"),
    ] {
        assert_eq!(
            taken(&plan, method, host, path, headers).as_deref(),
            Some(route),
            "{method} {host} {path}"
        );
    }
}

#[test]
fn ties_go_to_the_older_route_then_to_the_name() {
    let mut config = Config::default();
    let doc = r#"{"respond":{"status":200}}"#;
    put(&mut config, "b", 5, doc);
    put(&mut config, "c", 5, doc);
    put(&mut config, "a", 6, doc);
    let plan = Plan::empty().install(&config).unwrap();
    assert_eq!(taken(&plan, "GET", "h", "/", &[]).as_deref(), Some("b"));
}

#[test]
fn a_host_is_read_from_an_authority() {
    for empty_label in [".", ".example", ".b.example:80", "a..example", "a.."] {
        assert_eq!(host(empty_label), None, "{empty_label}");
    }
    for (authority, want) in [
        ("Api.Example:8080", Some("api.example")),
        ("api.example.", Some("api.example")),
        ("[::1]:80", Some("[::1]")),
        ("10.0.0.1", Some("10.0.0.1")),
        ("h:", Some("h")),
        ("", None),
        (":80", None),
        ("h:x", None),
        ("h:+80", None),
        ("h:70000", None),
        ("a b", None),
        ("a/b", None),
        ("user@h", None),
        ("[::1", None),
        ("[x]", None),
        ("[::1]x", None),
    ] {
        assert_eq!(host(authority).as_deref(), want, "{authority}");
    }
}

/// The oracle: every route against the model's own words, one after another.
fn naive(config: &Config, head: &Head<'_>) -> Option<String> {
    let mut best: Option<(Vec<i64>, u64, String, usize)> = None;
    for (name, Entry { created, spec, .. }) in &config.routes {
        let any = vec![String::new()];
        for host in if spec.hosts.is_empty() { &any } else { &spec.hosts } {
            let rank = match host.strip_prefix('*') {
                _ if host.is_empty() => 0,
                Some(suffix) if head.host.ends_with(suffix) && head.host.len() > suffix.len() => {
                    i64::try_from(suffix.len()).unwrap()
                }
                None if *host == head.host => 1000,
                _ => continue,
            };
            let default = vec![Match::default()];
            let matches = if spec.matches.is_empty() { &default } else { &spec.matches };
            for (index, one) in matches.iter().enumerate() {
                let Some(path) = naive_path(one.path.as_ref(), head.path) else { continue };
                let methods =
                    one.methods.is_empty() || one.methods.iter().any(|m| *m == head.method.as_str());
                let headers = one.headers.iter().all(|(name, value)| match value {
                    ValueMatch::Exact(want) => head.headers.get(name).is_some_and(|have| have == &**want),
                    ValueMatch::Present(want) => head.headers.contains_key(name) == *want,
                    ValueMatch::Regex(_) => unreachable!(),
                });
                if !methods || !headers {
                    continue;
                }
                let mut order: Vec<i64> = vec![-rank];
                order.extend(path);
                order.extend([i64::from(one.methods.is_empty()), -i64::try_from(one.headers.len()).unwrap()]);
                let this = (order, created.0, name.to_string(), index);
                if best.as_ref().is_none_or(|best| this < *best) {
                    best = Some(this);
                }
            }
        }
    }
    best.map(|(_, _, name, _)| name)
}

/// What a path match counts for, of a fixed length; lower goes first.
fn naive_path(spec: Option<&PathMatch>, path: &str) -> Option<[i64; 6]> {
    let len = |text: &str| -i64::try_from(text.trim_end_matches('/').len()).unwrap();
    match spec {
        None => Some([2, 0, 0, 0, 0, 0]),
        Some(PathMatch::Exact(want)) => (want == path).then_some([0; 6]),
        Some(PathMatch::Prefix(want)) => {
            let want = want.trim_end_matches('/');
            let takes = path == want || path.starts_with(&format!("{want}/"));
            takes.then_some([2, len(want), 0, 0, 0, 0])
        }
        Some(PathMatch::Regex(_)) => unreachable!(),
        Some(PathMatch::Template(template)) => {
            let (want, have): (Vec<&str>, Vec<&str>) =
                (template.split('/').collect(), path.split('/').collect());
            let mut order = [1, 0, 0, 0, 0, 0];
            for (place, want) in want.iter().enumerate() {
                let have = have.get(place)?;
                order[place + 1] = if want.ends_with("...}") {
                    return Some({
                        order[place + 1] = 3;
                        order
                    });
                } else if want.starts_with('{') {
                    if have.is_empty() {
                        return None;
                    }
                    2
                } else if want == have {
                    1
                } else {
                    return None;
                };
            }
            (want.len() == have.len()).then_some(order)
        }
    }
}

fn path_match() -> impl Strategy<Value = Option<PathMatch>> {
    prop_oneof![
        Just(None),
        "(/[ab]){1,3}/?".prop_map(|text| Some(PathMatch::Exact(text))),
        "(/[ab]){1,3}/?".prop_map(|text| Some(PathMatch::Prefix(text))),
        (prop::collection::vec(0..4u8, 1..4), any::<bool>()).prop_map(|(kinds, rest)| {
            let mut text = String::new();
            for (place, kind) in kinds.iter().enumerate() {
                text.push_str(&match kind {
                    0 => "/a".to_owned(),
                    1 => "/b".to_owned(),
                    _ => format!("/{{x{place}}}"),
                });
            }
            if rest {
                text.push_str("/{rest...}");
            }
            Some(PathMatch::Template(text))
        }),
    ]
}

fn route() -> impl Strategy<Value = Route> {
    let hosts = prop::collection::btree_set(prop::sample::select(vec!["h", "x.h", "*.h", "*.x.h"]), 0..3);
    let one = (path_match(), any::<bool>(), 0..4u8).prop_map(|(path, method, headers)| Match {
        path,
        methods: if method { vec!["GET".to_owned()] } else { Vec::new() },
        headers: match headers {
            0 => [("x".to_owned(), ValueMatch::Exact("1".to_owned()))].into(),
            1 => [("x".to_owned(), ValueMatch::Present(true)), ("y".to_owned(), ValueMatch::Present(false))]
                .into(),
            _ => Default::default(),
        },
        query: Default::default(),
    });
    (hosts, prop::collection::vec(one, 0..3)).prop_map(|(hosts, matches)| Route {
        hosts: hosts.into_iter().map(str::to_owned).collect(),
        matches,
        respond: Some(Box::new(model::route::Respond { status: 200, ..Default::default() })),
        ..Route::default()
    })
}

proptest! {
    #[test]
    fn as_if_every_route_were_tried(
        changes in prop::collection::vec((0..8u8, 1..4u64, prop::option::weighted(0.8, route())), 1..20),
        asked in prop::collection::vec(
            (any::<bool>(), prop::sample::select(vec!["h", "x.h", "y.h", "z.x.h", "k"]), "/|(/[abc]){1,4}/?", 0..3u8),
            1..20,
        ),
    ) {
        let mut config = Config::default();
        let mut grown = Plan::empty();
        for (name, created, route) in changes {
            let name = format!("r{name}");
            match route {
                Some(route) => put(&mut config, &name, created, &serde_json::to_string(&route).unwrap()),
                None => {
                    config.remove(Kind::Route, &Name::new(&name).unwrap());
                }
            }
            config.revision = config.revision.next();
            grown = grown.install(&config).unwrap();
        }
        let whole = Plan::empty().install(&config).unwrap();
        prop_assert_eq!(grown.router.buckets.len(), whole.router.buckets.len());
        prop_assert_eq!(grown.router.hosts.len(), whole.router.hosts.len());
        for (get, host, path, headers) in asked {
            let mut map = HeaderMap::new();
            for name in ["x", "y"].into_iter().take(headers.into()) {
                map.insert(name, HeaderValue::from_static("1"));
            }
            let method = if get { Method::GET } else { Method::POST };
            let head = Head { method: &method, host, path: &path, query: None, headers: &map };
            let want = naive(&config, &head);
            let name = |plan: &Plan| plan.route(&head).map(|matched| matched.route.name.to_string());
            prop_assert_eq!(&name(&whole), &want, "whole {} {}", host, path);
            prop_assert_eq!(&name(&grown), &want, "grown {} {}", host, path);
        }
    }
}
