use std::sync::Arc;

use raft::server_name;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn place() -> Place {
    Place {
        name: "one".to_owned(),
        advertise: "gateway-1.example:7080".to_owned(),
        admin: "[2001:db8::1]:9080".to_owned(),
    }
}

fn signer(founded: &Founded) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.apply(&founded.change, 1, 0);
    cluster
}

/// The serial number of the certificate that the server shows, and its client's; or why there was no handshake.
async fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<Vec<u8>, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = TlsAcceptor::from(server).accept(stream).await.map_err(|error| error.to_string())?;
        let client = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
        stream.write_all(&[u8::try_from(client).unwrap()]).await.map_err(|error| error.to_string())?;
        stream.shutdown().await.map_err(|error| error.to_string())
    };
    let calling = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TlsConnector::from(client).connect(name, stream).await;
        let mut stream = stream.map_err(|error| error.to_string())?;
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
        stream.read_u8().await.map_err(|error| error.to_string())?;
        Ok(leaf)
    };
    let (_, called) = tokio::join!(serving, calling);
    called
}

#[tokio::test]
async fn a_peer_is_known_by_its_node_id_and_no_other() {
    let data = tempfile::tempdir().unwrap();
    let one = found(data.path(), &place()).unwrap().identity;
    let (server, client) = {
        let tls = one.peer_tls().unwrap();
        (tls.server, tls.client)
    };
    handshake(server.clone(), client.clone(), &server_name(NodeId(1), &one.cluster_id)).await.unwrap();
    for good in ["gateway-1.example", "localhost", "127.0.0.1", "2001:db8::1"] {
        handshake(server.clone(), client.clone(), good).await.unwrap();
    }
    for wrong in [server_name(NodeId(2), &one.cluster_id), server_name(NodeId(1), "00"), "example".to_owned()]
    {
        let error = handshake(server.clone(), client.clone(), &wrong).await.unwrap_err();
        assert!(error.contains("not valid for name"), "{error}");
    }
    let stranger = found(data.path(), &place()).unwrap().identity;
    let name = server_name(NodeId(1), &one.cluster_id);
    handshake(server.clone(), stranger.peer_tls().unwrap().client, &name).await.unwrap_err();
    handshake(stranger.peer_tls().unwrap().server, client, &name).await.unwrap_err();
}

#[tokio::test]
async fn a_renewed_certificate_is_stored_and_shown_to_new_connections() {
    let data = tempfile::tempdir().unwrap();
    let founded = found(data.path(), &place()).unwrap();
    let one = founded.identity.clone();
    one.store().unwrap();
    let (server, client) = {
        let tls = one.peer_tls().unwrap();
        (tls.server, tls.client)
    };
    let name = server_name(NodeId(1), &one.cluster_id);
    let first = handshake(server.clone(), client.clone(), &name).await.unwrap();
    let cluster = signer(&founded);
    let node = &cluster.nodes[&NodeId(1)];
    let renewed = authority(&cluster).unwrap().sign(&one.csr().unwrap(), NodeId(1), node).unwrap();
    one.renew(&renewed).unwrap();
    let second = handshake(server, client, &name).await.unwrap();
    assert_ne!(first, second);
    let loaded = NodeIdentity::load(data.path()).unwrap().unwrap();
    assert_eq!((loaded.node_id, loaded.certificate_pem()), (NodeId(1), renewed));

    let other = found(data.path(), &place()).unwrap().identity;
    assert!(one.renew(&other.certificate_pem()).is_err());
    assert_eq!(one.certificate_pem(), loaded.certificate_pem());
}

#[test]
fn an_identity_is_private_to_its_owner_and_a_corrupt_one_says_so() {
    use std::os::unix::fs::PermissionsExt;

    let data = tempfile::tempdir().unwrap();
    assert!(NodeIdentity::load(data.path()).unwrap().is_none());
    found(data.path(), &place()).unwrap().identity.store().unwrap();
    let file = data.path().join(FILE);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let sound = std::fs::read(&file).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(&file, bytes).unwrap();
        let error = NodeIdentity::load(data.path()).err().unwrap().to_string();
        assert!(error.contains("identity.json is corrupt"), "{error}");
    };
    // A digit of the cluster's id with a bit flipped is mostly another digit.
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1;
        refused(&bytes);
        refused(&sound[..at]);
    }
    std::fs::write(&file, &sound).unwrap();
    assert!(NodeIdentity::load(data.path()).unwrap().is_some());
}

#[test]
fn only_the_key_is_taken_from_a_signing_request() {
    let data = tempfile::tempdir().unwrap();
    let founded = found(data.path(), &place()).unwrap();
    let cluster = signer(&founded);
    let key = Key::generate().unwrap();
    let mut node = cluster.nodes[&NodeId(1)].clone();
    node.admin = format!("{}:1", server_name(NodeId(1), "x"));
    let signed = authority(&cluster).unwrap().sign(&key.csr().unwrap(), NodeId(9), &node).unwrap();
    let der = ca::certificate(&signed).unwrap();
    assert_eq!(leaf_public_key(&der).unwrap(), key.public_key_sha256());
    assert_eq!(csr_public_key(&key.csr().unwrap()).unwrap(), key.public_key_sha256());
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value);
    assert!(names.contains("node-9.") && !names.contains("node-1."), "{names}");
    assert!(csr_public_key(b"no request").is_err());
}

#[test]
fn addresses_that_nobody_can_dial_are_refused() {
    for good in ["10.0.0.1:7080", "[::1]:7080", "gw-1.example:7080", "localhost:1"] {
        check_address("it", good).unwrap();
    }
    for bad in ["", "7080", "host", "host:0", "host:70000", "0.0.0.0:7080", "[::]:7080", "a b:1", ":7080"] {
        assert!(check_address("it", bad).is_err(), "{bad}");
    }
}
