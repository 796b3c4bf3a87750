//! Joining with consensus and gossip as they are in a node.

use model::{
    Change, Config, NodeId, Revision, Violation,
    cluster::{ClusterChange, ClusterOutcome},
};
use prometheus::Registry;
use raft::{Admission, Consensus, Settings, Storage};
use tempfile::TempDir;
use tokio::{net::UdpSocket, sync::watch};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    gossip::{Facts, Gossip, Health},
    renew,
};

struct Anything;

impl Admission for Anything {
    fn check(&self, _: &Config, _: &Change) -> Vec<Violation> {
        Vec::new()
    }
}

struct Member {
    identity: NodeIdentity,
    consensus: Consensus,
    gossip: Gossip,
    installed: watch::Sender<Revision>,
    _data: TempDir,
}

/// A port that is free for TCP and UDP alike, as a node needs it.
async fn port() -> (TcpListener, UdpSocket, Place) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        if let Ok(socket) = UdpSocket::bind(address).await {
            let admin = "127.0.0.1:1".to_owned();
            return (listener, socket, Place { name: String::new(), advertise: address.to_string(), admin });
        }
    }
}

async fn start(identity: NodeIdentity, data: TempDir, listener: TcpListener, socket: UdpSocket) -> Member {
    let storage = Storage::open(data.path()).unwrap();
    let settings = Settings { promote_after: Duration::from_millis(100), ..Settings::default() };
    let tls = identity.peer_tls().unwrap();
    let consensus = Consensus::start(storage, identity.raft_identity(), &tls, Arc::new(Anything), settings)
        .await
        .unwrap();
    let (installed, installs) = watch::channel(Revision(0));
    let routes = renew::routes(&consensus, &identity, installs);
    let serving = consensus.clone();
    tokio::spawn(async move { serving.serve(listener, &tls, routes, CancellationToken::new()).await });
    let facts = Facts { phase: "ready".to_owned(), ..Facts::default() };
    let cluster = consensus.cluster();
    let (id, name) = (identity.node_id, identity.cluster_id.clone());
    let registry = Registry::new();
    let rates = crate::counters::Counters::of_few(&registry);
    let told = (rates, crate::findings::Findings::of_none(&registry));
    let gossip =
        Gossip::start(id, &name, data.path(), socket, cluster, facts, told, &registry).await.unwrap();
    Member { identity, consensus, gossip, installed, _data: data }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_join_by_any_member_and_become_voters_that_gossip() {
    let (listener, socket, place) = port().await;
    let data = tempfile::tempdir().unwrap();
    let founded = identity::found(data.path(), &place).unwrap();
    founded.identity.store().unwrap();
    let one = start(founded.identity, data, listener, socket).await;
    one.consensus.form(&place.advertise, founded.change).await.unwrap();

    let token = tokens::Join::generate(one.identity.ca_sha256().unwrap());
    let stored = token.stored(identity::now_ms() + 3_600_000, 2);
    let change = ClusterChange::PutJoinToken { id: token.id.clone(), token: stored };
    assert_eq!(one.consensus.propose(change, "test").await.unwrap(), ClusterOutcome::Done);

    let mut members = vec![one];
    let mut address = place.advertise;
    for _ in 0..2 {
        let (listener, socket, place) = port().await;
        let data = tempfile::tempdir().unwrap();
        let joined = join(data.path(), &address, &token.text(), &place, &listener).await.unwrap();
        let member = start(joined, data, listener, socket).await;
        // The next one joins by way of this one, once it knows the leader.
        until("the leader", || member.consensus.status().leader == Some(NodeId(1))).await;
        until("the cluster", || member.consensus.cluster().borrow().founding.is_some()).await;
        address = place.advertise;
        members.push(member);
    }
    for member in &members {
        until("three voters", || member.consensus.status().voters.len() == 3).await;
        let healthy = || member.gossip.peers().iter().filter(|peer| peer.health == Health::Healthy).count();
        until("two healthy peers", || healthy() == 2).await;
    }

    let (leader, last) = (&members[0], &members[2]);
    let before = last.identity.certificate_pem();
    renew::renew(&last.consensus, &last.identity, &last.consensus.cluster()).await.unwrap();
    assert_ne!(before, last.identity.certificate_pem());
    last.installed.send_replace(Revision(3));
    let id = last.identity.node_id;
    let limit = Duration::from_secs(20);
    let installed = renew::await_installed(&leader.consensus, &leader.identity, id, Revision(3), limit).await;
    assert_eq!(installed.unwrap(), Revision(3));
}
