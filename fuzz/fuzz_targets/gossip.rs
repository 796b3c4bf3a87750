//! Gossip datagrams. An input is read twice: as what a member might have sealed, and as what happens to two members' datagrams,
//! which are sealed, cut, damaged, repeated and delivered in any order, through restarts, new keys and a removal.
#![cfg_attr(feature = "libfuzzer", no_main)]

use chitchat::{ChitchatMessage, Deserializable, Serializable};
use limits::wire;
use model::{NodeId, cluster::GossipKey};
use phalanx_fuzz::Input;

use seal::{Boot, Drop, Keyring, Kind, Opener, Sealer};

// `node` is a program, not a library: its files are compiled here once more.
#[path = "../../node/src/findings/wire.rs"]
mod findings;
#[allow(dead_code, missing_docs)]
#[path = "../../node/src/gossip/seal.rs"]
mod seal;
#[allow(dead_code, missing_docs)]
#[path = "../../node/src/tokens.rs"]
mod tokens;

/// How far, in datagrams, one may be behind the newest of its boot.
const WINDOW: u64 = 1024;
const CLUSTER: &str = "00112233445566778899aabbccddeeff";

phalanx_fuzz::target!(|data| {
    message(data);
    counters(data);
    if let Some(read) = findings::decode(data) {
        assert_eq!(findings::encode(&read), data, "findings are read otherwise");
    }
    let (mut input, mut world) = (Input(data), World::new());
    while !input.is_empty() {
        world.step(&mut input);
    }
});

/// chitchat reads it without harm; what is not compressed, it writes as it was.
fn message(bytes: &[u8]) {
    let mut rest = bytes;
    let Ok(message) = ChitchatMessage::deserialize(&mut rest) else { return };
    if let ChitchatMessage::Syn { .. } | ChitchatMessage::BadCluster = message {
        let written = message.serialize_to_vec();
        assert_eq!(written.len(), message.serialized_len());
        let read = ChitchatMessage::deserialize(&mut &written[..]);
        assert_eq!(read.ok().as_ref(), Some(&message), "it is read otherwise");
    }
}

/// Records of rate limits are read without harm, and written as they were, but for rates, of which half the bits are told.
fn counters(bytes: &[u8]) {
    match wire::decode(bytes) {
        Ok(wire::Body::Records(records)) => assert_eq!(wire::encode(&records).len(), bytes.len()),
        Ok(wire::Body::Gauges(records)) => assert_eq!(wire::encode_gauges(&records), bytes),
        Err(_) => {}
    }
}

struct Sent {
    datagram: Vec<u8>,
    body: Vec<u8>,
    node: usize,
    boot: Boot,
    counter: u64,
    key: u8,
    taken: bool,
}

/// One of the two senders.
struct Node {
    sealer: Sealer,
    boot: Boot,
    counter: u64,
    is_member: bool,
    /// The boot of it that was believed, and the newest counter of that.
    believed: Option<(Boot, u64)>,
}

struct World {
    keys: Vec<GossipKey>,
    keyring: Keyring,
    nodes: [Node; 2],
    opener: Opener,
    sent: Vec<Sent>,
}

fn id(node: usize) -> NodeId {
    NodeId(node as u64 + 1)
}

impl World {
    fn new() -> Self {
        let keys = vec![tokens::gossip_key(0)];
        let keyring = Keyring::new(CLUSTER, &keys);
        let nodes = [0, 1].map(|node| {
            let boot = Boot::new(1_000);
            let mut sealer = Sealer::new(Kind::Gossip, id(node), boot);
            sealer.rekey(&keyring);
            Node { sealer, boot, counter: 0, is_member: true, believed: None }
        });
        Self { keys, keyring, nodes, opener: Opener::new(Kind::Gossip), sent: Vec::new() }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let operation = input.byte();
        let node = usize::from(operation >> 7);
        match operation % 8 {
            0 | 1 => self.seal(node, input.part()),
            2 => self.deliver(usize::from(input.byte())),
            3 => self.refuse(input, |datagram, input| {
                let at = usize::from(input.short()) % datagram.len();
                datagram[at] ^= input.byte().max(1);
            }),
            4 => self.refuse(input, |datagram, input| {
                let length = usize::from(input.short()) % (datagram.len() + 64);
                datagram.resize(length + usize::from(length == datagram.len()), 0);
            }),
            // Any bytes behind the beginning of a good head.
            5 => self.refuse(input, |datagram, input| {
                let kept = usize::from(input.byte()) % 40;
                datagram.truncate(kept);
                datagram.extend(input.part());
                datagram.push(0);
            }),
            6 => self.restart(node, input.byte()),
            _ if input.byte() == 0 => self.remove(node),
            _ => self.rotate(),
        }
    }

    fn seal(&mut self, node: usize, body: &[u8]) {
        let from = &mut self.nodes[node];
        let datagram = from.sealer.seal(&self.keyring, body).expect("there is a key");
        from.counter += 1;
        assert_eq!(datagram.len(), body.len() + seal::ADDED_BYTES);
        let (boot, counter, key) = (from.boot, from.counter, self.keys[0].id);
        self.sent.push(Sent { datagram, body: body.to_vec(), node, boot, counter, key, taken: false });
    }

    fn open(&mut self, datagram: &[u8]) -> Result<(NodeId, Vec<u8>), Drop> {
        let mut datagram = datagram.to_vec();
        let nodes = &self.nodes;
        let is_member = |node| (0..nodes.len()).any(|at| id(at) == node && nodes[at].is_member);
        let opened = self.opener.open(&self.keyring, &mut datagram, is_member);
        opened.map(|opened| (opened.from, opened.body.to_vec()))
    }

    /// What must become of one that was sent and not changed.
    fn expected(&self, sent: &Sent) -> Result<(), Drop> {
        let from = &self.nodes[sent.node];
        if !from.is_member {
            return Err(Drop::Stranger);
        }
        if let Some((boot, newest)) = from.believed {
            if sent.boot < boot {
                return Err(Drop::Boot);
            }
            if sent.boot == boot && sent.counter + WINDOW <= newest {
                return Err(Drop::Old);
            }
            if sent.boot == boot && sent.taken {
                return Err(Drop::Replay);
            }
        }
        if self.keys.iter().any(|key| key.id == sent.key) { Ok(()) } else { Err(Drop::Key) }
    }

    fn deliver(&mut self, at: usize) {
        let Some(mut sent) = at.checked_rem(self.sent.len()).map(|at| self.sent.swap_remove(at)) else {
            return;
        };
        let expected = self.expected(&sent);
        let opened = self.open(&sent.datagram);
        match (&opened, &expected) {
            (Ok((node, body)), Ok(())) => {
                assert!(*node == id(sent.node) && *body == sent.body, "another's body came out");
                sent.taken = true;
                let believed = &mut self.nodes[sent.node].believed;
                let newest = believed.filter(|(boot, _)| *boot == sent.boot).map_or(0, |(_, newest)| newest);
                *believed = Some((sent.boot, newest.max(sent.counter)));
            }
            (Err(drop), Err(wanted)) if drop == wanted => {}
            _ => panic!("it came to {opened:?}, and should to {expected:?}"),
        }
        self.sent.push(sent);
    }

    /// Delivers a changed copy of one that was sent. It never opens, and changes nothing in how others are taken.
    fn refuse(&mut self, input: &mut Input<'_>, change: impl Fn(&mut Vec<u8>, &mut Input<'_>)) {
        let Some(at) = usize::from(input.byte()).checked_rem(self.sent.len()) else { return };
        let mut datagram = self.sent[at].datagram.clone();
        change(&mut datagram, input);
        if datagram != self.sent[at].datagram {
            assert!(self.open(&datagram).is_err(), "a forged datagram was opened");
        }
    }

    fn restart(&mut self, node: usize, started: u8) {
        let node_id = id(node);
        let node = &mut self.nodes[node];
        node.boot = Boot::new(1_000 + u64::from(started));
        node.counter = 0;
        node.sealer = Sealer::new(Kind::Gossip, node_id, node.boot);
        node.sealer.rekey(&self.keyring);
    }

    fn remove(&mut self, node: usize) {
        self.nodes[node].is_member = false;
        self.rekey();
    }

    fn rotate(&mut self) {
        // A key's id comes again after 256 rotations, which is none of this.
        let Some(next) = self.keys[0].id.checked_add(1) else { return };
        self.keys.insert(0, tokens::gossip_key(next));
        self.keys.truncate(2);
        self.rekey();
    }

    fn rekey(&mut self) {
        self.keyring = Keyring::new(CLUSTER, &self.keys);
        self.nodes.iter_mut().for_each(|node| node.sealer.rekey(&self.keyring));
        let nodes = &self.nodes;
        self.opener.rekey(|node| (0..nodes.len()).any(|at| id(at) == node && nodes[at].is_member));
    }
}
