//! What a TCP route must be, and that its upstreams take bytes as they come.

use std::net::Ipv4Addr;

use super::{Notes, text, upstream::TOTAL_MAX};
use crate::{Change, Config, Kind, Name, Op, TcpRoute};

const LISTENERS_MAX: usize = 64;
const HOSTS_MAX: usize = 1_000;
const UPSTREAMS_MAX: usize = 64;
const CONNECTIONS_MAX: u32 = 16_777_216;

pub(super) fn check(route: &TcpRoute, notes: &mut Notes) {
    let lengths = [
        ("listeners", route.listeners.len(), LISTENERS_MAX),
        ("hosts", route.hosts.len(), HOSTS_MAX),
        ("upstreams", route.upstreams.len(), UPSTREAMS_MAX),
    ];
    for (place, have, most) in lengths.into_iter().filter(|(_, have, most)| have > most) {
        notes.note(place, format!("has {have}, and may have {most}"));
    }
    if route.listeners.is_empty() && route.hosts.is_empty() {
        notes.note("", "takes nothing: give listeners, hosts or both");
    }
    for (at, listener) in route.listeners.iter().enumerate() {
        if route.listeners[..at].contains(listener) {
            notes.note(format!("listeners[{at}]"), format!("{listener} is there twice"));
        }
    }
    for (at, host) in route.hosts.iter().enumerate() {
        if let Err(error) = text::host_pattern(host) {
            notes.note(format!("hosts[{at}]"), error);
        } else if host.parse::<Ipv4Addr>().is_ok() || host.starts_with('[') {
            notes.note(format!("hosts[{at}]"), "is an address, which no client names in TLS");
        }
        if route.hosts[..at].contains(host) {
            notes.note(format!("hosts[{at}]"), format!("{host:?} is there twice"));
        }
    }
    match (&route.upstream, &route.upstreams[..]) {
        (Some(_), []) => {}
        (None, []) => notes.note("", "goes nowhere: give upstream or upstreams"),
        (Some(_), _) => notes.note("", "goes to several places: give one of upstream and upstreams"),
        (None, several) if several.iter().all(|one| one.weight == 0) => {
            notes.note("upstreams", "all have the weight 0: none would get a connection");
        }
        (None, _) => {}
    }
    if route.idle_timeout > TOTAL_MAX {
        notes.note("idle_timeout", "must be at most 1d; 0s is no limit");
    }
    if route.connections_max > CONNECTIONS_MAX {
        let have = route.connections_max;
        notes.note("connections_max", format!("is {have}, and may be {CONNECTIONS_MAX}"));
    }
}

/// Notes each TCP route, new or old, that goes to an upstream to whose targets TLS is spoken: its bytes would go into a second TLS.
pub(super) fn check_upstreams(after: &Config, change: &Change, notes: &mut Notes) {
    let speaks_tls =
        |name: &Name| after.upstreams.get(name).is_some_and(|upstream| upstream.spec.tls.is_some());
    for op in &change.ops {
        match op {
            Op::Put { kind: Kind::TcpRoute, name, .. } => {
                let Some(route) = after.tcp_routes.get(name) else { continue };
                notes.at(Kind::TcpRoute, name);
                for (upstream, _) in route.spec.shares().filter(|shared| speaks_tls(shared.0)) {
                    notes.note(
                        "upstream",
                        format!(
                            "upstream {upstream} has tls, and the bytes of a TCP route go as they come: make one without"
                        ),
                    );
                }
            }
            Op::Put { kind: Kind::Upstream, name, .. } if speaks_tls(name) => {
                let goes_there = |route: &TcpRoute| route.shares().any(|(upstream, _)| upstream == name);
                let users = after.tcp_routes.iter().filter(|(_, entry)| goes_there(&entry.spec));
                let users: Vec<&str> = users.map(|(route, _)| route.as_str()).take(10).collect();
                if !users.is_empty() {
                    notes.at(Kind::Upstream, name);
                    let users = users.join(", ");
                    notes.note("tls", format!("TCP routes go there, whose bytes go as they come: {users}"));
                }
            }
            _ => {}
        }
    }
}
