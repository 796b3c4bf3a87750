//! An upstream compiled: its targets read, and joined to the state that they keep across Plans.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use model::{Name, Violation, upstream::Condition};
use rustls::sign::CertifiedKey;

use super::{
    Surroundings,
    endpoint::{self, Endpoints, Gathered},
    transport::Transport,
};
use crate::{
    names::Followed,
    state::UpstreamState,
    upstream::{
        balance::Binding,
        breaker::Connections,
        retry::{Conditions, Rule},
    },
};

/// What is a target's failure unless it is said otherwise.
const FAILURES: [Condition; 4] =
    [Condition::Connect, Condition::Reset, Condition::Timeout, Condition::GatewayError];

/// An upstream, ready to be forwarded to.
#[derive(Debug)]
pub struct CompiledUpstream {
    /// Its name.
    pub name: Name,
    /// Balance, health, retry and timeouts.
    pub spec: Arc<model::Upstream>,
    /// How its targets are spoken to.
    pub transport: Arc<Transport>,
    /// Where it can go; targets of weight 0 are not among them, unless cookies may lead there.
    pub endpoints: Endpoints,
    /// Whether it has nowhere to go yet, because nobody has answered what its targets' names stand for.
    pub is_awaited: bool,
    /// How its requests say where they should go, if they do.
    pub(crate) binding: Option<Box<Binding>>,
    /// What outlives this Plan.
    pub state: Arc<UpstreamState>,
    /// What is tried again.
    pub(crate) retry: Rule,
    /// What is a target's failure.
    pub(crate) failures: Conditions,
    /// The connections to it, where they are limited.
    pub(crate) connections: Option<Arc<Connections>>,
    /// The names among its targets, each with the edition of the answer that it was compiled with.
    followed: Box<[(Arc<Followed>, u64)]>,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetHost {
    /// At this address.
    Address(SocketAddr),
    /// Where DNS says that this name is, at this port.
    Dns(Box<str>, u16),
    /// Where the records of this service say (RFC 2782).
    Service(Box<str>),
}

impl TargetHost {
    /// Reads `host:port` (an IPv4 address, an IPv6 address in brackets, or a DNS name), or the name of a service, which begins with `_`
    /// and has no port.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if text.starts_with('_') && text.len() <= 253 && text.bytes().all(good) {
            return Some(Self::Service(text.to_ascii_lowercase().into()));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let named = !host.is_empty() && host.len() <= 253 && host.bytes().all(good);
        named.then(|| Self::Dns(host.to_ascii_lowercase().into(), port))
    }

    /// What is wrong with a text that can't be read.
    pub(crate) fn wrong(text: &str) -> String {
        format!("{text:?} is neither host:port nor the name of a service, as _http._tcp.orders")
    }
}

impl CompiledUpstream {
    /// Compiles `spec`, with the states of `old` for what is in both, what is around here now, and these certificates to show.
    pub(crate) fn compile(
        name: &Name,
        spec: &Arc<model::Upstream>,
        old: Option<&Self>,
        around: &Surroundings,
        certificates: impl Fn(&Name) -> Option<Arc<CertifiedKey>>,
    ) -> Result<Self, Vec<Violation>> {
        let (gathered, mut violations) =
            match endpoint::gather(name, spec, old.map(|old| &old.endpoints), around) {
                Ok(gathered) => (Some(gathered), Vec::new()),
                Err(violations) => (None, violations),
            };
        let transport =
            Transport::compile(name, spec, old.map(|old| (&*old.spec, &old.transport)), certificates);
        let (transport, gathered) = match (transport, gathered) {
            (Ok(transport), Some(gathered)) => (transport, gathered),
            (transport, _) => {
                violations.extend(transport.err().unwrap_or_default());
                return Err(violations);
            }
        };
        let state = old.map_or_else(Arc::default, |old| old.state.clone());
        let Gathered { endpoints, followed, is_awaited } = gathered;
        let binding = Binding::compile(name, spec, &endpoints, around.secret)?;
        let connections = old.and_then(|old| old.connections.as_ref());
        Ok(Self {
            name: name.clone(),
            spec: spec.clone(),
            transport,
            endpoints,
            is_awaited,
            binding,
            state,
            retry: Rule::of(&spec.retry),
            failures: Conditions::of(&spec.health.passive.on, &FAILURES),
            connections: Connections::under(spec.limits.connections, connections),
            followed,
        })
    }

    /// Whether its targets are shown one of these certificates.
    pub(crate) fn shows(&self, certificates: &BTreeSet<Name>) -> bool {
        let certificate = self.spec.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        certificate.is_some_and(|certificate| certificates.contains(certificate))
    }

    /// Whether a name of its targets stands for something else than when it was compiled.
    pub(crate) fn is_outdated(&self) -> bool {
        self.followed.iter().any(|(name, edition)| name.edition() != *edition)
    }
}

#[cfg(test)]
mod tests;
