//! Who this node is: its id, key and certificate, the CA it trusts, and the TLS made of them.

mod ca;
mod store;
mod tls;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use model::{
    Code, NodeId,
    cluster::{Cluster, ClusterChange, Founding, Node, Role, Secret},
};
use rustls_pki_types::CertificateDer;

pub(crate) use ca::{Authority, Key, csr_public_key, leaf_public_key, sha256};
use tls::Live;
pub(crate) use tls::{chain, client_checked_by, server_for_dial_back};

use crate::tokens;

/// The name of the file in the data directory.
pub(crate) const FILE: &str = "identity.json";
/// How long a node's certificate is good for, in seconds.
pub(crate) const LIFETIME_S: u64 = 30 * 24 * 3600;

/// Why there is no identity, or no joining.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file is not what this node wrote.
    #[error("{file} is corrupt: {reason}; restore it, or move the data directory away and join anew")]
    Corrupt {
        /// Which.
        file: PathBuf,
        /// In which way.
        reason: String,
    },
    /// A file can't be read or written.
    #[error("{file}: {source}")]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key, request or certificate is no good.
    #[error("{0}")]
    Certificate(String),
    /// The join token is no good.
    #[error(transparent)]
    Token(#[from] tokens::BadToken),
    /// The other side shows another CA than the token's, so nothing was sent.
    #[error("the CA at {address} is not the token's: wrong address or someone in between; nothing was sent")]
    WrongCa {
        /// Where it was asked.
        address: String,
    },
    /// No connection, or none that lasted.
    #[error("{address} can't be reached: {reason}")]
    Unreachable {
        /// Where it was asked.
        address: String,
        /// Why.
        reason: String,
    },
    /// The cluster said no, and nothing changed.
    #[error("{reason}")]
    Refused {
        /// In which way.
        code: Code,
        /// Why, for people.
        reason: String,
    },
}

impl Error {
    /// In which way it went wrong.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. } => *code,
            Self::Unreachable { .. } => Code::Unavailable,
            Self::WrongCa { .. } => Code::Denied,
            Self::Corrupt { .. } | Self::File { .. } => Code::Unavailable,
            Self::Certificate(_) | Self::Token(_) => Code::Invalid,
        }
    }
}

/// Who this node is. Cheap to clone; every clone sees a renewed certificate.
#[derive(Clone)]
pub(crate) struct NodeIdentity {
    /// Its number in the cluster.
    pub(crate) node_id: NodeId,
    /// The cluster's: 32 hexadecimal digits.
    pub(crate) cluster_id: String,
    /// The cluster's epoch when the node joined.
    pub(crate) epoch: u64,
    ca_pem: Arc<str>,
    key: Arc<Key>,
    live: Arc<Live>,
    file: Arc<PathBuf>,
}

/// What names a node to others.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// What people call it.
    pub(crate) name: String,
    /// `host:port` for peers.
    pub(crate) advertise: String,
    /// `host:port` of its admin API.
    pub(crate) admin: String,
}

/// What founding a cluster makes.
pub(crate) struct Founded {
    /// Node 1's identity; not stored yet.
    pub(crate) identity: NodeIdentity,
    /// What is to be proposed first.
    pub(crate) change: ClusterChange,
    /// The first admin token, to be shown once.
    pub(crate) admin_token: String,
}

/// Makes a cluster: its id, CA, gossip key, pepper and first admin token, and the identity of node 1. Nothing is stored
/// before [`NodeIdentity::store`].
pub(crate) fn found(data: &Path, place: &Place) -> Result<Founded, Error> {
    check_address("the advertised address", &place.advertise)?;
    let now_ms = now_ms();
    let cluster_id = tokens::hex(&tokens::random::<16>());
    let authority = Authority::generate(&cluster_id)?;
    let key = Key::generate()?;
    let node_id = NodeId(1);
    let node = Node {
        name: place.name.clone(),
        address: place.advertise.clone(),
        admin: place.admin.clone(),
        public_key: key.public_key_sha256(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        joined_at_ms: now_ms,
    };
    let certificate = authority.sign(&key.csr()?, node_id, &node)?;
    let admin = tokens::Admin::generate();
    let change = ClusterChange::Form {
        founding: Founding {
            cluster_id: cluster_id.clone(),
            epoch: 1,
            ca_certificate: authority.certificate_pem.clone(),
            ca_key: Secret(authority.key_pem()),
            pepper: Secret(tokens::hex(&tokens::random::<32>())),
        },
        node_id,
        node,
        admin_token_id: admin.id.clone(),
        admin_token: admin.stored(Role::Admin, "first".to_owned(), None),
        gossip_key: tokens::gossip_key(1),
    };
    let stored = store::Stored {
        node_id,
        cluster_id,
        epoch: 1,
        key_pem: Secret(key.pem()),
        certificate_pem: certificate,
        ca_pem: authority.certificate_pem,
    };
    let identity = NodeIdentity::new(stored, data)?;
    Ok(Founded { identity, change, admin_token: admin.text() })
}

/// The first member of a cluster that is founded again from what is left of it: its identity, not stored yet, and what the
/// members know of it.
pub(crate) fn found_again(
    data: &Path,
    place: &Place,
    cluster: &Cluster,
    node_id: NodeId,
) -> Result<(NodeIdentity, Node), Error> {
    check_address("the advertised address", &place.advertise)?;
    let (authority, key) = (authority(cluster)?, Key::generate()?);
    let node = Node {
        name: place.name.clone(),
        address: place.advertise.clone(),
        admin: place.admin.clone(),
        public_key: key.public_key_sha256(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        joined_at_ms: now_ms(),
    };
    let founding = cluster.founding.as_ref();
    let stored = store::Stored {
        node_id,
        cluster_id: founding.map(|founding| founding.cluster_id.clone()).unwrap_or_default(),
        epoch: founding.map_or(1, |founding| founding.epoch + 1),
        key_pem: Secret(key.pem()),
        certificate_pem: authority.sign(&key.csr()?, node_id, &node)?,
        ca_pem: authority.certificate_pem,
    };
    Ok((NodeIdentity::new(stored, data)?, node))
}

impl NodeIdentity {
    /// The identity in this data directory; none if it never joined a cluster.
    pub(crate) fn load(data: &Path) -> Result<Option<Self>, Error> {
        let file = data.join(FILE);
        let Some(stored) = store::read::<store::Stored>(&file)? else { return Ok(None) };
        let made = Self::new(stored, data);
        made.map(Some).map_err(|error| Error::Corrupt { file, reason: error.to_string() })
    }

    fn new(stored: store::Stored, data: &Path) -> Result<Self, Error> {
        let key = Key::from_pem(&stored.key_pem.0)?;
        let live = Live::new(&key, &stored.certificate_pem, &stored.ca_pem)?;
        Ok(Self {
            node_id: stored.node_id,
            cluster_id: stored.cluster_id,
            epoch: stored.epoch,
            ca_pem: stored.ca_pem.into(),
            key: Arc::new(key),
            live: Arc::new(live),
            file: Arc::new(data.join(FILE)),
        })
    }

    /// What a signer answered, as an identity; not stored yet.
    pub(crate) fn issued(
        data: &Path,
        key: &Key,
        reply: cluster_proto::peer::JoinReply,
    ) -> Result<Self, Error> {
        let stored = store::Stored {
            node_id: NodeId(reply.node_id),
            cluster_id: reply.cluster_id,
            epoch: reply.epoch,
            key_pem: Secret(key.pem()),
            certificate_pem: reply.certificate_pem,
            ca_pem: reply.ca_pem,
        };
        Self::new(stored, data)
    }

    /// Makes it durable: written beside, synced, renamed, and the directory synced.
    pub(crate) fn store(&self) -> Result<(), Error> {
        let stored = store::Stored {
            node_id: self.node_id,
            cluster_id: self.cluster_id.clone(),
            epoch: self.epoch,
            key_pem: Secret(self.key.pem()),
            certificate_pem: self.live.certificate_pem(),
            ca_pem: self.ca_pem.to_string(),
        };
        store::write(&self.file, &stored)
    }

    /// Takes a renewed certificate for the same key: stored first, then used for every new connection. Those that are
    /// there stay.
    pub(crate) fn renew(&self, certificate_pem: &str) -> Result<(), Error> {
        let before = self.live.swap(&self.key, certificate_pem, &self.ca_pem)?;
        self.store().inspect_err(|_| self.live.put_back(before))
    }

    /// A request to sign this node's key.
    pub(crate) fn csr(&self) -> Result<Vec<u8>, Error> {
        self.key.csr()
    }

    /// The CA's certificate.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the CA's certificate (DER), as join tokens carry it.
    pub(crate) fn ca_sha256(&self) -> Result<[u8; 32], Error> {
        Ok(ca::sha256(&ca::certificate(&self.ca_pem)?))
    }

    /// The node's certificate as it is now.
    #[cfg(test)]
    pub(crate) fn certificate_pem(&self) -> String {
        self.live.certificate_pem()
    }

    /// Milliseconds since the Unix epoch at which the node's certificate ends.
    pub(crate) fn certificate_expires_at_ms(&self) -> u64 {
        self.live.ends_at_ms()
    }

    /// Who consensus takes this process for.
    pub(crate) fn raft_identity(&self) -> raft::Identity {
        raft::Identity { node_id: self.node_id, cluster_id: self.cluster_id.clone(), epoch: self.epoch }
    }

    /// TLS between members, 1.3 alone, with the cluster's CA as the only root. On the peer port a client's certificate
    /// is verified when one is given, and not asked for by force, since a node that joins has none.
    pub(crate) fn peer_tls(&self) -> Result<raft::PeerTls, Error> {
        let server = tls::peer_server(&self.live, self.ca()?)?;
        let client = tls::peer_client(&self.live, self.ca()?)?;
        Ok(raft::PeerTls { server, client })
    }

    /// TLS of the admin API, with no client certificates.
    pub(crate) fn admin_tls(&self) -> Result<Arc<rustls::ServerConfig>, Error> {
        tls::admin_server(&self.live)
    }

    fn ca(&self) -> Result<CertificateDer<'static>, Error> {
        ca::certificate(&self.ca_pem)
    }
}

/// The signer of a formed cluster.
pub(crate) fn authority(cluster: &Cluster) -> Result<Authority, Error> {
    let founding = cluster.founding.as_ref();
    let founding = founding.ok_or_else(|| Error::Refused {
        code: Code::Unavailable,
        reason: "the cluster is not formed yet".to_owned(),
    })?;
    Authority::load(founding)
}

/// That this is a `host:port` others can dial.
pub(crate) fn check_address(what: &str, address: &str) -> Result<(), Error> {
    let bad = |reason: &str| {
        Err(Error::Refused { code: Code::Invalid, reason: format!("{what} {address:?} {reason}") })
    };
    let Some((host, port)) = address.rsplit_once(':') else { return bad("is no host:port") };
    if !port.parse::<u16>().is_ok_and(|port| port != 0) {
        return bad("has no port between 1 and 65535");
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_unspecified() || ip.is_multicast() => bad("is one that nobody can dial"),
        Ok(_) => Ok(()),
        Err(_) if rustls_pki_types::DnsName::try_from(bare).is_ok() => Ok(()),
        Err(_) => bad("has neither a DNS name nor an IP address for its host"),
    }
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) use store::{read as read_file, remove as remove_file, write as write_file};

#[cfg(test)]
mod tests;
