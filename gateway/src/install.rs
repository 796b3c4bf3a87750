//! From one Plan to the next: only what differs between their Configs is compiled.

use std::{collections::BTreeSet, fmt, sync::Arc};

use aws_lc_rs::hmac;
use imbl::{OrdMap, ordmap::DiffItem};
use model::{Code, Config, Entry, Name, Violation};

use crate::{
    plan::{CompiledRoute, CompiledUpstream, Digest, Plan, tcp::CompiledTcpRoute},
    policy::Grouped,
    tls,
    violations::Violations,
};

/// Why a Config can't be compiled; the Plan before it goes on serving.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("compile revision {revision}: {}{}", Shown(.violations.first()), More(.violations.len()))]
pub struct CompileError {
    /// The Config's.
    pub revision: model::Revision,
    /// Everything in the way.
    pub violations: Vec<Violation>,
}

impl CompileError {
    /// Its outcome.
    pub fn code(&self) -> Code {
        Code::Invalid
    }
}

struct Shown<'a>(Option<&'a Violation>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |violation| violation.fmt(f))
    }
}

struct More(usize);

impl fmt::Display for More {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 1 { write!(f, " (and {} more)", self.0 - 1) } else { Ok(()) }
    }
}

/// What happened to one object.
enum Diff<'a, T> {
    Gone(&'a Name, &'a Entry<T>),
    Here(&'a Name, Option<&'a Entry<T>>, &'a Entry<T>),
}

/// The differences between two maps, in time proportional to them where the maps share structure.
fn diff<'a, T>(
    old: &'a OrdMap<Name, Entry<T>>,
    new: &'a OrdMap<Name, Entry<T>>,
) -> impl Iterator<Item = Diff<'a, T>> {
    old.diff(new).map(|item| match item {
        DiffItem::Add(name, entry) => Diff::Here(name, None, entry),
        DiffItem::Update { old, new } => Diff::Here(new.0, Some(old.1), new.1),
        DiffItem::Remove(name, entry) => Diff::Gone(name, entry),
    })
}

impl Plan {
    /// The Plan of `config`, with all of this one that did not change. In time proportional to what did; but for taking
    /// away a policy or upstream, or a policy's new type, for which every route is looked at, and a new certificate, for which
    /// every upstream is.
    pub fn install(&self, config: &Config) -> Result<Plan, CompileError> {
        let mut next = self.clone();
        let mut violations = Violations::default();
        for ((kind, name), unreadable) in &config.unreadable {
            let message = format!("was written by a newer version: {}", unreadable.error);
            violations.add(format!("{}.{name}", kind.plural()), message);
        }
        let is_repeppered = self.config.pepper != config.pepper;
        if is_repeppered {
            let pepper = config.pepper.as_ref();
            next.pepper = pepper.map(|pepper| hmac::Key::new(hmac::HMAC_SHA256, &pepper.0));
            let derived =
                |of: &[u8]| next.pepper.as_ref().map(|pepper| secret(pepper, of)).unwrap_or_default();
            let (rates, choice) =
                (derived(b"phalanx rate limits 1"), derived(b"phalanx choice of targets 1"));
            (next.rate_secret, next.around.secret) = (rates, choice);
        }
        let renewed = next.install_certificates(config, &mut violations);
        let lost = next.install_upstreams(config, &mut violations);
        if !renewed.is_empty() {
            next.recompile(|upstream| upstream.shows(&renewed));
        }
        if is_repeppered {
            next.recompile(|upstream| upstream.binding.is_some());
        }
        let retyped = next.install_policies(config, &mut violations);
        next.install_routes(config, &mut violations);
        if lost || retyped {
            next.install_dependents(config, &mut violations);
        }
        next.install_tcp_routes(config, lost, &mut violations);
        next.install_keys(config, &mut violations);
        if violations.len() > 0 {
            return Err(CompileError { revision: config.revision, violations: violations.into_vec() });
        }
        if is_repeppered {
            next.certificates.tickets.set_secret(config.pepper.as_ref().map(|pepper| &pepper.0));
        }
        next.config = config.clone();
        Ok(next)
    }

    /// The Plan with those upstreams compiled anew whose targets' names stand for something else now; none if there are none. In time
    /// proportional to the number of upstreams.
    pub(crate) fn refreshed(&self) -> Option<Plan> {
        let mut next = self.clone();
        next.recompile(CompiledUpstream::is_outdated).then_some(next)
    }

    /// Compiles anew the upstreams of which this is so, whose specs are as they were; says whether there are any.
    fn recompile(&mut self, is_so: impl Fn(&CompiledUpstream) -> bool) -> bool {
        let old: Vec<_> = self.upstreams.values().filter(|upstream| is_so(upstream)).cloned().collect();
        for old in &old {
            match self.compile_upstream(&old.name, &old.spec, Some(old)) {
                Ok(upstream) => self.put_upstream(&old.name, Some(Arc::new(upstream))),
                // It was compiled once, and what is wrong with a spec stays so.
                Err(_) => tracing::error!(upstream = %old.name, "an upstream can't be compiled anew"),
            }
        }
        !old.is_empty()
    }

    /// Returns whether any is gone.
    fn install_upstreams(&mut self, config: &Config, violations: &mut Violations) -> bool {
        let mut lost = false;
        let old = self.config.upstreams.clone();
        for item in diff(&old, &config.upstreams) {
            match item {
                Diff::Gone(name, _) => {
                    lost = true;
                    self.put_upstream(name, None);
                }
                Diff::Here(name, _, entry) => {
                    let old = self.upstreams.get(name).map(|old| &**old);
                    match self.compile_upstream(name, &entry.spec, old) {
                        Ok(upstream) => self.put_upstream(name, Some(Arc::new(upstream))),
                        Err(more) => violations.extend(more),
                    }
                }
            }
        }
        lost
    }

    fn compile_upstream(
        &self,
        name: &Name,
        spec: &Arc<model::Upstream>,
        old: Option<&CompiledUpstream>,
    ) -> Result<CompiledUpstream, Vec<Violation>> {
        CompiledUpstream::compile(name, spec, old, &self.around, |name| self.certificates.key(name))
    }

    fn put_upstream(&mut self, name: &Name, upstream: Option<Arc<CompiledUpstream>>) {
        let announces = |upstream: &Arc<CompiledUpstream>| upstream.transport.proxy_protocol.is_some();
        self.announcing += usize::from(upstream.as_ref().is_some_and(announces));
        if upstream.as_ref().is_some_and(|upstream| upstream.spec.health.active.is_some()) {
            self.checked.insert(name.clone());
        } else {
            self.checked.remove(name);
        }
        let old = match upstream {
            Some(upstream) => self.upstreams.insert(name.clone(), upstream),
            None => self.upstreams.remove(name),
        };
        self.announcing -= usize::from(old.as_ref().is_some_and(announces));
    }

    /// Returns whether any is gone or of another type, which changes the order in which routes run it.
    fn install_policies(&mut self, config: &Config, violations: &mut Violations) -> bool {
        let mut changed = false;
        let mut stale = regrouped(&self.config, config);
        let old = self.config.policies.clone();
        for item in diff(&old, &config.policies) {
            match item {
                Diff::Gone(name, _) => {
                    changed = true;
                    self.policies.remove(name);
                }
                Diff::Here(name, old, entry) => {
                    let is_retyped = old.is_some_and(|old| old.spec.kind != entry.spec.kind);
                    if is_retyped {
                        // What another type has done is none of its.
                        self.policies.remove(name);
                    }
                    changed |= is_retyped;
                    stale.insert(name);
                }
            }
        }
        for name in stale {
            let Some(entry) = config.policies.get(name) else { continue };
            let before = self.policies.get(name).map(|before| &**before);
            match Grouped::build(name, &entry.spec, config, before) {
                Ok(policy) => {
                    self.policies.insert(name.clone(), Arc::new(policy));
                }
                Err(more) => violations.extend(more),
            }
        }
        changed
    }

    fn install_routes(&mut self, config: &Config, violations: &mut Violations) {
        let old = self.config.routes.clone();
        for item in diff(&old, &config.routes) {
            match item {
                Diff::Gone(name, _) => self.remove_route(name),
                Diff::Here(name, _, entry) => self.put_route(name, entry, config, violations),
            }
        }
    }

    /// Looks at every route anew after something that routes refer to is gone or has changed its order.
    fn install_dependents(&mut self, config: &Config, violations: &mut Violations) {
        for (name, entry) in &config.routes {
            let Some(route) = self.routes.get(name) else { continue };
            if route.upstreams().any(|upstream| !config.upstreams.contains_key(upstream))
                || !route.policies.is_empty()
            {
                self.put_route(name, entry, config, violations);
            }
        }
    }

    fn put_route(
        &mut self,
        name: &Name,
        entry: &Entry<model::Route>,
        config: &Config,
        violations: &mut Violations,
    ) {
        let compiled = compile_route(name, entry, config);
        let route = match compiled {
            Ok(route) => Arc::new(route),
            Err(more) => return violations.extend(more),
        };
        self.remove_route(name);
        self.router.insert(&route);
        self.routes.insert(name.clone(), route);
    }

    fn remove_route(&mut self, name: &Name) {
        if let Some(route) = self.routes.remove(name) {
            self.router.remove(&route);
        }
    }

    /// Puts in what TCP routes are others than before, and looks for upstreams of the rest if any is lost.
    fn install_tcp_routes(&mut self, config: &Config, lost: bool, violations: &mut Violations) {
        let old = self.config.tcp_routes.clone();
        for item in diff(&old, &config.tcp_routes) {
            match item {
                Diff::Gone(name, _) => self.tcp.remove(name),
                Diff::Here(name, _, entry) => {
                    violations.extend(missing_upstreams(name, &entry.spec, config));
                    let old = self.tcp.get(name).map(|old| &**old);
                    let route = Arc::new(CompiledTcpRoute::compile(name, entry, old));
                    for listener in route.spec.on().filter(|on| !self.around.has_listener(on)) {
                        tracing::warn!(tcp_route = %name, listener, "a TCP route is on a listener that this node does not have");
                    }
                    self.tcp.insert(&route);
                }
            }
        }
        if lost {
            for (name, entry) in &config.tcp_routes {
                violations.extend(missing_upstreams(name, &entry.spec, config));
            }
        }
    }

    fn install_keys(&mut self, config: &Config, violations: &mut Violations) {
        let old = self.config.keys.clone();
        for item in diff(&old, &config.keys) {
            let (name, old, new) = match item {
                Diff::Gone(name, old) => (name, Some(old), None),
                Diff::Here(name, old, new) => (name, old, Some(new)),
            };
            if let Some(digest) = old.and_then(|old| digest(&old.spec.digest))
                && self.keys.get(&digest).is_some_and(|(holder, _)| holder == name)
            {
                self.keys.remove(&digest);
            }
            let Some(new) = new else { continue };
            match digest(&new.spec.digest) {
                Some(digest) => {
                    self.keys.insert(digest, (name.clone(), new.spec.clone()));
                }
                None => violations.add(format!("keys.{name}.digest"), BAD_DIGEST.to_owned()),
            }
        }
    }

    /// Returns those that are others than before.
    fn install_certificates(&mut self, config: &Config, violations: &mut Violations) -> BTreeSet<Name> {
        let mut renewed = BTreeSet::new();
        let old = self.config.certificates.clone();
        for item in diff(&old, &config.certificates) {
            match item {
                Diff::Gone(name, _) => self.certificates.remove(name),
                Diff::Here(name, _, entry) => {
                    match tls::certificate::compile(name, &entry.spec, &self.certificates.tickets) {
                        Ok(served) => self.certificates.insert(Arc::new(served)),
                        Err(more) => violations.extend(more),
                    }
                    renewed.insert(name.clone());
                }
            }
        }
        renewed
    }
}

/// A violation for each upstream of a TCP route that is not in `config`.
pub(crate) fn missing_upstreams(name: &Name, spec: &model::TcpRoute, config: &Config) -> Vec<Violation> {
    let missing = spec.shares().filter(|(upstream, _)| !config.upstreams.contains_key(*upstream));
    let violation = |upstream| Violation {
        path: format!("tcp_routes.{name}"),
        message: format!("there is no upstream {upstream}"),
    };
    missing.map(|(upstream, _)| violation(upstream)).collect()
}

/// The secret for this use, the same on all nodes of a cluster.
fn secret(pepper: &hmac::Key, of: &[u8]) -> (u64, u64) {
    let tag = hmac::sign(pepper, of);
    let half = |half: &[u8]| half.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let (one, other) = tag.as_ref().split_at(8);
    (half(one), half(&other[..8]))
}

/// The policies that groups override in another way than before.
fn regrouped<'a>(old: &'a Config, new: &'a Config) -> BTreeSet<&'a Name> {
    let of = |entry: &'a Entry<model::Group>| entry.spec.policies.keys();
    let mut policies = BTreeSet::new();
    for item in diff(&old.groups, &new.groups) {
        let (before, after) = match item {
            Diff::Gone(_, entry) => (Some(entry), None),
            Diff::Here(_, before, after) => (before, Some(after)),
        };
        policies.extend(before.into_iter().chain(after).flat_map(of));
    }
    policies
}

/// What is wrong with a digest that can't be read.
pub(crate) const BAD_DIGEST: &str = "must be 64 lower-case hexadecimal digits";

/// Compiles a route as it would be in `config`.
pub(crate) fn compile_route(
    name: &Name,
    entry: &Entry<model::Route>,
    config: &Config,
) -> Result<CompiledRoute, Vec<Violation>> {
    let kind = |policy: &Name| config.policies.get(policy).map(|entry| entry.spec.kind.as_str());
    let mut route = CompiledRoute::compile(name, entry, kind)?;
    let missing = route.upstreams().filter(|upstream| !config.upstreams.contains_key(*upstream));
    let missing: Vec<Violation> = missing
        .map(|upstream| Violation {
            path: format!("routes.{name}"),
            message: format!("there is no upstream {upstream}"),
        })
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    route.share_names(|name| config.upstreams.get_key_value(name).map(|(known, _)| known.clone()));
    Ok(route)
}

/// Reads 64 lower-case hexadecimal digits.
pub(crate) fn digest(text: &str) -> Option<Digest> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests;
