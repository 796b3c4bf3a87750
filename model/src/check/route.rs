//! What a route must be.

use std::collections::BTreeMap;

use super::{Notes, text, upstream::TOTAL_MAX};
use crate::{
    Route,
    route::{HeaderChanges, Match, PathMatch, PathRewrite, Redirect, Respond, ValueMatch},
};

const HOSTS_MAX: usize = 64;
const MATCHES_MAX: usize = 64;
const PREDICATES_MAX: usize = 16;
const POLICIES_MAX: usize = 32;
const UPSTREAMS_MAX: usize = 64;
const MIRRORS_MAX: usize = 4;
const CHANGES_MAX: usize = 64;
/// Less than half an object, so that it fits in escaped.
const BODY_BYTES_MAX: usize = 24 << 10;

pub(super) fn check(route: &Route, notes: &mut Notes) {
    at_most("hosts", route.hosts.len(), HOSTS_MAX, notes);
    at_most("match", route.matches.len(), MATCHES_MAX, notes);
    at_most("policies", route.policies.len(), POLICIES_MAX, notes);
    at_most("upstreams", route.upstreams.len(), UPSTREAMS_MAX, notes);
    for (at, host) in route.hosts.iter().enumerate() {
        told(format!("hosts[{at}]"), text::host_pattern(host), notes);
        if route.hosts[..at].contains(host) {
            notes.note(format!("hosts[{at}]"), format!("{host:?} is there twice"));
        }
    }
    for (at, matching) in route.matches.iter().enumerate() {
        check_match(at, matching, notes);
    }
    for (at, policy) in route.policies.iter().enumerate() {
        if route.policies[..at].contains(policy) {
            notes.note(format!("policies[{at}]"), format!("{policy} is there twice"));
        }
    }
    check_action(route, notes);
    check_mirrors(route, notes);
    changes("request.headers", &route.request.headers, notes);
    changes("response.headers", &route.response.headers, notes);
    if let Some(host) = &route.request.host {
        let name = host
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok())
            .map_or(&host[..], |(name, _)| name);
        told("request.host", text::host(name), notes);
    }
    rewrite("request.path", route.request.path.as_ref(), route, notes);
    for (place, timeout) in [("request", route.timeout.request), ("attempt", route.timeout.attempt)] {
        if timeout.is_some_and(|timeout| timeout > TOTAL_MAX) {
            notes.note(format!("timeout.{place}"), "must be at most 1d; 0s is no limit");
        }
    }
}

fn told(place: impl std::fmt::Display, result: Result<(), String>, notes: &mut Notes) {
    if let Err(error) = result {
        notes.note(place, error);
    }
}

fn at_most(place: &str, have: usize, most: usize, notes: &mut Notes) {
    if have > most {
        notes.note(place, format!("has {have}, and may have {most}"));
    }
}

fn check_match(at: usize, matching: &Match, notes: &mut Notes) {
    let place = |rest: &str| format!("match[{at}].{rest}");
    match &matching.path {
        None => {}
        Some(PathMatch::Exact(path)) => told(place("path.exact"), text::path(path), notes),
        Some(PathMatch::Prefix(path)) => told(place("path.prefix"), text::path(path), notes),
        Some(PathMatch::Regex(regex)) => told(place("path.regex"), text::regex(regex), notes),
        Some(PathMatch::Template(path)) => told(place("path.template"), template(path), notes),
    }
    for (n, method) in matching.methods.iter().enumerate() {
        told(place(&format!("methods[{n}]")), text::method(method), notes);
    }
    at_most(&place("methods"), matching.methods.len(), PREDICATES_MAX, notes);
    values(&place("headers"), &matching.headers, true, notes);
    values(&place("query"), &matching.query, false, notes);
}

fn values(place: &str, values: &BTreeMap<String, ValueMatch>, headers: bool, notes: &mut Notes) {
    at_most(place, values.len(), PREDICATES_MAX, notes);
    let mut seen = std::collections::BTreeSet::new();
    for (name, value) in values {
        let place = format!("{place}.{name}");
        if headers {
            told(&place, text::header_name(name).map(drop), notes);
            if !seen.insert(name.to_ascii_lowercase()) {
                notes.note(&place, "is there twice, in another case");
            }
        } else if name.is_empty() {
            notes.note(&place, "a query parameter has a name");
        }
        if let ValueMatch::Regex(regex) = value {
            told(format!("{place}.regex"), text::regex(regex), notes);
        }
    }
}

fn template(path: &str) -> Result<(), String> {
    let plain: String = path.chars().filter(|c| !"{}".contains(*c)).collect();
    text::path(&plain.replace("...", "_"))?;
    let segments: Vec<&str> = path.split('/').collect();
    let mut names = std::collections::BTreeSet::new();
    for (at, segment) in segments.iter().enumerate() {
        if !segment.contains(['{', '}']) {
            continue;
        }
        let name = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'));
        let name = name.ok_or_else(|| format!("{segment:?}: a placeholder is a whole segment, as {{id}}"))?;
        let rest = name.ends_with("...");
        let name = name.trim_end_matches("...");
        if rest && at + 1 != segments.len() {
            return Err(format!("{segment:?} takes the rest of the path, so it must be last"));
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("{segment:?}: a placeholder has a name of letters, digits and _"));
        }
        if !names.insert(name) {
            return Err(format!("{segment:?} is there twice"));
        }
    }
    Ok(())
}

fn check_action(route: &Route, notes: &mut Notes) {
    let actions = [
        route.upstream.is_some(),
        !route.upstreams.is_empty(),
        route.redirect.is_some(),
        route.respond.is_some(),
    ];
    match actions.iter().filter(|there| **there).count() {
        1 => {}
        0 => notes.note("", "goes nowhere: give upstream, upstreams, redirect or respond"),
        _ => notes.note("", "goes to several places: give one of upstream, upstreams, redirect and respond"),
    }
    if !route.upstreams.is_empty() && route.upstreams.iter().all(|upstream| upstream.weight == 0) {
        notes.note("upstreams", "all have the weight 0: none would get a request");
    }
    if let Some(redirect) = &route.redirect {
        check_redirect(redirect, route, notes);
    }
    if let Some(respond) = &route.respond {
        check_respond(respond, notes);
    }
}

fn check_mirrors(route: &Route, notes: &mut Notes) {
    at_most("mirror", route.mirror.len(), MIRRORS_MAX, notes);
    if !route.mirror.is_empty() && route.upstream.is_none() && route.upstreams.is_empty() {
        notes.note("mirror", "copies what is forwarded: give upstream or upstreams too");
    }
    for (at, mirror) in route.mirror.iter().enumerate() {
        if !(1..=100).contains(&mirror.percent) {
            notes.note(format!("mirror[{at}].percent"), "must be from 1 to 100, of a hundred requests");
        }
    }
}

fn check_redirect(redirect: &Redirect, route: &Route, notes: &mut Notes) {
    if ![301, 302, 303, 307, 308].contains(&redirect.status) {
        notes
            .note("redirect.status", format!("is {}, and may be 301, 302, 303, 307 or 308", redirect.status));
    }
    if redirect.scheme.as_deref().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        notes.note("redirect.scheme", "must be http or https");
    }
    if let Some(host) = &redirect.host {
        told("redirect.host", text::host(host), notes);
    }
    if redirect.port == Some(0) {
        notes.note("redirect.port", "must be 1 to 65535");
    }
    if redirect.scheme.is_none()
        && redirect.host.is_none()
        && redirect.port.is_none()
        && redirect.path.is_none()
    {
        notes.note("redirect", "would lead back to itself: give scheme, host, port or path");
    }
    rewrite("redirect.path", redirect.path.as_ref(), route, notes);
}

fn check_respond(respond: &Respond, notes: &mut Notes) {
    if !(200..=599).contains(&respond.status) {
        notes.note("respond.status", format!("is {}, and may be 200 to 599", respond.status));
    }
    if respond.body.len() > BODY_BYTES_MAX {
        notes.note("respond.body", format!("is over {BODY_BYTES_MAX} bytes"));
    }
    if !respond.body.is_empty() && matches!(respond.status, 204 | 205 | 304) {
        notes.note("respond.body", format!("a {} has none", respond.status));
    }
    at_most("respond.headers", respond.headers.len(), CHANGES_MAX, notes);
    for (name, value) in &respond.headers {
        told(format!("respond.headers.{name}"), text::changeable(name), notes);
        told(format!("respond.headers.{name}"), text::header_value(value), notes);
    }
}

fn changes(place: &str, changes: &HeaderChanges, notes: &mut Notes) {
    at_most(place, changes.remove.len() + changes.set.len() + changes.add.len(), CHANGES_MAX, notes);
    for (at, name) in changes.remove.iter().enumerate() {
        told(format!("{place}.remove[{at}]"), text::changeable(name), notes);
    }
    for (verb, values) in [("set", &changes.set), ("add", &changes.add)] {
        for (name, value) in values {
            told(format!("{place}.{verb}.{name}"), text::changeable(name), notes);
            told(format!("{place}.{verb}.{name}"), text::header_value(value), notes);
        }
    }
}

fn rewrite(place: &str, rewrite: Option<&PathRewrite>, route: &Route, notes: &mut Notes) {
    match rewrite {
        None => {}
        Some(PathRewrite::Full(path)) => told(format!("{place}.full"), text::path(path), notes),
        Some(PathRewrite::Prefix(path)) => {
            told(format!("{place}.prefix"), text::path(path), notes);
            let prefix = |matching: &Match| matches!(matching.path, None | Some(PathMatch::Prefix(_)));
            if !route.matches.iter().all(prefix) {
                notes.note(
                    format!("{place}.prefix"),
                    "replaces a matched prefix, so every match must have a prefix path",
                );
            }
        }
    }
}
