//! Who asks when, and which node.

use crate::dice::Dice;

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When, in microseconds since the beginning.
    pub at_us: u64,
    /// The node's number.
    pub node: usize,
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Twice what is allowed, at all nodes alike.
    Uniform,
    /// Twice what is allowed, at the second node half as much as at the first, at the third a third, and so on.
    Zipf,
    /// Twice what is allowed, at one node, and soon at another.
    Moving,
    /// One and a half times what is allowed in a window, in its last twentieth and again in the first of the next.
    Edges,
    /// Five times what is allowed in a window within 50 ms, at all nodes, after a rest of three windows.
    Cold,
    /// Four fifths of what is allowed, at all nodes alike.
    Below,
    /// Three times what is allowed, on and off in turns of a fifth of a window.
    OnOff,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Uniform, Self::Zipf, Self::Moving, Self::Edges, Self::Cold, Self::Below, Self::OnOff];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "twice the limit, evenly",
            Self::Zipf => "twice the limit, Zipf over nodes",
            Self::Moving => "a client that moves",
            Self::Edges => "bursts at the edges of windows",
            Self::Cold => "cold bursts of 5 L in 50 ms",
            Self::Below => "0.8 of the limit",
            Self::OnOff => "on and off",
        }
    }

    /// All requests of so many windows of this length, at so many nodes.
    pub fn arrivals(
        self,
        limit: u32,
        window_us: u64,
        windows: u64,
        nodes: usize,
        dice: &mut Dice,
    ) -> Vec<Arrival> {
        let mut all = Vec::new();
        let end = windows * window_us;
        let rate = f64::from(limit) / window_us as f64;
        let any = |dice: &mut Dice| usize::try_from(dice.below(nodes as u64)).unwrap_or_default();
        match self {
            Self::Uniform | Self::Below => {
                let rate = if self == Self::Below { 0.8 * rate } else { 2.0 * rate };
                poisson(0, end, rate, dice, |at_us, dice| all.push(Arrival { at_us, node: any(dice) }));
            }
            Self::Zipf => {
                let sum: f64 = (1..=nodes).map(|number| 1.0 / number as f64).sum();
                poisson(0, end, 2.0 * rate, dice, |at_us, dice| {
                    let mut left = unit(dice) * sum;
                    let node = (0..nodes).find(|node| {
                        left -= 1.0 / (node + 1) as f64;
                        left <= 0.0
                    });
                    all.push(Arrival { at_us, node: node.unwrap_or_default() });
                });
            }
            Self::Moving => {
                let (mut at, mut node) = (0, 0);
                while at < end {
                    let stay = window_us / 4 + dice.below(window_us);
                    poisson(at, (at + stay).min(end), 2.0 * rate, dice, |at_us, _| {
                        all.push(Arrival { at_us, node })
                    });
                    at += stay;
                    node = (node + 1) % nodes;
                }
            }
            Self::Edges => {
                for edge in (1..windows).step_by(2) {
                    let (at, span) = (edge * window_us, window_us / 20);
                    poisson(
                        at - span,
                        at + span,
                        1.5 * f64::from(limit) / span as f64,
                        dice,
                        |at_us, dice| {
                            all.push(Arrival { at_us, node: any(dice) });
                        },
                    );
                }
            }
            Self::Cold => {
                for start in (0..windows).step_by(4) {
                    // Not across an edge, which is another scenario.
                    let room = window_us.saturating_sub(60_000).max(1);
                    let at = start * window_us + dice.below(room);
                    poisson(at, at + 50_000, 5.0 * f64::from(limit) / 50_000.0, dice, |at_us, dice| {
                        all.push(Arrival { at_us, node: any(dice) });
                    });
                }
            }
            Self::OnOff => {
                let span = window_us / 5;
                for at in (0..end).step_by(usize::try_from(2 * span).unwrap_or(1)) {
                    poisson(at, (at + span).min(end), 3.0 * rate, dice, |at_us, dice| {
                        all.push(Arrival { at_us, node: any(dice) });
                    });
                }
            }
        }
        all
    }
}

/// A number from 0 to 1, without 1.
pub(super) fn unit(dice: &mut Dice) -> f64 {
    dice.below(1 << 53) as f64 / (1_u64 << 53) as f64
}

/// Events at this rate a microsecond, each without regard to the others.
fn poisson(from_us: u64, to_us: u64, rate: f64, dice: &mut Dice, mut event: impl FnMut(u64, &mut Dice)) {
    let mut at = from_us as f64;
    loop {
        at -= (1.0 - unit(dice)).ln() / rate;
        if at >= to_us as f64 {
            return;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is below the end")]
        event(at as u64, dice);
    }
}
