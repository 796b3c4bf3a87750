//! What the choice of an upstream's targets must be.

use std::time::Duration;

use super::{Notes, text};
use crate::{
    Upstream,
    upstream::{Balance, HashKey, SameSite, Sticky},
};

/// The highest number of a target's priority.
const PRIORITY_MAX: u16 = 127;
const ZONE_BYTES_MAX: usize = 63;
const SLOW_START_MAX: Duration = Duration::from_secs(3_600);
const NAME_BYTES_MAX: usize = 256;
const PATH_BYTES_MAX: usize = 1_024;
/// What browsers keep a cookie for at the most (RFC 6265bis, section 5.5).
const TTL_MAX: Duration = Duration::from_secs(400 * 86_400);

pub(super) fn check(upstream: &Upstream, notes: &mut Notes) {
    if let Balance::Maglev(hashing) = &upstream.balance {
        let (place, told) = match &hashing.by {
            HashKey::Address => ("address", Ok(())),
            HashKey::Header(name) => ("header", text::header_name(name).map(drop)),
            HashKey::Cookie(name) => ("cookie", cookie(name)),
            HashKey::Query(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => {
                ("query", Err(format!("{name:?} is no name of a parameter")))
            }
            HashKey::Query(_) => ("query", Ok(())),
        };
        if let Err(error) = told {
            notes.note(format!("balance.maglev.by.{place}"), error);
        }
    }
    if let Some(sticky) = &upstream.sticky {
        check_sticky(sticky, notes);
    }
    if upstream.slow_start > SLOW_START_MAX {
        notes.note("slow_start", "must be from 0s (off) to 1h");
    }
    if upstream.panic_percent > 100 {
        notes.note("panic_percent", format!("is {}, and may be 100", upstream.panic_percent));
    }
    for (at, target) in upstream.targets.iter().enumerate() {
        if target.priority > PRIORITY_MAX {
            let message = format!("is {}, and may be {PRIORITY_MAX}", target.priority);
            notes.note(format!("targets[{at}].priority"), message);
        }
        if let Some(zone) = &target.zone
            && (zone.is_empty()
                || zone.len() > ZONE_BYTES_MAX
                || !zone.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            let message = format!("{zone:?} is no zone: write 1 to {ZONE_BYTES_MAX} visible characters");
            notes.note(format!("targets[{at}].zone"), message);
        }
    }
}

fn check_sticky(sticky: &Sticky, notes: &mut Notes) {
    if let Err(error) = cookie(&sticky.cookie) {
        notes.note("sticky.cookie", error);
    }
    if sticky.ttl.is_some_and(|ttl| ttl < Duration::from_secs(1) || ttl > TTL_MAX) {
        notes.note("sticky.ttl", "must be from 1s to 400d");
    }
    let path = &sticky.path;
    // What an attribute's value may have in it: RFC 6265, section 4.1.1.
    let good = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b';';
    if !path.starts_with('/') || path.len() > PATH_BYTES_MAX || !path.bytes().all(good) {
        notes.note("sticky.path", format!("{path:?} is no path for a cookie: it begins with / and has no ;"));
    }
    if sticky.same_site == Some(SameSite::None) && !sticky.secure {
        notes.note("sticky.same_site", "is none, which clients take of a cookie alone that is secure: true");
    }
}

/// A cookie's name is a token (RFC 6265, section 4.1.1), as a header's is.
fn cookie(name: &str) -> Result<(), String> {
    match text::header_name(name) {
        Ok(_) if name.len() <= NAME_BYTES_MAX => Ok(()),
        _ => Err(format!("{name:?} is no name of a cookie")),
    }
}
