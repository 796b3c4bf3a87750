//! Prints what 100,000 routes and keys cost: to compile, to check and make one change, and to find one among.
//! Build with --release.

use std::{fmt::Write as _, hint::black_box, time::Instant};

use gateway::plan::{Head, Plan};
use http::{HeaderMap, Method};
use model::{Change, Config, Kind, Name, Op, Revision, config::Stored};

const ROUTES: u64 = 100_000;
const LOOKUPS: u32 = 1_000_000;

fn put(config: &mut Config, kind: Kind, name: &str, doc: &str) -> Result<(), model::id::BadName> {
    config.revision = config.revision.next();
    let stored = Stored { created: Revision(1), changed: config.revision, doc: doc.as_bytes().into() };
    config.insert(kind, Name::new(name)?, stored);
    Ok(())
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn route(number: u64, status: u16) -> String {
    let (host, path) = (number % 100, number / 100);
    format!(
        r#"{{"hosts":["h{host}.example"],"match":[{{"path":{{"prefix":"/api/v{}/r{path}"}}}}],"respond":{{"status":{status}}}}}"#,
        path % 10
    )
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let begin = memory_kib();
    let mut config = Config::default();
    put(&mut config, Kind::Consumer, "acme", "{}")?;
    for number in 0..ROUTES {
        put(&mut config, Kind::Route, &format!("r{number}"), &route(number, 200))?;
        let doc = format!(r#"{{"consumer":"acme","digest":"{number:064x}","hint":"abcd","issued_at_s":1}}"#);
        put(&mut config, Kind::Key, &format!("k{number}"), &doc)?;
    }
    let read = memory_kib();
    println!("config: {} MiB", (read - begin) / 1024);

    let start = Instant::now();
    let plan = Plan::empty().install(&config)?;
    println!("compile all: {:?}, {} MiB", start.elapsed(), memory_kib().saturating_sub(read) / 1024);

    let put_one =
        Op::Put { kind: Kind::Route, name: Name::new("new")?, doc: route(ROUTES, 200).as_bytes().into() };
    let change = Change { base: config.revision, ops: vec![put_one] };
    let start = Instant::now();
    let violations = model::check::check(&config, &change).len() + gateway::check(&config, &change).len();
    println!("check one change: {:?}, {violations} violations", start.elapsed());

    put(&mut config, Kind::Route, "r777", &route(777, 404))?;
    let start = Instant::now();
    let next = plan.install(&config)?;
    println!("install one change: {:?}", start.elapsed());

    let headers = HeaderMap::new();
    let (mut host, mut path) = (String::new(), String::new());
    let (mut found, mut number) = (0u32, 1u64);
    let start = Instant::now();
    for _ in 0..LOOKUPS {
        number = (number * 48_271) % 2_147_483_647;
        let (h, p) = (number % 100, number / 100 % (ROUTES / 100));
        host.clear();
        path.clear();
        write!(host, "h{h}.example")?;
        write!(path, "/api/v{}/r{p}/x/y", p % 10)?;
        let head = Head { method: &Method::GET, host: &host, path: &path, query: None, headers: &headers };
        found += u32::from(black_box(next.route(&head)).is_some());
    }
    println!(
        "look up: {:?} each, found {found} of {LOOKUPS}, two texts made included",
        start.elapsed() / LOOKUPS
    );
    Ok(())
}
