//! Joining a cluster: the side of the node that joins.
//!
//! The node makes its key and stores it, so that every attempt is the same node's; dials a member; takes it for a member
//! only if the CA that it shows is the token's; and then shows the token and a signing request. Meanwhile it answers on
//! its own peer port, where the leader dials back to see that others can reach it and that it holds the key.

mod group;
mod service;

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cluster_proto::peer::{JoinReply, JoinRequest, join_client::JoinClient};
use hyper_util::rt::TokioIo;
use model::{Code, cluster::Secret};
use rustls::CertificateError;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

pub(crate) use self::{group::Group, service::JoinService};
use crate::{
    identity::{self, Error, Key, NodeIdentity, Place},
    tokens,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the leader's dialling back and for the proposal.
const JOIN_TIMEOUT: Duration = Duration::from_secs(15);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Handshakes at a time on the port of a node that joins.
const HANDSHAKES_MAX: usize = 16;
/// In TLS a server must be called something; here it is not looked at.
const ANY_NAME: &str = "joining.phalanx.internal";

/// What is stored between the attempts to join.
#[derive(Serialize, Deserialize)]
struct Joining {
    key_pem: Secret<String>,
}

fn joining_file(data: &Path) -> PathBuf {
    data.join("joining.json")
}

/// Joins the cluster of this token by way of the member at `address`, under this place, whose advertised address must
/// lead to `listener`. The identity is stored when this returns. Nothing changed on an error, except that an answer
/// that got lost may have made the node a member: the next attempt finds that and takes the same id.
pub(crate) async fn join(
    data: &Path,
    address: &str,
    token: &str,
    place: &Place,
    listener: &TcpListener,
) -> Result<NodeIdentity, Error> {
    let token = tokens::Join::parse(token)?;
    identity::check_address("the advertised address", &place.advertise)?;
    let file = joining_file(data);
    let key = match identity::read_file::<Joining>(&file)? {
        Some(joining) => Key::from_pem(&joining.key_pem.0)
            .map_err(|error| Error::Corrupt { file: file.clone(), reason: error.to_string() })?,
        None => {
            let key = Key::generate()?;
            identity::write_file(&file, &Joining { key_pem: Secret(key.pem()) })?;
            key
        }
    };
    let request = JoinRequest {
        token_id: token.id.clone(),
        token_secret: token.secret.clone(),
        csr_der: key.csr()?.into(),
        name: place.name.clone(),
        advertise: place.advertise.clone(),
        admin: place.admin.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol_min: cluster_proto::PROTOCOL_MIN,
        protocol_max: cluster_proto::PROTOCOL,
    };
    let answering = answer(listener, &key)?;
    let reply = tokio::select! {
        reply = ask(address, token.ca_sha256, request) => reply?,
        never = answering => never,
    };
    let identity = NodeIdentity::issued(data, &key, reply)?;
    if identity.ca_sha256()? != token.ca_sha256 {
        return Err(Error::WrongCa { address: address.to_owned() });
    }
    identity.store()?;
    identity::remove_file(&file)?;
    Ok(identity)
}

async fn ask(address: &str, ca_sha256: [u8; 32], request: JoinRequest) -> Result<JoinReply, Error> {
    let unreachable = |reason: &dyn ToString| Error::Unreachable {
        address: address.to_owned(),
        reason: reason.to_string(),
    };
    let connecting = timeout(CONNECT_TIMEOUT, connect(address, ca_sha256));
    let stream = connecting.await.map_err(|_| unreachable(&"no answer within 5 s"))??;
    let channel = over(stream).await.map_err(|error| unreachable(&error))?;
    let mut client = JoinClient::new(channel);
    let reply = timeout(JOIN_TIMEOUT, client.join(request)).await;
    match reply.map_err(|_| unreachable(&"no answer within 15 s"))? {
        Ok(reply) => Ok(reply.into_inner()),
        Err(status) => {
            let code = code_of(&status);
            Err(Error::Refused { code, reason: status.message().to_owned() })
        }
    }
}

/// A connection to whoever shows the CA of this hash and a certificate signed by it. Nothing was sent on it yet.
async fn connect(address: &str, ca_sha256: [u8; 32]) -> Result<TlsStream<TcpStream>, Error> {
    let unreachable =
        |error: std::io::Error| Error::Unreachable { address: address.to_owned(), reason: error.to_string() };
    let check = move |leaf: &CertificateDer<'_>, others: &[CertificateDer<'_>], now: UnixTime| {
        let wanted = others.iter().find(|other| identity::sha256(other) == ca_sha256);
        let ca = wanted.ok_or(CertificateError::ApplicationVerificationFailure)?;
        identity::chain(leaf, ca, now)
    };
    let config = identity::client_checked_by(check)?;
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    let name = ServerName::try_from(ANY_NAME).expect("it is a DNS name");
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(
                expired @ (CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }),
            )) => {
                let reason = format!("{expired}; is a clock wrong?");
                Error::Unreachable { address: address.to_owned(), reason }
            }
            Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
                Error::WrongCa { address: address.to_owned() }
            }
            _ => unreachable(error),
        }
    })
}

/// A channel over this connection alone.
async fn over(stream: TlsStream<TcpStream>) -> Result<Channel, tonic::transport::Error> {
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream =
            stream.map(TokioIo::new).ok_or_else(|| std::io::Error::other("the connection was closed"));
        std::future::ready(stream)
    });
    Endpoint::from_static("http://member.phalanx.internal").connect_with_connector(connector).await
}

/// Answers TLS handshakes with a certificate of its own for this key, for as long as it is polled.
fn answer<R>(listener: &TcpListener, key: &Key) -> Result<impl Future<Output = R>, Error> {
    let acceptor = TlsAcceptor::from(identity::server_for_dial_back(key)?);
    Ok(async move {
        let mut handshakes = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => match accepted {
                    Ok((stream, _)) => {
                        let handshake = acceptor.accept(stream);
                        // Who it was and whether it worked is told by the one who dials.
                        handshakes.spawn(async move { drop(timeout(HANDSHAKE_TIMEOUT, handshake).await) });
                    }
                    // Out of descriptors, most likely: it passes when others end.
                    Err(error) => {
                        tracing::warn!(%error, "a connection to the peer port was not accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = handshakes.join_next() => {}
            }
        }
    })
}

/// The outcome behind a gRPC status.
pub(crate) fn code_of(status: &tonic::Status) -> Code {
    use Code::{Conflict, Denied, Exhausted, Invalid, NotFound, Timeout, Unauthenticated, Unavailable};
    [Invalid, Unauthenticated, Denied, NotFound, Conflict, Exhausted, Timeout]
        .into_iter()
        .find(|code| i32::from(code.grpc_status()) == status.code() as i32)
        .unwrap_or(Unavailable)
}

/// The gRPC status of an outcome.
pub(crate) fn status(code: Code, reason: impl Into<String>) -> tonic::Status {
    tonic::Status::new(tonic::Code::from(i32::from(code.grpc_status())), reason)
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod tests;
