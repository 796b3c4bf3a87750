//! What responses tell of limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).

use std::fmt::Write;

use http::{HeaderName, HeaderValue};

use super::{Limit, by::Shown};

pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The problem type of a refusal, and its title.
pub(super) const QUOTA_EXCEEDED: (&str, &str) =
    ("https://iana.org/assignments/http-problem-types#quota-exceeded", "A quota is exceeded");

/// The bytes of an item, as they are for most.
const ITEM_BYTES: usize = 48;

/// `RateLimit-Policy`: each limit with its quota, its window where that is of whole seconds, and the partition if there are several.
pub(super) fn policy(limits: &[Limit], partition: Option<&Shown>) -> Option<HeaderValue> {
    let mut text = String::with_capacity(limits.len() * ITEM_BYTES);
    for limit in limits {
        begin_item(&mut text, limit);
        let _ = write!(text, ";q={}", limit.rule.limit());
        if limit.rule.window_ms().is_multiple_of(1_000) {
            let _ = write!(text, ";w={}", limit.rule.window_ms() / 1_000);
        }
        if let Some(partition) = partition {
            let _ = write!(text, ";pk=:{}:", partition.as_str());
        }
    }
    HeaderValue::try_from(text).ok()
}

/// `RateLimit` of a limit that is used up for so many seconds.
pub(super) fn used_up(limit: &Limit, after_s: u64) -> Option<HeaderValue> {
    let mut text = String::with_capacity(ITEM_BYTES);
    begin_item(&mut text, limit);
    let _ = write!(text, ";r=0;t={after_s}");
    HeaderValue::try_from(text).ok()
}

/// `RateLimit` of a request that is admitted: what remains of each limit, and for how many seconds its window still is.
pub(super) struct Told(String);

impl Told {
    /// Of so many limits; of none nothing is told.
    pub(super) fn new(limits: usize) -> Self {
        Self(String::with_capacity(limits * ITEM_BYTES))
    }

    pub(super) fn admitted(&mut self, limit: &Limit, remaining: u32, now_us: u64) {
        if self.0.capacity() > 0 {
            begin_item(&mut self.0, limit);
            let left_s = limit.rule.left_us(now_us).div_ceil(1_000_000);
            let _ = write!(self.0, ";r={remaining};t={left_s}");
        }
    }

    pub(super) fn value(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.0).ok().filter(|value| !value.is_empty())
    }
}

/// An item of a list (RFC 9651): names have no character that would have to be escaped.
fn begin_item(text: &mut String, limit: &Limit) {
    if !text.is_empty() {
        text.push_str(", ");
    }
    text.push('"');
    text.push_str(&limit.told);
    text.push('"');
}
