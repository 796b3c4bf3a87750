//! What an upstream's health must be.

use std::time::Duration;

use super::{Notes, text};
use crate::{
    Upstream,
    upstream::{Active, HttpCheck, Passive, Protocol},
};

const EJECT_MAX: Duration = Duration::from_secs(3_600);
const WINDOW_MAX: Duration = Duration::from_secs(3_600);
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);
const REQUESTS_MAX: u32 = 10_000;
const IN_A_ROW_MAX: u32 = 100;
const CHECKERS_MAX: u32 = 64;
const LIST_MAX: usize = 32;
const SERVICE_BYTES_MAX: usize = 200;

pub(super) fn check(upstream: &Upstream, notes: &mut Notes) {
    passive(&upstream.health.passive, notes);
    if let Some(checks) = &upstream.health.active {
        active(checks, upstream, notes);
    }
}

fn passive(passive: &Passive, notes: &mut Notes) {
    if passive.eject.is_zero() || passive.eject > EJECT_MAX {
        notes.note("health.passive.eject", "must be from 1ms to 1h");
    }
    if passive.on.len() > LIST_MAX {
        notes.note("health.passive.on", format!("has {}, and may have {LIST_MAX}", passive.on.len()));
    }
    if passive.slow > EJECT_MAX {
        notes.note("health.passive.slow", "must be at most 1h; 0s is no limit");
    }
    if passive.max_ejected > 100 {
        notes.note("health.passive.max_ejected", "must be from 0 to 100, of a hundred targets");
    }
    let rate = &passive.rate;
    if rate.percent > 100 {
        notes.note("health.passive.rate.percent", "must be from 0 to 100");
    }
    if !(1..=REQUESTS_MAX).contains(&rate.requests) {
        notes.note("health.passive.rate.requests", "must be from 1 to 10,000");
    }
    if rate.window < INTERVAL_MIN || rate.window > WINDOW_MAX {
        notes.note("health.passive.rate.window", "must be from 100ms to 1h");
    }
}

fn active(active: &Active, upstream: &Upstream, notes: &mut Notes) {
    let ways = [active.http.is_some(), active.tcp.is_some(), active.grpc.is_some()];
    if ways.iter().filter(|there| **there).count() != 1 {
        notes.note("health.active", "must have exactly one of http, tcp and grpc");
    }
    if active.interval < INTERVAL_MIN || active.interval > INTERVAL_MAX {
        notes.note("health.active.interval", "must be from 100ms to 1h");
    }
    if active.timeout.is_zero() || active.timeout > active.interval {
        notes.note("health.active.timeout", "must be from 1ms to the interval");
    }
    for (place, count) in [("healthy", active.healthy), ("unhealthy", active.unhealthy)] {
        if !(1..=IN_A_ROW_MAX).contains(&count) {
            notes.note(format!("health.active.{place}"), "must be from 1 to 100");
        }
    }
    if active.checkers > CHECKERS_MAX {
        notes.note("health.active.checkers", "must be from 0 to 64; 0 is all nodes, each for itself");
    }
    if let Some(check) = &active.http {
        http(check, notes);
    }
    if let Some(check) = &active.grpc {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if check.service.len() > SERVICE_BYTES_MAX || !check.service.bytes().all(good) {
            notes.note("health.active.grpc.service", "is no name of a service, as shop.v1.Orders");
        }
        let speaks_http2 = match upstream.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Auto => upstream.tls.is_some(),
        };
        if !speaks_http2 {
            notes.note("health.active.grpc", "needs HTTP/2: give the upstream protocol: http2");
        }
    }
}

fn http(check: &HttpCheck, notes: &mut Notes) {
    let plain = check.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !check.path.starts_with('/') || !plain || check.path.len() > 4_096 {
        notes.note("health.active.http.path", format!("{:?} is no path: write it as /healthz", check.path));
    }
    if check.method != "GET" && check.method != "HEAD" {
        notes.note("health.active.http.method", "must be GET or HEAD");
    }
    if !check.host.is_empty()
        && text::host(check.host.split(':').next().unwrap_or_default()).is_err()
        && text::address(&check.host).is_err()
    {
        notes.note("health.active.http.host", format!("{:?} is no host", check.host));
    }
    if check.statuses.len() > LIST_MAX {
        notes.note("health.active.http.statuses", format!("may have {LIST_MAX}"));
    }
    if check.statuses.iter().any(|status| !(200..=599).contains(status)) {
        notes.note("health.active.http.statuses", "are from 200 to 599");
    }
}
