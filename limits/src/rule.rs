//! What is allowed: so many requests in a window.

/// So many requests in each window of a length, windows being aligned to the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rule {
    limit: u32,
    window_ms: u32,
}

impl Rule {
    /// The largest limit, in requests.
    pub const LIMIT_MAX: u32 = 1 << 30;
    /// The longest window, in milliseconds: a day.
    pub const WINDOW_MS_MAX: u32 = 86_400_000;

    /// So many requests in so many milliseconds; none if one of them is 0 or too large.
    pub fn new(limit: u32, window_ms: u32) -> Option<Self> {
        let fits = (1..=Self::LIMIT_MAX).contains(&limit) && (1..=Self::WINDOW_MS_MAX).contains(&window_ms);
        fits.then_some(Self { limit, window_ms })
    }

    /// Requests in a window.
    pub fn limit(self) -> u32 {
        self.limit
    }

    /// A window's length in milliseconds.
    pub fn window_ms(self) -> u32 {
        self.window_ms
    }

    pub(crate) fn window_us(self) -> u64 {
        u64::from(self.window_ms) * 1_000
    }

    /// The number of the window at this time, and how much of it is gone, from 0 to 1.
    pub(crate) fn window(self, now_us: u64) -> (u32, f64) {
        let length = self.window_us();
        // A window of 1 ms has its number go round after 49 days, which is no harm: windows are compared with their neighbours.
        #[expect(clippy::cast_possible_truncation, reason = "it goes round")]
        let number = (now_us / length) as u32;
        (number, (now_us % length) as f64 / length as f64)
    }
}
