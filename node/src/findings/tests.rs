use super::*;

impl Findings {
    /// Checks of no targets.
    pub(crate) fn of_none(registry: &prometheus::Registry) -> Self {
        Self::new(Arc::default(), registry).unwrap()
    }
}

const ME: NodeId = NodeId(1);

fn members(many: u64) -> BTreeMap<NodeId, Option<SocketAddr>> {
    (1..=many).map(|node| (NodeId(node), None)).collect()
}

fn sent(checks: &mut Findings, many: u64, now: Instant) -> Vec<(Vec<u8>, Vec<NodeId>)> {
    let mut sent = Vec::new();
    checks.tell(ME, &members(many), now, |body, to| sent.push((body.to_vec(), to.to_vec())));
    sent
}

#[test]
fn who_is_heard_shares_until_it_is_not_heard_any_more() {
    let mut checks = Findings::of_none(&prometheus::Registry::new());
    let now = Instant::now();
    sent(&mut checks, 3, now);
    assert_eq!(checks.shared, [1]);
    checks.hear(NodeId(2), &wire::encode(&[]), now).unwrap();
    checks.hear(NodeId(3), &wire::encode(&[]), now + Duration::from_secs(2)).unwrap();
    sent(&mut checks, 3, now + Duration::from_secs(2));
    assert_eq!((&checks.shared[..], checks.metrics.nodes.get()), (&[1, 2, 3][..], 3));
    sent(&mut checks, 3, now + HEARD_FOR);
    assert_eq!(checks.shared, [1, 3]);
    // One that was removed is not counted on, though it was just heard.
    sent(&mut checks, 2, now + HEARD_FOR);
    assert_eq!(checks.shared, [1]);
}

#[test]
fn a_node_that_does_not_check_is_silent() {
    let mut checks = Findings::of_none(&prometheus::Registry::new());
    assert_eq!(sent(&mut checks, 3, Instant::now()), []);
}

#[test]
fn what_others_found_is_handed_on_and_nonsense_is_not() {
    let mut checks = Findings::of_none(&prometheus::Registry::new());
    let finding = Finding { target: 5, is_well: false };
    checks.hear(NodeId(2), &wire::encode(&[finding; 3]), Instant::now()).unwrap();
    assert_eq!(checks.metrics.received.get(), 3);
    assert_eq!(checks.hear(NodeId(2), &[9], Instant::now()), Err(Malformed));
}
