//! What the benches share: configs made into Plans, and a request as a browser sends it.

use gateway::plan::Plan;
use http::{HeaderMap, HeaderName, HeaderValue};
use model::{Config, Kind, Name, Revision, config::Stored};
use serde_json::{Value, json};

/// A request's header lines as a browser sends them.
pub const LINES: [(&str, &str); 14] = [
    ("host", "api.shop.example"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("referer", "https://api.shop.example/orders/"),
    ("connection", "keep-alive"),
    ("cookie", "session=8f14e45fceea167a5a36dedd4bea2543; theme=dark; consent=1"),
    ("upgrade-insecure-requests", "1"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("priority", "u=0, i"),
    ("x-trace", "4bf92f3577b34da6a3ce929d0e0e4736"),
];

/// [`LINES`] as the gateway keeps them.
pub fn headers() -> HeaderMap {
    let line = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    LINES.iter().map(line).collect()
}

/// A Plan of these objects.
pub fn plan<'a>(objects: impl IntoIterator<Item = (Kind, &'a str, Value)>) -> Plan {
    let mut config = Config::default();
    for (kind, name, spec) in objects {
        config.revision = config.revision.next();
        let doc = model::document::canonical(&spec);
        let stored = Stored { created: config.revision, changed: config.revision, doc };
        config.insert(kind, name.parse::<Name>().expect("a name"), stored);
    }
    assert!(config.revision > Revision(0));
    Plan::empty().install(&config).expect("a config that compiles")
}

/// A Plan of so many routes: on a tenth as many hosts each has some of exact paths, prefixes, templates, methods and headers.
pub fn routes(count: usize) -> Plan {
    let names: Vec<String> = (0..count).map(|at| format!("r{at}")).collect();
    let spec = |at: usize| {
        let path = match at % 10 {
            0 => json!({"prefix": "/"}),
            1..5 => json!({"prefix": format!("/service-{at}/v1")}),
            5..8 => json!({"exact": format!("/service-{at}/v1/status")}),
            _ => json!({"template": format!("/service-{at}/items/{{id}}")}),
        };
        let mut matched = json!({"path": path});
        if at.is_multiple_of(7) {
            matched["methods"] = json!(["GET", "POST"]);
        }
        json!({"hosts": [host(at / 10)], "match": [matched], "respond": {"status": 200}})
    };
    plan(names.iter().enumerate().map(|(at, name)| (Kind::Route, &**name, spec(at))))
}

/// The host of this number.
pub fn host(number: usize) -> String {
    format!("host-{number}.example")
}
