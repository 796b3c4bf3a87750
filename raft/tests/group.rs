//! Groups of nodes with real TLS, real sockets and real storage.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use model::{
    Change, Code, Config, Kind, Name, NodeId, Op, Outcome, Revision, Violation,
    cluster::{
        AdminToken, ClusterChange, ClusterOutcome, Founding, GossipKey, JoinToken, Node, Role, Secret,
    },
};
use raft::{Admission, Consensus, Edit, Error, Expect, Identity, PeerTls, Settings, Storage, server_name};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

const CLUSTER: &str = "0123456789abcdef";
const LONG: Duration = Duration::from_secs(30);

struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn tls(&self, id: u64) -> PeerTls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![server_name(NodeId(id), CLUSTER)]).unwrap();
        let certificate = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        let key = || PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let roots = Arc::new(roots);
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
                .allow_unauthenticated()
                .build()
                .unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificate.clone(), key())
            .unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(certificate, key())
            .unwrap();
        PeerTls { server: Arc::new(server), client: Arc::new(client) }
    }
}

/// Refuses what has "bad" in its name.
struct NoBadNames;

impl Admission for NoBadNames {
    fn check(&self, _: &Config, change: &Change) -> Vec<Violation> {
        let bad = change.ops.iter().filter(|op| op.target().1.as_str().contains("bad"));
        bad.map(|op| Violation { path: op.target().1.to_string(), message: "is bad".into() }).collect()
    }
}

fn settings() -> Settings {
    Settings {
        heartbeat: Duration::from_millis(50),
        election_min: Duration::from_millis(300),
        election_max: Duration::from_millis(600),
        promote_after: Duration::from_millis(100),
        ..Settings::default()
    }
}

struct Running {
    consensus: Consensus,
    address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn start(ca: &Ca, id: u64, dir: &Path, address: Option<SocketAddr>, settings: Settings) -> Self {
        let listener =
            tokio::net::TcpListener::bind(address.unwrap_or("127.0.0.1:0".parse().unwrap())).await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = Identity { node_id: NodeId(id), cluster_id: CLUSTER.into(), epoch: 1 };
        let (storage, tls) = (Storage::open(dir).unwrap(), ca.tls(id));
        let consensus =
            Consensus::start(storage, identity, &tls, Arc::new(NoBadNames), settings).await.unwrap();
        let stop = CancellationToken::new();
        let (served, stopping) = (consensus.clone(), stop.clone());
        let serving = tokio::spawn(async move {
            served.serve(listener, &tls, tonic::service::Routes::default(), stopping).await
        });
        Self { consensus, address, stop, serving }
    }

    async fn stop(self) {
        self.consensus.shutdown().await.unwrap();
        self.stop.cancel();
        self.serving.await.unwrap().unwrap();
    }

    async fn until(&self, what: &str, condition: impl Fn(&raft::Status) -> bool) {
        let waiting = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(10));
            while !condition(&self.consensus.status()) {
                ticks.tick().await;
            }
        };
        let waited = tokio::time::timeout(LONG, waiting).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.consensus.status());
    }

    async fn until_revision(&self, revision: Revision) {
        let mut config = self.consensus.config();
        let reached = config.wait_for(|config| config.revision >= revision);
        tokio::time::timeout(LONG, reached).await.expect("the revision arrives").unwrap();
    }
}

fn node(address: SocketAddr) -> Node {
    Node {
        name: address.to_string(),
        address: address.to_string(),
        admin: String::new(),
        public_key: address.to_string(),
        version: "0".into(),
        joined_at_ms: 0,
    }
}

async fn form(founder: &Running) {
    let change = ClusterChange::Form {
        founding: Founding {
            cluster_id: CLUSTER.into(),
            epoch: 1,
            ca_certificate: String::new(),
            ca_key: Secret(String::new()),
            pepper: Secret("ab".repeat(32)),
        },
        node_id: NodeId(1),
        node: node(founder.address),
        admin_token_id: "a".into(),
        admin_token: AdminToken {
            digest: String::new(),
            role: Role::Admin,
            label: "first".into(),
            expires_at_ms: None,
        },
        gossip_key: GossipKey { id: 1, secret: Secret("cd".repeat(32)) },
    };
    founder.consensus.form(&founder.address.to_string(), change).await.unwrap();
    let token = JoinToken { digest: "d".into(), expires_at_ms: u64::MAX, uses_left: 100 };
    let change = ClusterChange::PutJoinToken { id: "j".into(), token };
    let outcome = founder.consensus.cluster_change(change, "test", None, LONG).await.unwrap();
    assert_eq!(outcome, ClusterOutcome::Done);
}

/// Has a node admitted, starts it under its new id, and waits until it votes.
async fn join(ca: &Ca, through: &Running, dir: &Path) -> Running {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let admit = ClusterChange::Admit { token_id: "j".into(), token_digest: "d".into(), node: node(address) };
    let outcome = through.consensus.cluster_change(admit.clone(), "test", None, LONG).await.unwrap();
    let ClusterOutcome::Admitted(id) = outcome else { panic!("{outcome:?}") };
    // A retry gives the same id.
    assert_eq!(through.consensus.cluster_change(admit, "test", None, LONG).await.unwrap(), outcome);
    let running = Running::start(ca, id.0, dir, Some(address), settings()).await;
    running.until("it votes", |status| status.voters.contains(&id)).await;
    running
}

fn put(name: &str) -> Op {
    let doc = br#"{"targets":[{"address":"127.0.0.1:1"}]}"#;
    Op::Put { kind: Kind::Upstream, name: Name::new(name).unwrap(), doc: Arc::from(&doc[..]) }
}

fn edit(name: &str) -> Edit {
    Edit { ops: vec![put(name)], author: "test".into(), ..Edit::default() }
}

fn applied(outcome: Result<Outcome, Error>) -> Revision {
    match outcome {
        Ok(Outcome::Applied(revision)) => revision,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_write_anywhere_and_survive_their_leader() {
    let (ca, dirs) = (Ca::new(), [(); 3].map(|()| tempfile::tempdir().unwrap()));
    let first = Running::start(&ca, 1, dirs[0].path(), None, settings()).await;
    form(&first).await;
    let second = join(&ca, &first, dirs[1].path()).await;
    let third = join(&ca, &second, dirs[2].path()).await;

    // A write on a follower is seen by a linearizable read on another one.
    let revision = applied(third.consensus.change(edit("orders"), LONG).await);
    second.consensus.read_barrier(LONG).await.unwrap();
    assert!(second.consensus.config().borrow().upstreams.contains_key("orders"));
    assert_eq!(second.consensus.config().borrow().pepper.as_ref().unwrap().0, [0xab; 32]);

    // Violations and expectations come back from the leader, and change nothing.
    let invalid = third.consensus.change(edit("bad-one"), LONG).await;
    assert!(matches!(&invalid, Err(Error::Invalid(violations)) if violations.len() == 1), "{invalid:?}");
    let expect = vec![Expect { kind: Kind::Upstream, name: Name::new("orders").unwrap(), changed: None }];
    let conflict = second.consensus.change(Edit { expect, ..edit("orders") }, LONG).await;
    assert!(matches!(conflict, Err(Error::Conflict { current, .. }) if current == revision), "{conflict:?}");

    // The same key gives the same outcome, and is done once.
    let keyed = Edit { idempotency_key: Some("k".into()), ..edit("once") };
    let once = applied(first.consensus.change(keyed.clone(), LONG).await);
    assert_eq!(applied(third.consensus.change(keyed, LONG).await), once);

    // Concurrent edits of different objects do not conflict.
    let edits = (0..64).map(|n| {
        let consensus = [&first, &second, &third][n % 3].consensus.clone();
        async move { applied(consensus.change(edit(&format!("u{n}")), LONG).await) }
    });
    let mut revisions = futures::future::join_all(edits).await;
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len(), 64);
    let newest = *revisions.last().unwrap();
    for node in [&first, &second, &third] {
        node.until_revision(newest).await;
    }
    assert_eq!(*first.consensus.config().borrow(), *third.consensus.config().borrow());

    // The leader goes; a change asked for at once waits until the others have elected one, and nothing is lost.
    first.stop().await;
    let revision = applied(second.consensus.change(edit("after"), LONG).await);
    third.until_revision(revision).await;

    // It comes back from its disk and catches up.
    let first = Running::start(&ca, 1, dirs[0].path(), Some(first_address(&second)), settings()).await;
    first.until_revision(revision).await;

    for node in [first, second, third] {
        node.stop().await;
    }
}

fn first_address(other: &Running) -> SocketAddr {
    other.consensus.cluster().borrow().nodes[&NodeId(1)].address.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_proposed_and_the_config_stays() {
    let (ca, dirs) = (Ca::new(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let first = Running::start(&ca, 1, dirs[0].path(), None, settings()).await;
    form(&first).await;
    let second = join(&ca, &first, dirs[1].path()).await;
    let revision = applied(first.consensus.change(edit("orders"), LONG).await);
    second.stop().await;
    // Nobody confirms that what this node knows is the newest: so that is no ground to refuse either.
    let expect = vec![Expect { kind: Kind::Upstream, name: Name::new("orders").unwrap(), changed: None }];
    let conflict = first.consensus.change(Edit { expect, ..edit("orders") }, Duration::from_secs(2)).await;
    assert!(matches!(conflict, Err(Error::NoQuorum)), "{conflict:?}");
    first.until("the majority is gone", |status| !status.quorum).await;
    let refused = first.consensus.change(edit("more"), Duration::from_secs(2)).await;
    assert!(matches!(refused, Err(Error::NoQuorum)), "{refused:?}");
    assert_eq!(first.consensus.config().borrow().revision, revision);
    first.stop().await;
    // What is on the disk is there before any network.
    let opening = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            // The last task of the one before lets go of the lock on its own.
            if let Ok(storage) = Storage::open(dirs[0].path()) {
                return storage;
            }
        }
    };
    let storage = tokio::time::timeout(LONG, opening).await.expect("the store is let go");
    assert!(storage.config().borrow().upstreams.contains_key("orders"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_removed_hands_over_and_is_gone() {
    let (ca, dirs) = (Ca::new(), [(); 3].map(|()| tempfile::tempdir().unwrap()));
    let first = Running::start(&ca, 1, dirs[0].path(), None, settings()).await;
    form(&first).await;
    let second = join(&ca, &first, dirs[1].path()).await;
    let third = join(&ca, &first, dirs[2].path()).await;
    assert_eq!(first.consensus.transfer(Some(NodeId(1)), LONG).await.unwrap(), NodeId(1));
    let removed = second
        .consensus
        .cluster_change(ClusterChange::Remove { node_id: NodeId(1) }, "test", None, LONG)
        .await;
    assert_eq!(removed.unwrap(), ClusterOutcome::Done);
    for node in [&second, &third] {
        node.until("two voters are left", |status| status.voters.len() == 2 && status.leader.is_some()).await;
        assert!(!node.consensus.status().voters.contains(&NodeId(1)));
    }
    applied(third.consensus.change(edit("after"), LONG).await);
    for node in [first, second, third] {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_may_be_ended_as_soon_as_its_removal_is_acknowledged() {
    let (ca, dirs) = (Ca::new(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let first = Running::start(&ca, 1, dirs[0].path(), None, settings()).await;
    form(&first).await;
    let second = join(&ca, &first, dirs[1].path()).await;
    // Ids grow: it is the one that came last.
    let node_id = *first.consensus.status().voters.last().unwrap();
    let change = ClusterChange::Remove { node_id };
    let removed = first.consensus.cluster_change(change, "test", None, LONG).await;
    assert_eq!(removed.unwrap(), ClusterOutcome::Done);
    // The vote of two is a vote of both: whoever is ended with it takes the majority along.
    assert_eq!(first.consensus.status().voters, [NodeId(1)]);
    second.stop().await;
    applied(first.consensus.change(edit("after"), LONG).await);
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offer_of_the_leadership_that_is_lost_leaves_a_leader() {
    let (ca, dirs) = (Ca::new(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let first = Running::start(&ca, 1, dirs[0].path(), None, settings()).await;
    form(&first).await;
    let second = join(&ca, &first, dirs[1].path()).await;
    let (id, address) = (*first.consensus.status().voters.last().unwrap(), second.address);

    // The other one ends, and lacks an entry, so that it can't lead. It is offered the leadership, and does not hear of it.
    let before = first.consensus.status().last_log_index;
    second.stop().await;
    let _ = first.consensus.change(edit("unknown"), Duration::from_millis(100)).await;
    assert!(first.consensus.status().last_log_index > before);
    first.consensus.transfer(Some(id), Duration::from_millis(100)).await.unwrap_err();

    let second = Running::start(&ca, id.0, dirs[1].path(), Some(address), settings()).await;
    let revision = applied(second.consensus.change(edit("after"), LONG).await);
    first.until_revision(revision).await;
    assert!(first.consensus.config().borrow().upstreams.contains_key("unknown"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_is_brought_up_by_a_snapshot() {
    let (ca, dirs) = (Ca::new(), [(); 2].map(|()| tempfile::tempdir().unwrap()));
    let settings = Settings { snapshot_after_entries: 50, ..settings() };
    let first = Running::start(&ca, 1, dirs[0].path(), None, settings).await;
    form(&first).await;
    // More than one chunk of the stream, and more entries than are kept behind a snapshot.
    let ops = (0..5_000).map(|n| put(&format!("bulk-{n}"))).collect();
    applied(first.consensus.change(Edit { ops, ..Edit::default() }, LONG).await);
    for n in 0..1_200 {
        applied(first.consensus.change(edit(&format!("u{n}")), LONG).await);
    }
    first.consensus.read_barrier(LONG).await.unwrap();
    let second = join(&ca, &first, dirs[1].path()).await;
    let revision = first.consensus.config().borrow().revision;
    second.until_revision(revision).await;
    assert_eq!(*second.consensus.config().borrow(), *first.consensus.config().borrow());
    assert_eq!(*second.consensus.cluster().borrow(), *first.consensus.cluster().borrow());
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_for_another_cluster_or_without_a_certificate_is_refused() {
    let (ca, dir) = (Ca::new(), tempfile::tempdir().unwrap());
    let first = Running::start(&ca, 1, dir.path(), None, settings()).await;
    form(&first).await;
    let header = |cluster_id: &str, from, to| {
        let cluster_id = cluster_id.to_owned();
        Some(cluster_proto::common::Header {
            cluster_id,
            epoch: 1,
            from,
            to,
            protocol: cluster_proto::PROTOCOL,
        })
    };
    let consensus = &first.consensus;
    let peer = raft::PeerId(Some(NodeId(1)));
    assert!(consensus.check_peer(Some(&peer), header(CLUSTER, 1, 1)).is_ok());
    for (peer, header, code) in [
        (Some(peer), None, tonic::Code::InvalidArgument),
        (Some(peer), header("another", 1, 1), tonic::Code::FailedPrecondition),
        (Some(peer), header(CLUSTER, 1, 2), tonic::Code::FailedPrecondition),
        (Some(peer), header(CLUSTER, 2, 1), tonic::Code::PermissionDenied),
        (Some(raft::PeerId(None)), header(CLUSTER, 1, 1), tonic::Code::Unauthenticated),
        (None, header(CLUSTER, 1, 1), tonic::Code::Unauthenticated),
        // Its id is below what is applied, and it is no member: it was one.
        (Some(raft::PeerId(Some(NodeId(2)))), header(CLUSTER, 2, 1), tonic::Code::PermissionDenied),
    ] {
        assert_eq!(consensus.check_peer(peer.as_ref(), header).unwrap_err().code(), code);
    }
    let unknown = consensus.channel(NodeId(99));
    assert!(matches!(unknown, Err(Error::Refused { code: Code::NotFound, .. })));
    first.stop().await;
}

/// A channel to this node as one who holds `certificate`'s key, or none, would open it.
fn dial(ca: &Ca, to: &Running, certificate: Option<u64>) -> tonic::transport::Channel {
    let mut tls = match certificate {
        Some(id) => (*ca.tls(id).client).clone(),
        None => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(ca.certificate.clone()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            rustls::ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&rustls::version::TLS13])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth()
        }
    };
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let (tls, address) = (tokio_rustls::TlsConnector::from(Arc::new(tls)), to.address);
    let name = rustls_pki_types::ServerName::try_from(server_name(NodeId(1), CLUSTER)).unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let (tls, name) = (tls.clone(), name.clone());
        async move {
            let tcp = tokio::net::TcpStream::connect(address).await?;
            tls.connect(name, tcp).await.map(hyper_util::rt::TokioIo::new)
        }
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_wire_strangers_and_other_clusters_change_nothing() {
    use cluster_proto::{forward::forward_client::ForwardClient, raft::raft_client::RaftClient};

    let (ca, dir) = (Ca::new(), tempfile::tempdir().unwrap());
    let first = Running::start(&ca, 1, dir.path(), None, settings()).await;
    form(&first).await;
    let term = first.consensus.status().term;
    let header = |cluster_id: &str, epoch, from| cluster_proto::common::Header {
        cluster_id: cluster_id.to_owned(),
        epoch,
        from,
        to: 1,
        protocol: cluster_proto::PROTOCOL,
    };
    let another = Ca::new();
    for (ca, certificate, header, code) in [
        (&ca, None, header(CLUSTER, 1, 1), tonic::Code::Unauthenticated),
        (&ca, Some(9), header(CLUSTER, 1, 1), tonic::Code::PermissionDenied),
        (&ca, Some(1), header("another", 1, 1), tonic::Code::FailedPrecondition),
        (&ca, Some(1), header(CLUSTER, 2, 1), tonic::Code::FailedPrecondition),
        // The server's certificate is of no CA that this caller knows: no connection.
        (&another, Some(1), header(CLUSTER, 1, 1), tonic::Code::Unavailable),
    ] {
        let channel = dial(ca, &first, certificate);
        // A vote of a term far ahead would depose the leader, were it taken in.
        let vote = cluster_proto::raft::VoteRequest {
            header: Some(header.clone()),
            vote: Some(cluster_proto::raft::Vote { term: 99, ..Default::default() }),
            ..Default::default()
        };
        let refused = RaftClient::new(channel.clone()).vote(vote).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        let change = cluster_proto::forward::ChangeRequest {
            header: Some(header),
            ops: vec![(&put("stranger")).into()],
            timeout_ms: 1_000,
            ..Default::default()
        };
        let refused = ForwardClient::new(channel).change(change).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    assert_eq!(first.consensus.status().term, term);
    assert!(!first.consensus.config().borrow().upstreams.contains_key("stranger"));
    first.stop().await;
}
