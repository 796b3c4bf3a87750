//! The value of `Date`, written once a second for all of a thread's responses.

use std::{cell::RefCell, time::SystemTime};

use crate::timer;

/// For how long a date that was written is right enough (RFC 9110, section 6.6.1: an approximation).
const FRESH_MS: u64 = 500;

struct Written {
    text: String,
    at_ms: u64,
}

thread_local! {
    static DATE: RefCell<Written> = const { RefCell::new(Written { text: String::new(), at_ms: 0 }) };
}

/// Adds the line to a head.
pub(crate) fn write(out: &mut Vec<u8>) {
    DATE.with_borrow_mut(|date| {
        let now_ms = timer::now_ms();
        if date.text.is_empty() || now_ms.saturating_sub(date.at_ms) > FRESH_MS {
            *date = Written { text: httpdate::fmt_http_date(SystemTime::now()), at_ms: now_ms };
        }
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(date.text.as_bytes());
        out.extend_from_slice(b"\r\n");
    });
}
