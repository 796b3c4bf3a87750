//! An upstream compiled: its targets read, and joined to the state that they keep across Plans.

use std::{net::SocketAddr, sync::Arc};

use model::{Name, Violation};

use super::{
    endpoint::{Endpoint, Endpoints},
    transport::Transport,
};
use crate::{
    state::UpstreamState,
    upstream::{breaker::Connections, retry::Rule},
};

/// An upstream, ready to be forwarded to.
#[derive(Debug)]
pub struct CompiledUpstream {
    /// Its name.
    pub name: Name,
    /// Balance, health, retry and timeouts.
    pub spec: Arc<model::Upstream>,
    /// How its targets are spoken to.
    pub transport: Arc<Transport>,
    /// Where it can go; targets of weight 0 are not among them.
    pub endpoints: Endpoints,
    /// What outlives this Plan.
    pub state: Arc<UpstreamState>,
    /// What is tried again.
    pub(crate) retry: Rule,
    /// The connections to it, where they are limited.
    pub(crate) connections: Option<Arc<Connections>>,
}

/// Where a target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetHost {
    /// At this address.
    Address(SocketAddr),
    /// Where DNS says that this name is, at this port.
    Dns(Box<str>, u16),
}

impl TargetHost {
    /// Reads `host:port`: an IPv4 address, an IPv6 address in brackets, or a DNS name.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let named = !host.is_empty() && host.len() <= 253 && host.bytes().all(good);
        named.then(|| Self::Dns(host.into(), port))
    }
}

impl CompiledUpstream {
    /// Compiles `spec`, with the states of `old` for what is in both.
    pub(crate) fn compile(
        name: &Name,
        spec: &Arc<model::Upstream>,
        old: Option<&Self>,
    ) -> Result<Self, Vec<Violation>> {
        let (mut endpoints, mut violations) = (Vec::with_capacity(spec.targets.len()), Vec::new());
        for (index, target) in spec.targets.iter().enumerate() {
            let Some(host) = TargetHost::parse(&target.address) else {
                violations.push(Violation {
                    path: format!("upstreams.{name}.targets[{index}].address"),
                    message: format!("{:?} is not host:port", target.address),
                });
                continue;
            };
            let label: Box<str> = target.address.as_str().into();
            let known = old.and_then(|old| old.endpoints.all().iter().find(|known| known.label == label));
            let state = known.map_or_else(Arc::default, |known| known.state.clone());
            if target.weight > 0 {
                endpoints.push(Endpoint { label, host, weight: target.weight.into(), state });
            }
        }
        let transport = Transport::compile(name, spec, old.map(|old| (&*old.spec, &old.transport)));
        let transport = match transport {
            Ok(transport) if violations.is_empty() => transport,
            transport => {
                violations.extend(transport.err().unwrap_or_default());
                return Err(violations);
            }
        };
        let state = old.map_or_else(Arc::default, |old| old.state.clone());
        let connections = old.and_then(|old| old.connections.as_ref());
        Ok(Self {
            name: name.clone(),
            spec: spec.clone(),
            transport,
            endpoints: Endpoints::new(endpoints),
            state,
            retry: Rule::of(&spec.retry),
            connections: Connections::under(spec.limits.connections, connections),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(text: &str, old: Option<&CompiledUpstream>) -> CompiledUpstream {
        let spec = Arc::new(serde_json::from_str(text).unwrap());
        CompiledUpstream::compile(&Name::new("u").unwrap(), &spec, old).unwrap()
    }

    #[test]
    fn a_target_is_an_address_or_a_name_with_a_port() {
        for good in ["10.0.0.1:80", "[::1]:8080", "orders:80", "orders.internal.:443"] {
            assert!(TargetHost::parse(good).is_some(), "{good}");
        }
        for bad in
            ["", "orders", "orders:", ":80", "orders:0", "orders:65536", "::1:80", "http://x:80", "a b:80"]
        {
            assert!(TargetHost::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn state_stays_with_an_address_across_changes() {
        let old = upstream(r#"{"targets":[{"address":"a:1"},{"address":"b:1"}]}"#, None);
        let text =
            r#"{"targets":[{"address":"b:1","weight":3},{"address":"c:1"},{"address":"d:1","weight":0}]}"#;
        let new = upstream(text, Some(&old));
        assert!(Arc::ptr_eq(&old.state, &new.state));
        let (old, new) = (old.endpoints.all(), new.endpoints.all());
        assert!(Arc::ptr_eq(&old[1].state, &new[0].state));
        assert_eq!(new.len(), 2);
        assert!(old.iter().all(|known| known.state.id != new[1].state.id));
    }
}
