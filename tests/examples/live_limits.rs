//! What three real nodes make of a rate limit: processes, sockets and the machine's clock, where `limits` simulates.
//!
//! `PHALANX_GWNODE=target/release/gwnode cargo run --release -p tests --example live_limits`

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use phalanx_tests::{Cluster, dice::Dice, until};
use serde_json::json;

/// Clients of each node.
const CLIENTS: usize = 4;
/// How long clients ask before it counts, and how many windows count.
const WARM_UP_WINDOWS: u64 = 3;
const WINDOWS: u64 = 20;
const BURSTS: usize = 10;

fn now_us() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(passed.as_micros()).expect("it is before the year 500,000")
}

/// Has everything be limited to so many requests in a second.
fn limit(cluster: &Cluster, requests: u32) {
    let document = json!({
        "version": 1,
        "policies": {"all": {"type": "rate-limit", "limit": {"requests": requests, "per": "1s"}}},
        "routes": {"all": {"policies": ["all"], "respond": {"status": 200}}},
    });
    cluster.admin(0).must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
}

/// One client's connection.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(proxy: SocketAddr) -> Self {
        let stream = TcpStream::connect(proxy).expect("the node listens");
        stream.set_nodelay(true).expect("it is a socket");
        Self(BufReader::new(stream))
    }

    fn send(&mut self, requests: usize) {
        let text = "GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(requests);
        self.0.get_mut().write_all(text.as_bytes()).expect("the node reads");
    }

    /// The status of the next answer.
    fn answer(&mut self) -> u16 {
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line).expect("the node answers");
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            }
            if let Some(number) = text.strip_prefix("http/1.1 ") {
                status = number[..3].parse().expect("a status");
            }
            if let Some(number) = text.strip_prefix("content-length: ") {
                length = number.parse().expect("a length");
            }
        }
        std::io::copy(&mut (&mut self.0).take(length), &mut std::io::sink()).expect("the whole answer");
        status
    }
}

/// What was admitted and refused in each window, by when it was asked.
#[derive(Default)]
struct Counted(BTreeMap<u64, [u64; 2]>);

impl Counted {
    fn count(&mut self, at_us: u64, status: u16) {
        let counts = self.0.entry(at_us / 1_000_000).or_default();
        counts[usize::from(status != 200)] += 1;
    }

    fn add(&mut self, other: Self) {
        for (window, counts) in other.0 {
            let sum = self.0.entry(window).or_default();
            (0..2).for_each(|at| sum[at] += counts[at]);
        }
    }
}

/// Asks these nodes at this rate a second, all together, for so many windows after the first.
fn demand(proxies: &[SocketAddr], rate: f64, is_even: bool, windows: u64) -> Counted {
    let stop = Arc::<AtomicBool>::default();
    let clients = proxies.iter().flat_map(|proxy| std::iter::repeat_n(*proxy, CLIENTS)).enumerate();
    let each = rate / (proxies.len() * CLIENTS) as f64;
    let clients: Vec<_> = clients
        .map(|(number, proxy)| {
            let stop = stop.clone();
            thread::spawn(move || {
                let (mut client, mut dice) = (Client::new(proxy), Dice::new(1, number as u64));
                let (mut counted, mut due) = (Counted::default(), Instant::now());
                due += Duration::from_secs_f64(number as f64 / rate);
                while !stop.load(Relaxed) {
                    thread::park_timeout(due.saturating_duration_since(Instant::now()));
                    let sent_us = now_us();
                    client.send(1);
                    let status = client.answer();
                    counted.count(sent_us.midpoint(now_us()), status);
                    let chance = 1.0 - dice.below(1 << 53) as f64 / (1_u64 << 53) as f64;
                    due += Duration::from_secs_f64(if is_even { 1.0 } else { -chance.ln() } / each);
                }
                counted
            })
        })
        .collect();
    let first = now_us() / 1_000_000 + WARM_UP_WINDOWS;
    until("enough windows are over", || (now_us() / 1_000_000 >= first + windows).then_some(()));
    stop.store(true, Relaxed);
    let mut counted = Counted::default();
    clients.into_iter().for_each(|client| counted.add(client.join().expect("it does not panic")));
    counted.0.retain(|window, _| (first..first + windows).contains(window));
    counted
}

/// Sends so many requests to all nodes within 50 ms; gives how many are admitted in that window.
fn burst(proxies: &[SocketAddr], requests: usize) -> u64 {
    const PARTS: usize = 10;
    let clients = proxies.len() * CLIENTS;
    let each = requests.div_ceil(clients * PARTS);
    let (window_us, ready) = (1_000_000, Arc::new(Barrier::new(clients)));
    let begin_us = (now_us() / window_us + 3) * window_us + window_us / 10;
    let threads = proxies.iter().flat_map(|proxy| std::iter::repeat_n(*proxy, CLIENTS));
    let threads: Vec<_> = threads
        .map(|proxy| {
            let ready = ready.clone();
            thread::spawn(move || {
                let mut client = Client::new(proxy);
                ready.wait();
                for part in 0..PARTS as u64 {
                    let at_us = begin_us + part * 5_000;
                    thread::park_timeout(Duration::from_micros(at_us.saturating_sub(now_us())));
                    client.send(each);
                }
                (0..each * PARTS).filter(|_| client.answer() == 200).count() as u64
            })
        })
        .collect();
    let admitted = threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum();
    let took_ms = now_us().saturating_sub(begin_us) / 1_000;
    if took_ms > 850 {
        println!("(the burst took {took_ms} ms, which is beyond its window)");
    }
    admitted
}

fn percent(part: f64) -> String {
    format!("{:.2}", part * 100.0)
}

fn tell(what: &str, limit: u32, counted: &Counted) {
    let limit = f64::from(limit);
    let off = |sign: f64| {
        let each: Vec<f64> = counted
            .0
            .values()
            .map(|[admitted, _]| (sign * (*admitted as f64 - limit) / limit).max(0.0))
            .collect();
        (each.iter().sum::<f64>() / each.len() as f64, each.iter().copied().fold(0.0, f64::max))
    };
    let (over, under) = (off(1.0), off(-1.0));
    let [admitted, refused] =
        counted.0.values().fold([0, 0], |sum, counts| [sum[0] + counts[0], sum[1] + counts[1]]);
    let refused = refused as f64 / (admitted + refused) as f64;
    println!(
        "| {what}, {limit} a second | {} | {} | {} | {} | {} |",
        percent(over.0),
        percent(over.1),
        percent(under.0),
        percent(under.1),
        percent(refused)
    );
}

/// Bytes that the node at this place has sent of counters.
fn sent_bytes(cluster: &Cluster, place: usize) -> f64 {
    let answer =
        cluster.admin(place).ask("GET", "/metrics", &serde_json::Value::Null).expect("the node answers");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix("phalanx_rate_limit_sent_bytes_total "));
    line.and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn main() {
    let cluster = Cluster::form_linked(3);
    let proxies = cluster.proxies(&[0, 1, 2]);
    println!("| what | over mean, % | worst, % | under mean, % | worst, % | refused, % |");
    println!("|---|---|---|---|---|---|");
    for requests in [1_000, 100] {
        limit(&cluster, requests);
        let (before, began) = (sent_bytes(&cluster, 0), Instant::now());
        tell("twice the limit", requests, &demand(&proxies, 2.0 * f64::from(requests), false, WINDOWS));
        let a_second = (sent_bytes(&cluster, 0) - before) / began.elapsed().as_secs_f64();
        println!("(a node sends {a_second:.0} bytes a second, as IP packets)");
        tell("0.8 of the limit", requests, &demand(&proxies, 0.8 * f64::from(requests), true, WINDOWS));
        let admitted: Vec<u64> = (0..BURSTS).map(|_| burst(&proxies, 5 * requests as usize)).collect();
        println!("| cold bursts of 5 L in 50 ms, {requests} a second: admitted {admitted:?} |");
        let apart = (cluster.leader() + 1) % 3;
        cluster.isolate(apart);
        tell("one node cut off", requests, &demand(&proxies, 2.0 * f64::from(requests), false, WINDOWS));
        for place in 0..3 {
            cluster.isolate(place);
        }
        tell("all nodes cut off", requests, &demand(&proxies, 2.0 * f64::from(requests), false, WINDOWS));
        cluster.heal();
        tell("after that", requests, &demand(&proxies, 2.0 * f64::from(requests), false, WINDOWS));
    }
}
