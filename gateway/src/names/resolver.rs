//! One look at DNS: what it says of a name, and for how long that is good.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::{RData, rdata::SRV},
    system_conf::read_system_conf,
};

use super::{Answer, Place, Question, Record};

/// What says which servers are asked, and which names are known without them.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// The most places that a name may stand for; of more, these many are used.
const PLACES_MAX: usize = 1_000;
/// The most hosts of a service that are looked up.
const HOSTS_MAX: usize = 256;

/// Who is asked for names.
pub(super) struct Resolver {
    /// Instead of those of the system.
    servers: Vec<SocketAddr>,
    resolver: TokioResolver,
    /// When the files were written that it was made from.
    read: [Option<SystemTime>; FILES.len()],
}

/// What was found.
pub(super) struct Found {
    pub(super) places: Arc<[Place]>,
    /// For how long it is good.
    pub(super) ttl: Duration,
}

impl Resolver {
    /// Asks these servers, or those of the system if there are none.
    pub(super) fn new(servers: Vec<SocketAddr>) -> Result<Self, NetError> {
        let read = written();
        Ok(Self { resolver: build(&servers)?, servers, read })
    }

    /// Reads the system's files again if they were changed.
    pub(super) fn refresh(&mut self) {
        let written = written();
        if written != self.read {
            match build(&self.servers) {
                Ok(resolver) => self.resolver = resolver,
                Err(error) => {
                    tracing::warn!(%error, "the new /etc/resolv.conf can't be used; the old one stays")
                }
            }
            self.read = written;
        }
    }

    /// What answers one question. A clone keeps what servers were found to be good.
    pub(super) fn handle(&self) -> Handle {
        Handle(self.resolver.clone())
    }
}

/// What answers one question.
pub(super) struct Handle(TokioResolver);

impl Handle {
    /// What the name stands for. Of a host that has addresses of IPv4 and of IPv6 those of IPv4 are used. `before` are the places that
    /// were known, of which those stay whose host can't be looked up now.
    pub(super) async fn look_up(&self, question: &Question, before: &Answer) -> Result<Found, NetError> {
        let (mut places, until) = match question {
            Question::Host(name) => {
                let (addresses, until) = self.addresses(name).await?;
                let places: BTreeSet<Place> = addresses.map(|ip| Place { ip, record: None }).collect();
                (places, until)
            }
            Question::Service(name) => self.service(name, before).await?,
        };
        while places.len() > PLACES_MAX {
            places.pop_last();
        }
        if places.is_empty() {
            return Err(NetError::Message("it stands for no place"));
        }
        let ttl = until.saturating_duration_since(Instant::now());
        Ok(Found { places: places.into_iter().collect(), ttl })
    }

    async fn addresses(
        &self,
        name: &str,
    ) -> Result<(impl Iterator<Item = IpAddr> + use<>, Instant), NetError> {
        let found = self.0.lookup_ip(name).await?;
        let until = found.valid_until();
        let addresses: Vec<IpAddr> = found.iter().collect();
        Ok((addresses.into_iter(), until))
    }

    async fn service(&self, name: &str, before: &Answer) -> Result<(BTreeSet<Place>, Instant), NetError> {
        let found = self.0.srv_lookup(name).await?;
        let mut until = found.valid_until();
        let mut places = BTreeSet::new();
        let mut failure = None;
        let services = found.answers().iter().filter_map(|answer| match &answer.data {
            // A root label says that there is no such service here (RFC 2782).
            RData::SRV(service) if !service.target.is_root() => Some(service),
            _ => None,
        });
        for SRV { priority, weight, port, target, .. } in services.take(HOSTS_MAX) {
            let host = target.to_ascii();
            let record =
                Record { host: host.as_str().into(), port: *port, priority: *priority, weight: *weight };
            match self.addresses(&host).await {
                Ok((addresses, good_until)) => {
                    until = until.min(good_until);
                    places.extend(addresses.map(|ip| Place { ip, record: Some(record.clone()) }));
                }
                Err(error) => {
                    tracing::debug!(service = %name, %host, %error, "a host of a service can't be looked up");
                    let Answer::Places(known) = before else {
                        failure = Some(error);
                        continue;
                    };
                    let is_its = |place: &&Place| place.record.as_ref() == Some(&record);
                    places.extend(known.iter().filter(is_its).cloned());
                    failure = Some(error);
                }
            }
        }
        match failure {
            Some(error) if places.is_empty() => Err(error),
            _ => Ok((places, until)),
        }
    }
}

fn written() -> [Option<SystemTime>; FILES.len()] {
    FILES.map(|file| std::fs::metadata(file).and_then(|file| file.modified()).ok())
}

fn build(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let (config, mut options) = if servers.is_empty() {
        read_system_conf().unwrap_or_else(|error| {
            tracing::debug!(%error, "/etc/resolv.conf can't be read; this machine is asked");
            // As the C library does: resolv.conf(5).
            (config_of(&[SocketAddr::from(([127, 0, 0, 1], 53))]), ResolverOpts::default())
        })
    } else {
        (config_of(servers), ResolverOpts::default())
    };
    // How old an answer may be is decided by who asks.
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

fn config_of(servers: &[SocketAddr]) -> ResolverConfig {
    let servers = servers.iter().map(|server| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = server.port();
            connection
        });
        NameServerConfig::new(server.ip(), true, connections.into())
    });
    ResolverConfig::from_parts(None, Vec::new(), servers.collect())
}
