//! What a node may admit for now, from what it knows: the arithmetic of countdown push, on plain numbers.

use crate::PUSH_INTERVAL_US;

/// So many times over is what remains divided, among the nodes, to say how much a node may keep to itself.
pub(crate) const PUSH_DIVISOR: f64 = 8.0;
/// What a node that is not asked gets, as a part of the mean rate of its peers, so that it has something when it is.
const FLOOR: f64 = 0.02;
/// How long a datagram takes, and a node to heed it, in microseconds.
const WAY_US: f64 = 2_000.0;

/// What is known of a peer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Peer {
    /// What it admitted in this window, as it last said.
    pub(crate) current: f64,
    /// What it admitted in the window before.
    pub(crate) previous: f64,
    /// At what rate it admits, a microsecond; 0 if it did not say lately.
    pub(crate) admitted_rate: f64,
    /// At what rate it is asked, a microsecond; 0 if it did not say lately.
    pub(crate) asked_rate: f64,
    /// How long ago it spoke, in microseconds.
    pub(crate) age_us: f64,
}

impl Peer {
    /// How long what it admits waits for its push, in microseconds. Close to the limit each request is pushed at once, unless more
    /// come than there may be pushes.
    fn wait_us(&self) -> f64 {
        let interval_us = PUSH_INTERVAL_US as f64;
        interval_us * (self.admitted_rate * interval_us).min(1.0)
    }

    /// The same, of one that would have spoken again, had it admitted more than it may keep: it admits at no higher rate.
    fn by_its_silence(self, kept: f64) -> Self {
        let silent_us = self.age_us - WAY_US - self.wait_us();
        let rate = if silent_us > 0.0 { (kept + 1.0) / silent_us } else { f64::INFINITY };
        Self { admitted_rate: self.admitted_rate.min(rate), ..self }
    }

    /// What it may have admitted before it can be heard.
    fn unheard(&self) -> f64 {
        self.asked_rate * (WAY_US + self.wait_us())
    }

    /// What it is going to admit before it has heard what is admitted here now, and is heard.
    fn blind(&self) -> f64 {
        self.admitted_rate * (WAY_US + 2.0 * self.wait_us())
    }
}

/// What a node knows of a key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Known {
    /// What may be admitted in a window.
    pub(crate) limit: f64,
    /// The window's length in microseconds.
    pub(crate) window_us: f64,
    /// How much of the window is gone, from 0 to 1.
    pub(crate) gone: f64,
    /// What this node admitted in this window.
    pub(crate) current: f64,
    /// What it admitted in the window before.
    pub(crate) previous: f64,
    /// At what rate it admits, a microsecond.
    pub(crate) admitted_rate: f64,
    /// How many nodes share the limit, this one among them.
    pub(crate) nodes: f64,
}

/// What a node may admit until it looks again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Share {
    /// At once.
    pub(crate) budget: f64,
    /// And more for each microsecond that passes, as the window before goes out of sight.
    pub(crate) slope: f64,
    /// What remains for all nodes together.
    pub(crate) remaining: f64,
    /// This node's part of it, from 0 to 1.
    pub(crate) weight: f64,
}

impl Known {
    /// What this node may admit, by what its peers have said.
    pub(crate) fn share(&self, peers: impl Iterator<Item = Peer> + Clone) -> Share {
        let (mut current, mut previous) = (self.current, self.previous);
        for peer in peers.clone() {
            current += peer.current;
            previous += peer.previous;
        }
        // A sliding window, as a part of the one before that is still in sight.
        let seen = self.limit - current - previous * (1.0 - self.gone);
        let refill = previous / self.window_us;
        // What a node may keep to itself, close to the limit: if it had admitted more, it would have spoken again.
        let kept = seen.max(0.0) / (PUSH_DIVISOR * self.nodes);
        let peers = peers.map(|peer| peer.by_its_silence(kept));
        let (mut others, mut blind) = (0.0, 0.0);
        for peer in peers.clone() {
            others += peer.admitted_rate;
            blind += peer.blind();
        }
        // What peers have admitted since they spoke: no more than they were asked, and no more than their share.
        let rates = self.admitted_rate + others;
        let unseen = |peer: Peer| {
            let share = if rates > 0.0 { peer.admitted_rate / rates } else { 0.0 };
            let asked = peer.asked_rate * peer.age_us;
            let shared = share * (seen.max(0.0) + refill * peer.age_us);
            asked.min(shared).min(peer.unheard() + kept)
        };
        let remaining = seen - peers.map(unseen).sum::<f64>();
        let floor = FLOOR * others / self.nodes;
        let weight = if others == 0.0 {
            1.0
        } else {
            (self.admitted_rate + floor) / (self.admitted_rate + floor + others)
        };
        // Far from the limit the others can't use up what is left before they are heard: borrow what they don't need.
        // Of what is left, whole requests alone are there to be shared: parts of one may not come to one somewhere.
        let whole = remaining.floor();
        let budget = if whole > 0.0 { (weight * whole).max(remaining - blind) } else { weight * remaining };
        Share { budget, slope: weight * refill, remaining, weight }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known = Known {
        limit: 100.0,
        window_us: 1e6,
        gone: 0.5,
        current: 10.0,
        previous: 40.0,
        admitted_rate: 1e-4,
        nodes: 3.0,
    };
    const PEER: Peer =
        Peer { current: 5.0, previous: 20.0, admitted_rate: 1e-4, asked_rate: 1e-4, age_us: 0.0 };

    fn share(known: Known, peers: &[Peer]) -> Share {
        known.share(peers.iter().copied())
    }

    #[test]
    fn alone_a_node_has_all_that_remains() {
        let share = share(KNOWN, &[]);
        assert_eq!((share.remaining, share.weight, share.budget), (70.0, 1.0, 70.0));
        assert!((share.slope - 4e-5).abs() < 1e-12);
    }

    #[test]
    fn nodes_that_admit_alike_share_alike_and_borrow_what_nobody_can_use_up() {
        let share = share(KNOWN, &[PEER, PEER]);
        // 100 - 20 - 80 / 2, and the window before goes out of sight at 80 a second.
        assert_eq!(share.remaining, 40.0);
        assert!((share.weight - 1.0 / 3.0).abs() < 0.01, "{share:?}");
        // Until this node is heard, in 26 ms, the others take 5.2.
        assert!((share.budget - 34.8).abs() < 1e-9, "{share:?}");
        let close = self::share(Known { limit: 63.0, ..KNOWN }, &[PEER, PEER]);
        assert!(close.budget < 1.1 && close.remaining == 3.0, "{close:?}");
    }

    #[test]
    fn what_peers_have_not_told_yet_is_reckoned_with_up_to_what_they_would_have_told() {
        let silent = |age_us| share(KNOWN, &[Peer { age_us, ..PEER }]).remaining;
        assert_eq!(silent(0.0), 55.0);
        assert!(silent(10_000.0) < 54.1);
        // However long it is silent: its part of what remains, and what it is asked while that is on its way.
        assert!((52.2..52.6).contains(&silent(600_000.0)), "{}", silent(600_000.0));
    }

    #[test]
    fn a_peer_that_falls_silent_close_to_the_limit_gives_its_share_away() {
        let weight = |age_us| share(Known { limit: 63.0, ..KNOWN }, &[Peer { age_us, ..PEER }]).weight;
        assert!((weight(0.0) - 0.5).abs() < 0.01);
        assert!(weight(200_000.0) > 0.8, "{}", weight(200_000.0));
    }

    #[test]
    fn of_less_than_a_whole_request_nobody_has_a_part() {
        let share = share(Known { limit: 60.9, ..KNOWN }, &[PEER, PEER]);
        assert!(share.remaining < 1.0 && share.budget < 0.5, "{share:?}");
        let over = self::share(Known { limit: 30.0, ..KNOWN }, &[PEER, PEER]);
        assert!(over.budget < 0.0, "{over:?}");
    }
}
