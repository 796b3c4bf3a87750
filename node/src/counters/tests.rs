use limits::{Decision, Record, Rule};

use super::*;

/// So many a day, since the clock is the real one.
const RULE: (u32, u32) = (100, 86_400_000);

impl Counters {
    /// Counters of a few keys.
    pub(crate) fn of_few(registry: &prometheus::Registry) -> Self {
        let settings = limits::Settings { keys: 100, shared_keys: 10, peers: NUMBERS_MAX, seed: 1 };
        let (rates, pushers) = RateLimits::new(settings);
        Self::new(rates, pushers, registry).unwrap()
    }
}

fn counters() -> Counters {
    Counters::of_few(&prometheus::Registry::new())
}

fn members(many: u64) -> BTreeMap<NodeId, Option<SocketAddr>> {
    (1..=many).map(|node| (NodeId(node), None)).collect()
}

/// Asks for so many requests of one key, and gives how many are admitted.
fn asks(counters: &Counters, times: u32) -> u32 {
    let rule = Rule::new(RULE.0, RULE.1).unwrap();
    let limiter = counters.rates().limiter();
    let ask = || limiter.acquire(std::num::NonZeroU64::MIN, rule, 1, now_us(), &mut false);
    (0..times).map(|_| u32::from(matches!(ask(), Decision::Admit { .. }))).sum()
}

#[test]
fn the_most_have_all_of_a_limit_and_the_others_their_part() {
    assert_eq!(shared(1, 1), (1, 1.0));
    assert_eq!(shared(3, 3), (3, 1.0));
    assert_eq!(shared(2, 3), (2, 1.0));
    assert_eq!(shared(1, 3), (1, 1.0 / 3.0));
    assert_eq!(shared(2, 4), (2, 0.5));
    // One that was removed while it was reached.
    assert_eq!(shared(3, 2), (2, 1.0));
}

#[test]
fn a_node_says_that_it_is_there_and_is_cut_off_where_it_hears_nobody() {
    let mut counters = counters();
    counters.view().set_start(Start { node: NodeId(1), at_ms: 1 });
    let (members, start) = (members(3), Instant::now());
    let mut told = Vec::new();
    let mut tell = |counters: &mut Counters, at: Instant| {
        counters.tell(&members, at, |body, to| told.push((body.to_vec(), to.to_vec())))
    };
    tell(&mut counters, start);
    assert!(!counters.rates().limiter().is_cut_off(), "nobody can have been heard yet");
    for node in [2, 3] {
        counters.hear(NodeId(node), 1, &wire::encode(&[]), start).unwrap();
    }
    let next = tell(&mut counters, start + LOOK_INTERVAL);
    assert!(!counters.rates().limiter().is_cut_off());
    assert!(next <= start + 2 * LOOK_INTERVAL);
    tell(&mut counters, start + 2 * HELLO_INTERVAL);
    tell(&mut counters, start + HEARD_FOR + LOOK_INTERVAL);
    assert!(counters.rates().limiter().is_cut_off(), "nobody was heard for a second");
    assert_eq!(told, [(vec![1], vec![NodeId(2), NodeId(3)]), (vec![1], vec![NodeId(2), NodeId(3)])]);
}

#[test]
fn what_is_admitted_is_told_and_heard_and_a_new_start_takes_nothing_away() {
    let (mut one, mut other) = (counters(), counters());
    one.view().set_start(Start { node: NodeId(1), at_ms: 1 });
    other.view().set_start(Start { node: NodeId(2), at_ms: 1 });
    let (members, now) = (members(2), Instant::now());
    for (counters, peer) in [(&mut one, 2), (&mut other, 1)] {
        counters.hear(NodeId(peer), 1, &wire::encode(&[]), now).unwrap();
        counters.tell(&members, now, |_, _| ());
    }
    assert_eq!(asks(&one, 60), 60);
    one.have_come_due();
    let mut bodies = Vec::new();
    one.tell(&members, Instant::now(), |body, _| bodies.push(body.to_vec()));
    assert_eq!(bodies.len(), 1);
    // At rest: of one that is busy it would be reckoned what it may have admitted since.
    let wire::Body::Records(records) = wire::decode(&bodies[0]).unwrap() else { panic!("they are counts") };
    let record = records[0];
    let at_rest =
        |current| wire::encode(&[Record { current, admitted_rate: 0.0, asked_rate: 0.0, ..record }]);
    assert_eq!(record.current, 60);
    other.hear(NodeId(1), 1, &at_rest(60), now).unwrap();
    // Another start of the node begins at nothing; what it has admitted before is counted on.
    other.hear(NodeId(1), 2, &at_rest(10), now).unwrap();
    assert_eq!(asks(&other, 100), 30);
    other.look(&members, now);
    let (used, keys) = other.view().most_used(10, None);
    assert_eq!((keys, used[0].usage.remaining), (1, 0));
    assert_eq!(used[0].by_node, [(NodeId(1), 70), (NodeId(2), 30)]);
}

#[test]
fn no_more_is_sent_than_may_be() {
    let mut counters = counters();
    let (members, now) = (members(50), Instant::now());
    counters.not_before = now;
    let mut sent = 0;
    for _ in 0..1_000 {
        counters.poll_at = Some(now);
        if counters.not_before <= now {
            counters.send(&members, now, &[1], 0, &mut |_, to| sent += to.len() * (1 + DATAGRAM_BYTES));
        }
    }
    assert!(counters.not_before > now && sent <= 50 * (1 + DATAGRAM_BYTES), "{sent}");
    assert_eq!(counters.tell(&members, now, |_, _| panic!("it waits")).max(now), counters.not_before);
    assert!(counters.hear(NodeId(2), 1, b"?", now).is_err());
}
