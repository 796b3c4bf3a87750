//! What is allowed: so many requests in a window or a period, and who shares them.

/// Who shares a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Scope {
    /// All nodes together. Those that are cut off from the most have their part of it.
    #[default]
    Cluster,
    /// All nodes together that reach each other. Those that are cut off have all of it anew.
    Reachable,
    /// Each node has all of it by itself.
    Node,
}

/// So many requests in each window of a length, windows being aligned to the Unix epoch; or so many in one period of a calendar, of
/// which no more is known here than its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    limit: u32,
    span: Span,
    scope: Scope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Span {
    /// A window's length in milliseconds.
    Window(u32),
    /// A period's number.
    Period(u32),
}

/// Where a packed rule's scope is: above the limit, and above the window's length.
const SCOPE_BIT_OF_LIMIT: u32 = 1 << 31;
const SCOPE_BIT_OF_WINDOW: u32 = 1 << 27;
/// A period's length, as good as for ever: a hundred years.
const PERIOD_US: u64 = 100 * 366 * 86_400_000_000;

impl Rule {
    /// The largest limit, in requests.
    pub const LIMIT_MAX: u32 = 1 << 30;
    /// The longest window, in milliseconds: a day.
    pub const WINDOW_MS_MAX: u32 = 86_400_000;
    /// The bits of a packed rule's second word that are not the rule's.
    pub(crate) const FREE_BITS: u32 = !((SCOPE_BIT_OF_WINDOW << 1) - 1);

    /// So many requests in so many milliseconds, for all nodes together; none if one of the numbers is 0 or too large.
    pub fn new(limit: u32, window_ms: u32) -> Option<Self> {
        let fits = (1..=Self::LIMIT_MAX).contains(&limit) && (1..=Self::WINDOW_MS_MAX).contains(&window_ms);
        fits.then_some(Self { limit, span: Span::Window(window_ms), scope: Scope::Cluster })
    }

    /// So many requests in the period of this number, for all nodes together; none if one of the numbers is 0 or too large. Periods do not
    /// slide: what was used of one counts nothing in the next, which has a larger number.
    pub fn of_period(limit: u32, number: u32) -> Option<Self> {
        let fits = (1..=Self::LIMIT_MAX).contains(&limit) && (1..SCOPE_BIT_OF_WINDOW).contains(&number);
        fits.then_some(Self { limit, span: Span::Period(number), scope: Scope::Cluster })
    }

    /// The same, shared so; a period is always shared by all nodes.
    pub fn within(self, scope: Scope) -> Self {
        match self.span {
            Span::Window(_) => Self { scope, ..self },
            Span::Period(_) => self,
        }
    }

    /// The period's number, if it is of one.
    pub fn period(self) -> Option<u32> {
        match self.span {
            Span::Window(_) => None,
            Span::Period(number) => Some(number),
        }
    }

    /// Requests in a window.
    pub fn limit(self) -> u32 {
        self.limit
    }

    /// A window's length in milliseconds; 0 of a period.
    pub fn window_ms(self) -> u32 {
        match self.span {
            Span::Window(window_ms) => window_ms,
            Span::Period(_) => 0,
        }
    }

    /// Who shares it.
    pub fn scope(self) -> Scope {
        self.scope
    }

    /// A window's length in microseconds. Of a period it is not known, and as good as for ever.
    pub(crate) fn window_us(self) -> u64 {
        match self.span {
            Span::Window(window_ms) => u64::from(window_ms) * 1_000,
            Span::Period(_) => PERIOD_US,
        }
    }

    /// How many microseconds are left of the window at this time. Of a period that is not known here.
    pub fn left_us(self, now_us: u64) -> u64 {
        match self.span {
            Span::Window(_) => self.window_us() - now_us % self.window_us(),
            Span::Period(_) => PERIOD_US,
        }
    }

    /// The number of the window at this time, and how much of it is gone, from 0 to 1.
    pub(crate) fn window(self, now_us: u64) -> (u32, f64) {
        if let Span::Period(number) = self.span {
            return (number, 0.0);
        }
        let length = self.window_us();
        // A window of 1 ms has its number go round after 49 days, which is no harm: windows are compared with their neighbours.
        #[expect(clippy::cast_possible_truncation, reason = "it goes round")]
        let number = (now_us / length) as u32;
        (number, (now_us % length) as f64 / length as f64)
    }

    /// The rule in two words; of the second, the upper four bits are free.
    pub(crate) fn pack(self) -> [u32; 2] {
        let (limit_bit, span_bit, span) = match (self.span, self.scope) {
            (Span::Window(window_ms), Scope::Cluster) => (0, 0, window_ms),
            (Span::Window(window_ms), Scope::Reachable) => (SCOPE_BIT_OF_LIMIT, 0, window_ms),
            (Span::Window(window_ms), Scope::Node) => (0, SCOPE_BIT_OF_WINDOW, window_ms),
            (Span::Period(number), _) => (SCOPE_BIT_OF_LIMIT, SCOPE_BIT_OF_WINDOW, number),
        };
        [self.limit | limit_bit, span | span_bit]
    }

    /// The rule of these words, whatever the free bits are; none if they are no rule's.
    pub(crate) fn unpack([limit, window]: [u32; 2]) -> Option<Self> {
        let window = window & !Self::FREE_BITS;
        let bits = (limit & SCOPE_BIT_OF_LIMIT != 0, window & SCOPE_BIT_OF_WINDOW != 0);
        let (limit, span) = (limit & !SCOPE_BIT_OF_LIMIT, window & !SCOPE_BIT_OF_WINDOW);
        let scope = match bits {
            (false, false) => Scope::Cluster,
            (true, false) => Scope::Reachable,
            (false, true) => Scope::Node,
            (true, true) => return Self::of_period(limit, span),
        };
        Some(Self::new(limit, span)?.within(scope))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked(
            limit in 1..=Rule::LIMIT_MAX,
            window_ms in 1..=Rule::WINDOW_MS_MAX,
            scope in prop::sample::select(vec![Scope::Cluster, Scope::Reachable, Scope::Node]),
            other in any::<u32>(),
        ) {
            let rule = Rule::new(limit, window_ms).unwrap().within(scope);
            let [limit, window] = rule.pack();
            prop_assert_eq!(window & Rule::FREE_BITS, 0);
            prop_assert_eq!(Rule::unpack([limit, window | other & Rule::FREE_BITS]), Some(rule));
            let period = Rule::of_period(rule.limit(), rule.window_ms()).unwrap();
            let [limit, number] = period.pack();
            prop_assert_eq!(Rule::unpack([limit, number | other & Rule::FREE_BITS]), Some(period.within(scope)));
            prop_assert_eq!(period.period(), Some(rule.window_ms()));
        }
    }

    #[test]
    fn what_is_no_rule_is_none() {
        for (limit, window_ms) in [(0, 1), (1, 0), (Rule::LIMIT_MAX + 1, 1), (1, Rule::WINDOW_MS_MAX + 1)] {
            assert_eq!(Rule::new(limit, window_ms), None);
        }
        assert_eq!(Rule::unpack([0, 0]), None);
    }
}
