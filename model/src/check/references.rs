//! That what is referred to is there.

use std::collections::BTreeSet;

use super::Notes;
use crate::{Change, Config, Consumer, Group, Key, Kind, Name, Op, Route, TcpRoute, Upstream};

/// Every name that an object refers to: where, of which kind, and the name.
type References<'a> = Vec<(String, Kind, &'a Name)>;

fn of_route(route: &Route) -> References<'_> {
    let policies =
        route.policies.iter().enumerate().map(|(at, name)| (format!("policies[{at}]"), Kind::Policy, name));
    let one = route.upstream.iter().map(|name| ("upstream".to_owned(), Kind::Upstream, name));
    let several = route.upstreams.iter().enumerate();
    let several = several
        .map(|(at, weighted)| (format!("upstreams[{at}].upstream"), Kind::Upstream, &weighted.upstream));
    let copies = route.mirror.iter().enumerate();
    let copies =
        copies.map(|(at, mirror)| (format!("mirror[{at}].upstream"), Kind::Upstream, &mirror.upstream));
    policies.chain(one).chain(several).chain(copies).collect()
}

fn of_tcp_route(route: &TcpRoute) -> References<'_> {
    let one = route.upstream.iter().map(|name| ("upstream".to_owned(), Kind::Upstream, name));
    let several = route.upstreams.iter().enumerate();
    let several = several
        .map(|(at, weighted)| (format!("upstreams[{at}].upstream"), Kind::Upstream, &weighted.upstream));
    one.chain(several).collect()
}

fn of_upstream(upstream: &Upstream) -> References<'_> {
    let certificate = upstream.tls.iter().filter_map(|tls| tls.certificate.as_ref());
    certificate.map(|name| ("tls.certificate".to_owned(), Kind::Certificate, name)).collect()
}

fn of_consumer(consumer: &Consumer) -> References<'_> {
    consumer
        .groups
        .iter()
        .enumerate()
        .map(|(at, name)| (format!("groups[{at}]"), Kind::Group, name))
        .collect()
}

fn of_group(group: &Group) -> References<'_> {
    group.policies.keys().map(|name| (format!("policies.{name}"), Kind::Policy, name)).collect()
}

fn of_key(key: &Key) -> References<'_> {
    vec![("consumer".to_owned(), Kind::Consumer, &key.consumer)]
}

pub(super) fn check(after: &Config, change: &Change, notes: &mut Notes) {
    let mut put = BTreeSet::new();
    let mut gone = BTreeSet::new();
    for op in &change.ops {
        match op {
            Op::Put { kind, name, .. } => drop(put.insert((*kind, name))),
            Op::Delete { kind, name } => drop(gone.insert((*kind, name.clone()))),
        }
    }
    gone.retain(|(kind, name)| after.get(*kind, name).is_none());
    for (kind, name) in &put {
        let references = match kind {
            Kind::Route => after.routes.get(*name).map(|entry| of_route(&entry.spec)),
            Kind::Consumer => after.consumers.get(*name).map(|entry| of_consumer(&entry.spec)),
            Kind::Group => after.groups.get(*name).map(|entry| of_group(&entry.spec)),
            Kind::Key => after.keys.get(*name).map(|entry| of_key(&entry.spec)),
            Kind::Upstream => after.upstreams.get(*name).map(|entry| of_upstream(&entry.spec)),
            Kind::TcpRoute => after.tcp_routes.get(*name).map(|entry| of_tcp_route(&entry.spec)),
            Kind::Policy | Kind::Certificate => None,
        };
        for (place, of, target) in references.unwrap_or_default() {
            if after.get(of, target).is_none() {
                notes.at(*kind, name);
                notes.note(place, format!("there is no {of} {target}"));
            }
        }
    }
    // Only what was deleted can have left others dangling, and only then is everything looked through.
    let lost = |kinds: &[Kind]| gone.iter().any(|(kind, _)| kinds.contains(kind));
    let mut dangling = |kind: Kind, name: &Name, references: References<'_>| {
        if put.contains(&(kind, name)) {
            return;
        }
        for (place, of, target) in references {
            if gone.contains(&(of, target.clone())) {
                notes.at(of, target);
                notes.note(
                    "",
                    format!(
                        "is still used by {}.{name}.{place}: change that first, or in the same change",
                        kind.plural()
                    ),
                );
            }
        }
    };
    if lost(&[Kind::Upstream, Kind::Policy]) {
        after.routes.iter().for_each(|(name, entry)| dangling(Kind::Route, name, of_route(&entry.spec)));
        after.groups.iter().for_each(|(name, entry)| dangling(Kind::Group, name, of_group(&entry.spec)));
    }
    if lost(&[Kind::Upstream]) {
        let routes = after.tcp_routes.iter();
        routes.for_each(|(name, entry)| dangling(Kind::TcpRoute, name, of_tcp_route(&entry.spec)));
    }
    if lost(&[Kind::Certificate]) {
        let upstreams = after.upstreams.iter();
        upstreams.for_each(|(name, entry)| dangling(Kind::Upstream, name, of_upstream(&entry.spec)));
    }
    if lost(&[Kind::Group]) {
        after
            .consumers
            .iter()
            .for_each(|(name, entry)| dangling(Kind::Consumer, name, of_consumer(&entry.spec)));
    }
    if lost(&[Kind::Consumer]) {
        after.keys.iter().for_each(|(name, entry)| dangling(Kind::Key, name, of_key(&entry.spec)));
    }
}
