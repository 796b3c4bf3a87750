use model::cluster::{ClusterChange, Node};
use tempfile::TempDir;

use super::*;
use crate::tokens;

fn node(address: SocketAddr) -> Node {
    Node {
        name: String::new(),
        // A name for the first, so that looking up is tried too.
        address: address.to_string().replace("127.0.0.1", "localhost"),
        admin: String::new(),
        public_key: String::new(),
        version: String::new(),
        joined_at_ms: 0,
    }
}

fn facts(phase: &str) -> Facts {
    Facts { phase: phase.to_owned(), installed: Revision(7), ..Facts::default() }
}

struct Ring {
    cluster: watch::Sender<Arc<Cluster>>,
    gossips: Vec<Gossip>,
    data: Vec<TempDir>,
}

impl Ring {
    async fn new() -> Self {
        let mut sockets = Vec::new();
        let mut cluster = Cluster { gossip_keys: vec![tokens::gossip_key(1)], ..Cluster::default() };
        for id in 1..=3 {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            cluster.nodes.insert(NodeId(id), node(socket.local_addr().unwrap()));
            sockets.push((NodeId(id), socket));
        }
        let (cluster, _) = watch::channel(Arc::new(cluster));
        let mut ring = Self { cluster, gossips: Vec::new(), data: Vec::new() };
        for (id, socket) in sockets {
            ring.data.push(tempfile::tempdir().unwrap());
            let gossip = ring.start(id, ring.data.len() - 1, socket).await;
            ring.gossips.push(gossip);
        }
        ring
    }

    async fn start(&self, id: NodeId, data: usize, socket: UdpSocket) -> Gossip {
        let data = self.data[data].path();
        let watch = self.cluster.subscribe();
        let registry = Registry::new();
        let told = (Counters::of_few(&registry), Findings::of_none(&registry));
        Gossip::start(id, "c", data, socket, watch, facts("starting"), told, &registry).await.unwrap()
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap_or_else(|_| panic!("never came: {what}"));
}

fn hears(gossip: &Gossip, node: u64, phase: &str) -> bool {
    let heard = |peer: &PeerFacts| {
        peer.health == Health::Healthy && peer.facts.as_ref().is_some_and(|facts| facts.phase == phase)
    };
    gossip.peers().iter().any(|peer| peer.node_id == NodeId(node) && heard(peer))
}

fn health(gossip: &Gossip, node: u64) -> Option<Health> {
    gossip.peers().iter().find(|peer| peer.node_id == NodeId(node)).map(|peer| peer.health)
}

fn dropped(gossip: &Gossip, reason: &str) -> u64 {
    gossip.dropped().iter().find(|(word, _)| *word == reason).unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_hear_each_other_and_notice_who_is_gone() {
    let mut ring = Ring::new().await;
    for (at, gossip) in ring.gossips.iter().enumerate() {
        for other in (0..3).filter(|other| *other != at) {
            until("everyone's first facts", || hears(gossip, other as u64 + 1, "starting")).await;
        }
        assert_eq!(gossip.peers().len(), 2);
        assert_eq!(gossip.peers()[0].facts.as_ref().unwrap().installed, Revision(7));
    }
    ring.gossips[0].announce(facts("ready"));
    for gossip in &ring.gossips[1..] {
        until("changed facts", || hears(gossip, 1, "ready")).await;
    }

    let third = ring.gossips.pop().unwrap();
    let address = third.address();
    third.leave().await;
    until("the third to be missed", || health(&ring.gossips[0], 3) != Some(Health::Healthy)).await;
    assert_eq!(health(&ring.gossips[0], 2), Some(Health::Healthy));

    let socket = UdpSocket::bind(address).await.unwrap();
    let third = ring.start(NodeId(3), 2, socket).await;
    until("the third to be back", || hears(&ring.gossips[0], 3, "starting")).await;
    until("the third to hear", || hears(&third, 1, "ready")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_is_taken_up_and_a_removed_node_is_not_heard() {
    let ring = Ring::new().await;
    until("each other", || hears(&ring.gossips[0], 3, "starting")).await;
    ring.cluster.send_modify(|cluster| {
        let cluster = Arc::make_mut(cluster);
        cluster.apply(&ClusterChange::RotateGossipKey { key: tokens::gossip_key(2) }, 9, 0);
        cluster.apply(&ClusterChange::Remove { node_id: NodeId(3) }, 10, 0);
    });
    ring.gossips[1].announce(facts("ready"));
    until("facts under the new key", || hears(&ring.gossips[0], 2, "ready")).await;
    until("the removed node to be forgotten", || health(&ring.gossips[0], 3).is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_sealed_is_dropped_and_counted() {
    let ring = Ring::new().await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let gossip = &ring.gossips[0];
    stranger.send_to(b"hello", gossip.address()).await.unwrap();
    stranger.send_to(&[0; 1200], gossip.address()).await.unwrap();
    until("both to be counted", || dropped(gossip, "unsealed") == 2).await;
    until("the others all the same", || hears(gossip, 2, "starting") && hears(gossip, 3, "starting")).await;
    assert_eq!(dropped(gossip, "forged"), 0);
}

#[test]
fn each_start_is_later_than_the_one_before_whatever_the_clock_says() {
    let data = tempfile::tempdir().unwrap();
    let ahead = identity::now_ms() + 3_600_000;
    identity::write_file(&data.path().join("boot.json"), &ahead).unwrap();
    assert_eq!(started_ms(data.path()).unwrap(), ahead + 1);
    std::fs::write(data.path().join("boot.json"), "?").unwrap();
    assert!(started_ms(data.path()).unwrap() < ahead);
}
