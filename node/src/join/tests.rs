use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use model::{
    NodeId, Revision,
    cluster::{Cluster, ClusterChange, ClusterOutcome, Role},
};
use raft::server_name;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{
    service::Routes,
    transport::{Server, server::TlsConnectInfo},
};

use super::*;
use crate::{
    identity::found,
    renew::{self, PeerService},
};

/// Consensus of one replica, which every member of the test shares.
#[derive(Clone)]
struct Shared {
    me: NodeId,
    leader: Arc<AtomicU64>,
    cluster: Arc<watch::Sender<Arc<Cluster>>>,
    identity: NodeIdentity,
}

#[async_trait]
impl Group for Shared {
    fn leader(&self) -> Option<NodeId> {
        Some(self.leader.load(Ordering::SeqCst)).filter(|leader| *leader != 0).map(NodeId)
    }

    fn channel(&self, node: NodeId) -> Result<raft::Channel, raft::Error> {
        let address = self.cluster.borrow().nodes[&node].address.clone();
        let client = self.identity.peer_tls().unwrap().client;
        let name = server_name(node, &self.identity.cluster_id);
        let connector = tower::service_fn(move |_| {
            let (address, connector, name) =
                (address.clone(), TlsConnector::from(client.clone()), name.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        });
        let channel = Endpoint::from_static("http://member").connect_with_connector_lazy(connector);
        Ok(raft::Channel::new(tower::ServiceExt::map_err(channel, |error| raft::CallError(error.into()))))
    }

    async fn propose(&self, change: ClusterChange, _: &str) -> Result<ClusterOutcome, raft::Error> {
        let mut outcome = ClusterOutcome::Done;
        self.cluster.send_modify(|cluster| {
            let index = 100 + cluster.nodes.len() as u64;
            outcome = Arc::make_mut(cluster).apply(&change, index, identity::now_ms());
        });
        Ok(outcome)
    }
}

fn place(name: &str, listener: &TcpListener) -> Place {
    let address = listener.local_addr().unwrap().to_string();
    Place { name: name.to_owned(), advertise: address, admin: "127.0.0.1:9080".to_owned() }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Serves a member's join and peer services until the test ends.
fn serve(group: &Shared, listener: TcpListener) -> watch::Sender<Revision> {
    let (installing, installed) = watch::channel(Revision(0));
    let cluster = group.cluster.subscribe();
    let joins = JoinService::new(group.clone(), group.identity.clone(), cluster.clone()).server();
    // Node ids are told by the key in the client's certificate here; in a node, by its name.
    let by_name = |extensions: &tonic::Extensions| {
        let info = extensions.get::<TlsConnectInfo<tonic::transport::server::TcpConnectInfo>>()?;
        let certificates = info.peer_certs()?;
        let (_, leaf) = x509_parser::parse_x509_certificate(certificates.first()?).ok()?;
        let name = leaf.subject().iter_common_name().next()?.as_str().ok()?;
        name.strip_prefix("node-")?.split('.').next()?.parse().ok().map(NodeId)
    };
    let peers = PeerService::new(group.clone(), group.identity.clone(), cluster, installed, by_name).server();
    let acceptor = TlsAcceptor::from(group.identity.peer_tls().unwrap().server);
    let incoming = TcpListenerStream::new(listener).then(move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream?).await }
    });
    let incoming = incoming.filter(Result::is_ok);
    tokio::spawn(
        Server::builder().add_routes(Routes::new(joins).add_service(peers)).serve_with_incoming(incoming),
    );
    installing
}

/// A cluster of one node that serves.
struct Fixture {
    group: Shared,
    address: String,
    token: tokens::Join,
    data: TempDir,
    _installed: watch::Sender<Revision>,
}

impl Fixture {
    async fn new() -> Self {
        let (data, listener) = (tempfile::tempdir().unwrap(), listen().await);
        let place = place("one", &listener);
        let founded = found(data.path(), &place).unwrap();
        let mut cluster = Cluster::default();
        cluster.apply(&founded.change, 1, 0);
        let token = tokens::Join::generate(founded.identity.ca_sha256().unwrap());
        let stored = token.stored(identity::now_ms() + 3_600_000, 2);
        cluster.join_tokens.insert(token.id.clone(), stored);
        assert_eq!(
            tokens::verify_admin(&cluster, &founded.admin_token, 0),
            Some(("first".to_owned(), Role::Admin))
        );
        let group = Shared {
            me: NodeId(1),
            leader: Arc::new(AtomicU64::new(1)),
            cluster: Arc::new(watch::channel(Arc::new(cluster)).0),
            identity: founded.identity,
        };
        let _installed = serve(&group, listener);
        Self { group, address: place.advertise, token, data, _installed }
    }

    fn before(&self) -> Arc<Cluster> {
        self.group.cluster.borrow().clone()
    }
}

#[tokio::test]
async fn a_node_joins_and_its_retries_give_the_same_id_and_take_one_use() {
    let fixture = Fixture::new().await;
    let (data, listener) = (tempfile::tempdir().unwrap(), listen().await);
    let place = place("two", &listener);
    let text = fixture.token.text();
    let two = join(data.path(), &fixture.address, &text, &place, &listener).await.unwrap();
    assert_eq!(two.node_id, NodeId(101));
    assert_eq!(fixture.before().join_tokens[&fixture.token.id].uses_left, 1);
    let loaded = NodeIdentity::load(data.path()).unwrap().unwrap();
    assert_eq!((loaded.node_id, &loaded.cluster_id), (two.node_id, &fixture.group.identity.cluster_id));
    assert!(!joining_file(data.path()).exists());

    // As if the first answer had got lost: the key is there, and the identity is not.
    let file = data.path().join(identity::FILE);
    let stored = identity::read_file::<serde_json::Value>(&file).unwrap().unwrap();
    let key_pem = Secret(stored["key_pem"].as_str().unwrap().to_owned());
    identity::write_file(&joining_file(data.path()), &Joining { key_pem }).unwrap();
    let again = join(data.path(), &fixture.address, &text, &place, &listener).await.unwrap();
    assert_eq!(again.node_id, two.node_id);
    assert_eq!(fixture.before().join_tokens[&fixture.token.id].uses_left, 1);
}

#[tokio::test]
async fn a_follower_passes_a_join_on_and_certificates_are_renewed_by_the_leader() {
    let fixture = Fixture::new().await;
    let (data, listener) = (tempfile::tempdir().unwrap(), listen().await);
    let second_place = place("two", &listener);
    let text = fixture.token.text();
    let two = join(data.path(), &fixture.address, &text, &second_place, &listener).await.unwrap();
    let follower = Shared { me: two.node_id, identity: two.clone(), ..fixture.group.clone() };
    let installed = serve(&follower, listener);

    let (other, listener) = (tempfile::tempdir().unwrap(), listen().await);
    let third_place = place("three", &listener);
    let three = join(other.path(), &second_place.advertise, &text, &third_place, &listener).await.unwrap();
    assert_eq!(three.node_id, NodeId(102));
    assert!(three.node_id != follower.me);

    let cluster = follower.cluster.subscribe();
    let before = two.certificate_pem();
    renew::renew(&follower, &two, &cluster).await.unwrap();
    assert_ne!(before, two.certificate_pem());
    assert_eq!(NodeIdentity::load(data.path()).unwrap().unwrap().certificate_pem(), two.certificate_pem());

    installed.send_replace(Revision(5));
    let limit = Duration::from_secs(20);
    let one = &fixture.group;
    let found = renew::await_installed(one, &one.identity, two.node_id, Revision(4), limit).await;
    assert_eq!(found.unwrap(), Revision(5));

    one.propose(ClusterChange::Remove { node_id: two.node_id }, "").await.unwrap();
    let error = renew::renew(&follower, &two, &cluster).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().contains("no member")), (Code::Denied, true), "{error}");
}

#[tokio::test]
async fn what_is_wrong_is_said_and_nothing_changes() {
    let fixture = Fixture::new().await;
    let listener = listen().await;
    let good = place("two", &listener);
    let elsewhere = listen().await;
    let now = identity::now_ms();
    let (used, late) = (
        tokens::Join { id: "used".to_owned(), ..fixture.token.clone() },
        tokens::Join { id: "late".to_owned(), ..fixture.token.clone() },
    );
    fixture.group.cluster.send_modify(|cluster| {
        let cluster = Arc::make_mut(cluster);
        cluster.join_tokens.insert("used".to_owned(), used.stored(now + 3_600_000, 0));
        cluster.join_tokens.insert("late".to_owned(), late.stored(now - 1, 1));
    });
    let unknown = tokens::Join::generate(fixture.token.ca_sha256);
    let forged = tokens::Join { secret: unknown.secret.clone(), ..fixture.token.clone() };
    let foreign = tokens::Join { ca_sha256: [9; 32], ..fixture.token.clone() };
    let at = |advertise: String| Place { advertise, ..good.clone() };
    let nobody = {
        let gone = listen().await;
        gone.local_addr().unwrap().to_string()
    };
    let other_server = Fixture::new().await;
    drop(elsewhere);
    let cases = [
        (unknown.text(), good.clone(), "the join token is unknown"),
        (forged.text(), good.clone(), "the join token is unknown"),
        (used.text(), good.clone(), "the join token is used up"),
        (late.text(), good.clone(), "the join token has expired"),
        (foreign.text(), good.clone(), "is not the token's: wrong address or someone in between"),
        (fixture.token.text().replace('.', ","), good.clone(), "this is no join token"),
        (format!("{}0", fixture.token.text()), good.clone(), "mistyped"),
        (fixture.token.text(), at("0.0.0.0:7080".to_owned()), "nobody can dial"),
        (fixture.token.text(), at(fixture.address.clone()), "has the address"),
        (fixture.token.text(), at(nobody), "can't be dialled back"),
        (fixture.token.text(), at(other_server.address.clone()), "another node or program answers there"),
    ];
    let before = fixture.before();
    for (token, place, expected) in cases {
        let data = tempfile::tempdir().unwrap();
        let error = join(data.path(), &fixture.address, &token, &place, &listener).await.err().unwrap();
        assert!(error.to_string().contains(expected), "{error} (not {expected:?})");
        assert!(NodeIdentity::load(data.path()).unwrap().is_none());
        assert_eq!(fixture.before(), before, "{expected}");
    }
    assert!(fixture.data.path().exists());
}

#[tokio::test]
async fn without_a_leader_or_within_a_foreign_version_nobody_joins() {
    let fixture = Fixture::new().await;
    let (data, listener) = (tempfile::tempdir().unwrap(), listen().await);
    let place = place("two", &listener);
    fixture.group.leader.store(0, Ordering::SeqCst);
    let text = fixture.token.text();
    let error = join(data.path(), &fixture.address, &text, &place, &listener).await.err().unwrap();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.to_string().contains("no leader"), "{error}");

    fixture.group.leader.store(1, Ordering::SeqCst);
    let request =
        JoinRequest { version: "9.0.0".to_owned(), protocol_min: 90, protocol_max: 91, ..Default::default() };
    let error = ask(&fixture.address, fixture.token.ca_sha256, request).await.err().unwrap();
    assert!(error.to_string().starts_with("version 9.0.0 speaks protocols 90 to 91"), "{error}");
}

#[test]
fn outcomes_cross_the_wire() {
    for code in [Code::Invalid, Code::Denied, Code::Conflict, Code::Unavailable, Code::Timeout] {
        assert_eq!(code_of(&status(code, "")), code);
    }
    assert_eq!(code_of(&tonic::Status::internal("")), Code::Unavailable);
}
