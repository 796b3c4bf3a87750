//! Sealed datagrams: what a node gossips is read and written by members alone, and each datagram is taken once.
//!
//! A datagram is a head in the clear, which is authenticated, and a body sealed with AES-256-GCM:
//!
//! | bytes | what |
//! |---|---|
//! | 2 | `PG` |
//! | 1 | what the body is: 1, gossip; 2, counters of rate limits; 3, findings of checks. Of what it does not know, a node takes no notice |
//! | 1 | which gossip key |
//! | 4 | the first bytes of the cluster id's SHA-256 |
//! | 8 | the sender's node id |
//! | 8 | its boot: milliseconds since the Unix epoch, later for each start of that node |
//! | 8 | and 64 random bits |
//! | 8 | counter: 1 more for each datagram of a boot |
//!
//! Each sender and boot has a key of its own for each kind of body, HKDF-SHA256(gossip key, all of those), so that the counter alone
//! is a nonce that is never used twice. Numbers are big-endian.

use std::{collections::HashMap, ops::RangeInclusive};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    digest, hkdf,
};
use model::{NodeId, cluster::GossipKey};

use crate::tokens;

/// Bytes before the body.
pub(super) const HEAD_BYTES: usize = 40;
/// What sealing adds: the head and the tag.
pub(super) const ADDED_BYTES: usize = HEAD_BYTES + 16;
const MAGIC: [u8; 2] = *b"PG";
/// How far, in datagrams, one may be behind the newest of its boot.
const WINDOW: u64 = 1024;

/// What a datagram's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// chitchat's messages.
    Gossip,
    /// Records of rate limits.
    Counters,
    /// What checks of targets have found.
    Findings,
}

impl Kind {
    /// What this datagram says that it is, if that is anything known.
    pub(super) fn of(datagram: &[u8]) -> Option<Self> {
        let all = [Self::Gossip, Self::Counters, Self::Findings];
        all.into_iter().find(|kind| datagram.get(2) == Some(&kind.byte()))
    }

    fn byte(self) -> u8 {
        match self {
            Self::Gossip => 1,
            Self::Counters => 2,
            Self::Findings => 3,
        }
    }

    /// What its keys are derived with.
    fn label(self) -> &'static [u8] {
        match self {
            Self::Gossip => b"phalanx gossip 1",
            Self::Counters => b"phalanx counters 1",
            Self::Findings => b"phalanx findings 1",
        }
    }
}

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Drop {
    /// Not one of ours, or cut off.
    Unsealed,
    /// Of a kind that a newer version knows.
    Version,
    /// Of another cluster.
    Cluster,
    /// The sender is no member.
    Stranger,
    /// Sealed with a key that is not in use here.
    Key,
    /// It does not open: forged or damaged.
    Forged,
    /// Of an earlier boot of its sender.
    Boot,
    /// Taken already.
    Replay,
    /// Too far behind the newest to tell whether it was taken.
    Old,
    /// It opened, and is no message.
    Message,
    /// Too large to be sent.
    Size,
    /// More come than can be taken.
    Busy,
}

impl Drop {
    /// Every one, in the order of their numbers.
    pub(crate) const ALL: [Self; 12] = [
        Self::Unsealed,
        Self::Version,
        Self::Cluster,
        Self::Stranger,
        Self::Key,
        Self::Forged,
        Self::Boot,
        Self::Replay,
        Self::Old,
        Self::Message,
        Self::Size,
        Self::Busy,
    ];

    /// The word in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Unsealed => "unsealed",
            Self::Version => "version",
            Self::Cluster => "cluster",
            Self::Stranger => "stranger",
            Self::Key => "key",
            Self::Forged => "forged",
            Self::Boot => "boot",
            Self::Replay => "replay",
            Self::Old => "old",
            Self::Message => "message",
            Self::Size => "size",
            Self::Busy => "busy",
        }
    }
}

/// One start of a node. The later one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Boot {
    /// Milliseconds since the Unix epoch.
    pub(crate) started_ms: u64,
    nonce: u64,
}

impl Boot {
    /// A start at this time.
    pub(crate) fn new(started_ms: u64) -> Self {
        Self { started_ms, nonce: u64::from_be_bytes(tokens::random()) }
    }
}

/// The keys in use, the newest first.
pub(super) struct Keyring {
    cluster: [u8; 4],
    cluster_id: String,
    keys: Vec<(u8, Vec<u8>)>,
}

impl Keyring {
    /// Those of this cluster. One that is no key is left out: nothing can have been sealed with it.
    pub(super) fn new(cluster_id: &str, keys: &[GossipKey]) -> Self {
        let hash = digest::digest(&digest::SHA256, cluster_id.as_bytes());
        let mut cluster = [0; 4];
        cluster.copy_from_slice(&hash.as_ref()[..4]);
        let bytes =
            |key: &GossipKey| Some((key.id, tokens::unhex(&key.secret.0).filter(|key| key.len() == 32)?));
        Self { cluster, cluster_id: cluster_id.to_owned(), keys: keys.iter().filter_map(bytes).collect() }
    }

    fn derive(&self, kind: Kind, key_id: u8, node: NodeId, boot: Boot) -> Option<LessSafeKey> {
        let (_, secret) = self.keys.iter().find(|(id, _)| *id == key_id)?;
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, self.cluster_id.as_bytes()).extract(secret);
        let (node, started, nonce) =
            (node.0.to_be_bytes(), boot.started_ms.to_be_bytes(), boot.nonce.to_be_bytes());
        let info: [&[u8]; 4] = [kind.label(), &node, &started, &nonce];
        let mut key = [0; 32];
        prk.expand(&info, hkdf::HKDF_SHA256).ok()?.fill(&mut key).ok()?;
        Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?))
    }
}

/// Seals what this node sends.
pub(super) struct Sealer {
    kind: Kind,
    node: NodeId,
    boot: Boot,
    counter: u64,
    key: Option<(u8, LessSafeKey)>,
}

impl Sealer {
    pub(super) fn new(kind: Kind, node: NodeId, boot: Boot) -> Self {
        Self { kind, node, boot, counter: 0, key: None }
    }

    /// Uses the newest of these keys from now on.
    pub(super) fn rekey(&mut self, keyring: &Keyring) {
        let newest = keyring.keys.first().map(|(id, _)| *id);
        self.key = newest.and_then(|id| Some((id, keyring.derive(self.kind, id, self.node, self.boot)?)));
    }

    /// The datagram for this body; none while there is no key.
    pub(super) fn seal(&mut self, keyring: &Keyring, body: &[u8]) -> Option<Vec<u8>> {
        let (key_id, key) = self.key.as_ref()?;
        self.counter += 1;
        let mut datagram = Vec::with_capacity(body.len() + ADDED_BYTES);
        datagram.extend(MAGIC);
        datagram.extend([self.kind.byte(), *key_id]);
        datagram.extend(keyring.cluster);
        datagram.extend(self.node.0.to_be_bytes());
        datagram.extend(self.boot.started_ms.to_be_bytes());
        datagram.extend(self.boot.nonce.to_be_bytes());
        datagram.extend(self.counter.to_be_bytes());
        datagram.extend(body);
        let (head, body) = datagram.split_at_mut(HEAD_BYTES);
        let tag = key.seal_in_place_separate_tag(nonce(self.counter), Aad::from(&*head), body).ok()?;
        datagram.extend(tag.as_ref());
        Some(datagram)
    }
}

/// Opens what members send, each datagram once. Knows one boot of each member and no one else: bounded by the members.
///
/// It forgets with the process: after a restart, a datagram that was recorded from a member's earlier boot opens until the
/// first of its present one came. chitchat's own versions and heartbeats make that harmless: they only grow. So do counters
/// within a window, and those of another window are not heeded; and that a target is not well is believed after a check of one's own alone.
pub(super) struct Opener {
    kind: Kind,
    senders: HashMap<NodeId, Sender>,
}

struct Sender {
    boot: Boot,
    keys: Vec<(u8, LessSafeKey)>,
    seen: Seen,
}

/// What a member has sent.
pub(super) struct Opened<'d> {
    pub(super) from: NodeId,
    pub(super) boot: Boot,
    pub(super) body: &'d [u8],
}

impl Opener {
    /// Of datagrams of this kind.
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, senders: HashMap::new() }
    }

    /// Forgets who is no member any more, and every derived key.
    pub(super) fn rekey(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.senders.retain(|node, _| is_member(*node));
        self.senders.values_mut().for_each(|sender| sender.keys.clear());
    }

    /// Who sent it, and its body.
    pub(super) fn open<'d>(
        &mut self,
        keyring: &Keyring,
        datagram: &'d mut [u8],
        is_member: impl Fn(NodeId) -> bool,
    ) -> Result<Opened<'d>, Drop> {
        let head = Head::read(datagram, keyring, self.kind)?;
        if !is_member(head.node) {
            return Err(Drop::Stranger);
        }
        let derive =
            |head: &Head| keyring.derive(self.kind, head.key_id, head.node, head.boot).ok_or(Drop::Key);
        let known = self.senders.get_mut(&head.node);
        if known.as_ref().is_some_and(|known| head.boot < known.boot) {
            return Err(Drop::Boot);
        }
        let (clear, sealed) = datagram.split_at_mut(HEAD_BYTES);
        let mut open = |key: &LessSafeKey| {
            let opened = key.open_in_place(nonce(head.counter), Aad::from(&*clear), sealed);
            opened.map(|body| body.len()).map_err(|_| Drop::Forged)
        };
        let length = match known {
            Some(known) if known.boot == head.boot => {
                known.seen.check(head.counter)?;
                if !known.keys.iter().any(|(id, _)| *id == head.key_id) {
                    let key = derive(&head)?;
                    known.keys.push((head.key_id, key));
                }
                let key = known.keys.iter().find(|(id, _)| *id == head.key_id).ok_or(Drop::Key)?;
                let length = open(&key.1)?;
                known.seen.take(head.counter);
                length
            }
            // A later boot is believed only once something of it has opened.
            _ => {
                let key = derive(&head)?;
                let length = open(&key)?;
                let mut seen = Seen::default();
                seen.take(head.counter);
                let sender = Sender { boot: head.boot, keys: vec![(head.key_id, key)], seen };
                self.senders.insert(head.node, sender);
                length
            }
        };
        let body = &datagram[HEAD_BYTES..HEAD_BYTES + length];
        Ok(Opened { from: head.node, boot: head.boot, body })
    }
}

struct Head {
    key_id: u8,
    node: NodeId,
    boot: Boot,
    counter: u64,
}

impl Head {
    fn read(datagram: &[u8], keyring: &Keyring, kind: Kind) -> Result<Self, Drop> {
        if datagram.len() < ADDED_BYTES || datagram[..2] != MAGIC {
            return Err(Drop::Unsealed);
        }
        if Kind::of(datagram) != Some(kind) {
            return Err(Drop::Version);
        }
        if datagram[4..8] != keyring.cluster {
            return Err(Drop::Cluster);
        }
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&datagram[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Ok(Self {
            key_id: datagram[3],
            node: NodeId(number(8)),
            boot: Boot { started_ms: number(16), nonce: number(24) },
            counter: number(32),
        })
    }
}

/// Which counters of a boot were taken: the newest, and those up to [`WINDOW`] before it.
struct Seen {
    newest: u64,
    taken: [u64; (WINDOW / 64) as usize],
}

impl Default for Seen {
    fn default() -> Self {
        Self { newest: 0, taken: [0; (WINDOW / 64) as usize] }
    }
}

impl Seen {
    fn check(&self, counter: u64) -> Result<(), Drop> {
        if counter > self.newest {
            return Ok(());
        }
        if self.newest - counter >= WINDOW {
            return Err(Drop::Old);
        }
        let (word, bit) = Self::place(counter);
        if self.taken[word] & bit == 0 { Ok(()) } else { Err(Drop::Replay) }
    }

    fn take(&mut self, counter: u64) {
        if counter > self.newest {
            let skipped: RangeInclusive<u64> =
                counter.saturating_sub(WINDOW - 1).max(self.newest + 1)..=counter;
            for fresh in skipped {
                let (word, bit) = Self::place(fresh);
                self.taken[word] &= !bit;
            }
            self.newest = counter;
        }
        let (word, bit) = Self::place(counter);
        self.taken[word] |= bit;
    }

    fn place(counter: u64) -> (usize, u64) {
        let at = counter % WINDOW;
        (usize::try_from(at / 64).expect("less than 16"), 1 << (at % 64))
    }
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: NodeId = NodeId(1);

    fn pair(cluster_id: &str, key: &GossipKey) -> (Keyring, Sealer, Opener) {
        let keyring = Keyring::new(cluster_id, std::slice::from_ref(key));
        let mut sealer = Sealer::new(Kind::Gossip, ONE, Boot::new(1_000));
        sealer.rekey(&keyring);
        (keyring, sealer, Opener::new(Kind::Gossip))
    }

    fn open(opener: &mut Opener, keyring: &Keyring, datagram: &[u8]) -> Result<(NodeId, Vec<u8>), Drop> {
        let mut copy = datagram.to_vec();
        let opened = opener.open(keyring, &mut copy, |node| node == ONE);
        opened.map(|opened| (opened.from, opened.body.to_vec()))
    }

    #[test]
    fn what_is_sealed_opens_once() {
        let (keyring, mut sealer, mut opener) = pair("c", &tokens::gossip_key(1));
        let datagram = sealer.seal(&keyring, b"hello").unwrap();
        assert_eq!(open(&mut opener, &keyring, &datagram), Ok((ONE, b"hello".to_vec())));
        assert_eq!(open(&mut opener, &keyring, &datagram), Err(Drop::Replay));
        assert_eq!(datagram.len(), 5 + ADDED_BYTES);
    }

    #[test]
    fn any_change_to_a_datagram_is_refused() {
        let (keyring, mut sealer, mut opener) = pair("c", &tokens::gossip_key(1));
        let datagram = sealer.seal(&keyring, b"hello").unwrap();
        for at in 0..datagram.len() {
            let mut changed = datagram.clone();
            changed[at] ^= 1;
            assert!(open(&mut opener, &keyring, &changed).is_err(), "byte {at}");
        }
        for length in 0..datagram.len() {
            assert!(open(&mut opener, &keyring, &datagram[..length]).is_err(), "{length} bytes");
        }
        assert!(open(&mut opener, &keyring, &datagram).is_ok());
    }

    #[test]
    fn datagrams_may_overtake_each_other_within_the_window() {
        let (keyring, mut sealer, mut opener) = pair("c", &tokens::gossip_key(1));
        let mut sent: Vec<_> = (0..=WINDOW).map(|_| sealer.seal(&keyring, b"x").unwrap()).collect();
        let newest = sent.pop().unwrap();
        assert!(open(&mut opener, &keyring, &newest).is_ok());
        assert_eq!(open(&mut opener, &keyring, &sent[0]), Err(Drop::Old));
        for late in sent[1..].iter().rev() {
            assert!(open(&mut opener, &keyring, late).is_ok());
            assert_eq!(open(&mut opener, &keyring, late), Err(Drop::Replay));
        }
    }

    #[test]
    fn other_keys_clusters_nodes_and_boots_are_told_apart() {
        let key = tokens::gossip_key(1);
        let (keyring, mut sealer, mut opener) = pair("c", &key);
        let datagram = sealer.seal(&keyring, b"x").unwrap();
        let other = |cluster: &str, key| Keyring::new(cluster, &[key]);
        let same_id = other("c", tokens::gossip_key(1));
        let mut fresh = Opener::new(Kind::Gossip);
        assert_eq!(open(&mut fresh, &same_id, &datagram), Err(Drop::Forged));
        assert_eq!(open(&mut fresh, &other("c", tokens::gossip_key(2)), &datagram), Err(Drop::Key));
        assert_eq!(open(&mut fresh, &other("d", key), &datagram), Err(Drop::Cluster));
        let mut copy = datagram.clone();
        assert_eq!(opener.open(&keyring, &mut copy, |_| false).err(), Some(Drop::Stranger));
        assert_eq!(
            open(&mut opener, &keyring, b"PGsome plain text that is long enough to have a head"),
            Err(Drop::Unsealed)
        );

        let mut restarted = Sealer::new(Kind::Gossip, ONE, Boot::new(1_001));
        restarted.rekey(&keyring);
        let later = restarted.seal(&keyring, b"y").unwrap();
        assert!(open(&mut opener, &keyring, &datagram).is_ok());
        assert!(open(&mut opener, &keyring, &later).is_ok());
        let stale = sealer.seal(&keyring, b"x").unwrap();
        assert_eq!(open(&mut opener, &keyring, &stale), Err(Drop::Boot));
    }

    #[test]
    fn one_kind_is_never_taken_for_the_other() {
        let (keyring, mut sealer, mut opener) = pair("c", &tokens::gossip_key(1));
        let mut counters = Sealer::new(Kind::Counters, ONE, sealer.boot);
        counters.rekey(&keyring);
        let mut datagram = counters.seal(&keyring, b"x").unwrap();
        assert_eq!(Kind::of(&datagram), Some(Kind::Counters));
        assert_eq!(open(&mut opener, &keyring, &datagram), Err(Drop::Version));
        // Said to be of the other kind, it does not open: that kind's keys are others.
        datagram[2] = Kind::Gossip.byte();
        assert_eq!(open(&mut opener, &keyring, &datagram), Err(Drop::Forged));
        let gossip = sealer.seal(&keyring, b"x").unwrap();
        assert_eq!(open(&mut Opener::new(Kind::Counters), &keyring, &gossip), Err(Drop::Version));
        let mut findings = Sealer::new(Kind::Findings, ONE, sealer.boot);
        findings.rekey(&keyring);
        let found = findings.seal(&keyring, b"x").unwrap();
        assert_eq!(open(&mut opener, &keyring, &found), Err(Drop::Version));
        // Nor is the key of counters that of findings.
        datagram[2] = Kind::Findings.byte();
        assert_eq!(open(&mut Opener::new(Kind::Findings), &keyring, &datagram), Err(Drop::Forged));
        datagram[2] = 4;
        assert_eq!((Kind::of(&datagram), Kind::of(b"PG")), (None, None));
    }

    #[test]
    fn the_key_before_the_newest_still_opens() {
        let (old, new) = (tokens::gossip_key(1), tokens::gossip_key(2));
        let (before, mut sealer, mut opener) = pair("c", &old);
        let during = Keyring::new("c", &[new.clone(), old]);
        let first = sealer.seal(&before, b"x").unwrap();
        opener.rekey(|_| true);
        assert!(open(&mut opener, &during, &first).is_ok());
        sealer.rekey(&during);
        let second = sealer.seal(&during, b"y").unwrap();
        assert!(open(&mut opener, &during, &second).is_ok());
        assert_eq!(open(&mut opener, &Keyring::new("c", &[new]), &first), Err(Drop::Replay));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..200), ours in any::<bool>()) {
            let (keyring, mut sealer, mut opener) = pair("c", &tokens::gossip_key(1));
            let mut datagram = sealer.seal(&keyring, b"").unwrap();
            if ours {
                datagram.truncate(HEAD_BYTES - 8);
                datagram.extend(bytes);
            } else {
                datagram = bytes;
            }
            prop_assert!(open(&mut opener, &keyring, &datagram).is_err());
        }
    }
}
