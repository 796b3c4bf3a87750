//! What responses tell of limits: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11).
//!
//! They are made for each response, so with as little as can be: what never changes is made once, and a value takes one allocation.

use std::{
    cell::{Cell, RefCell},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::Limit;
use crate::policy::partition::{Partition, Shown};

pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The problem type of a refusal, and its title.
pub(super) const QUOTA_EXCEEDED: (&str, &str) =
    ("https://iana.org/assignments/http-problem-types#quota-exceeded", "A quota is exceeded");

/// Values of `RateLimit-Policy` that a thread keeps, since callers come again.
const KEPT: usize = 64;

/// A value that was made: for which policy, and which partition.
type Kept = (u64, u64, HeaderValue);

thread_local! {
    static KEPT_VALUES: RefCell<[Option<Kept>; KEPT]> = const { RefCell::new([const { None }; KEPT]) };
}

/// `RateLimit-Policy` but for the partition: each limit with its quota, and its window where that is of whole seconds.
#[derive(Debug)]
pub(super) struct Policy {
    /// Unlike that of any other in this process.
    id: u64,
    text: Box<[u8]>,
    /// Where the partition goes.
    holes: Box<[usize]>,
}

impl Policy {
    /// Of these limits, with a partition if there are several.
    pub(super) fn new(limits: &[Limit], is_partitioned: bool) -> Self {
        let (mut text, mut holes) = (Vec::new(), Vec::new());
        for limit in limits {
            begin_item(&mut text, limit);
            text.extend(format!(";q={}", limit.quota()).bytes());
            if let Some(window_s) = limit.window_s() {
                text.extend(format!(";w={window_s}").bytes());
            }
            if is_partitioned {
                text.extend(b";pk=:");
                holes.push(text.len());
                text.extend([b'A'; Shown::BYTES]);
                text.push(b':');
            }
        }
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Relaxed), text: text.into(), holes: holes.into() }
    }

    /// With this partition.
    pub(super) fn value(&self, partition: &Partition) -> Option<HeaderValue> {
        let number = partition.number();
        KEPT_VALUES.with_borrow_mut(|kept| {
            #[expect(clippy::cast_possible_truncation, reason = "any place is as good")]
            let place = &mut kept[(number ^ self.id) as usize % KEPT];
            match place {
                Some((id, of, value)) if *id == self.id && *of == number => Some(value.clone()),
                _ => {
                    let value = self.make(&partition.shown())?;
                    *place = Some((self.id, number, value.clone()));
                    Some(value)
                }
            }
        })
    }

    fn make(&self, partition: &Shown) -> Option<HeaderValue> {
        let mut text = self.text.to_vec();
        for hole in &self.holes {
            text[*hole..*hole + Shown::BYTES].copy_from_slice(partition.as_bytes());
        }
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
    }
}

/// `RateLimit` of a limit that is used up for so many seconds.
pub(super) fn used_up(limit: &Limit, after_s: u64) -> Option<HeaderValue> {
    let mut told = Told::new(true);
    told.item(limit, 0, after_s);
    told.value()
}

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// `RateLimit` of a request that is admitted: what remains of each limit, and for how many seconds its window still is.
pub(super) struct Told {
    text: Vec<u8>,
    is_wanted: bool,
}

impl Told {
    /// If it is not wanted, nothing is told.
    pub(super) fn new(is_wanted: bool) -> Self {
        let mut text = if is_wanted { SCRATCH.take() } else { Vec::new() };
        text.clear();
        Self { text, is_wanted }
    }

    pub(super) fn admitted(&mut self, limit: &Limit, remaining: u32, left_us: u64) {
        if self.is_wanted {
            self.item(limit, remaining, left_us.div_ceil(1_000_000));
        }
    }

    fn item(&mut self, limit: &Limit, remaining: u32, left_s: u64) {
        let mut digits = itoa::Buffer::new();
        begin_item(&mut self.text, limit);
        self.text.extend_from_slice(b";r=");
        self.text.extend_from_slice(digits.format(remaining).as_bytes());
        self.text.extend_from_slice(b";t=");
        self.text.extend_from_slice(digits.format(left_s).as_bytes());
    }

    /// The value; none if nothing was told.
    pub(super) fn value(self) -> Option<HeaderValue> {
        if !self.is_wanted {
            return None;
        }
        let value = HeaderValue::from_bytes(&self.text);
        SCRATCH.set(self.text);
        value.ok().filter(|value| !value.is_empty())
    }
}

/// An item of a list (RFC 9651): names have no character that would have to be escaped.
fn begin_item(text: &mut Vec<u8>, limit: &Limit) {
    if !text.is_empty() {
        text.extend_from_slice(b", ");
    }
    text.push(b'"');
    text.extend_from_slice(limit.told.as_bytes());
    text.push(b'"');
}
