//! Session tickets (RFC 8446, section 4.6.1; RFC 5077) that any node of a cluster can read, without a word between nodes.
//!
//! A ticket is sealed under a key of its own, derived (HKDF, RFC 5869) from the cluster's secret, the present period, what
//! clients of its kind must prove, and a salt of chance that stands before it. So keys change by themselves, and no key seals
//! two tickets.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
    rand,
};
use rustls::server::ProducesTickets;

/// How long tickets of a period are made; they are read for as long again.
const PERIOD: Duration = Duration::from_secs(6 * 3_600);
const DOMAIN: &[u8] = b"phalanx tls tickets 1";
const PERIOD_BYTES: usize = 4;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// The largest ticket that is read: larger ones are none of ours, and would cost a stranger's bytes to open.
const TICKET_BYTES_MAX: usize = 32 * 1024;

/// What a cluster's tickets are sealed under.
pub(crate) struct Tickets {
    on: bool,
    secret: ArcSwapOption<Prk>,
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("on", &self.on).finish_non_exhaustive()
    }
}

/// What a client has proved whose session is in a ticket: SHA-256 of it. Tickets of one context are nothing in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Context(pub(crate) [u8; 32]);

impl Context {
    /// Clients that are asked for no certificate.
    pub(crate) const NO_CLIENT: Self = Self([0; 32]);
}

impl Tickets {
    /// None are made before there is a secret.
    pub(crate) fn new(on: bool) -> Arc<Self> {
        Arc::new(Self { on, secret: ArcSwapOption::empty() })
    }

    /// None are made.
    pub(crate) fn off() -> Arc<Self> {
        Self::new(false)
    }

    /// From now on this is the cluster's secret.
    pub(crate) fn set_secret(&self, secret: Option<&[u8; 32]>) {
        let secret = secret.map(|secret| Arc::new(Salt::new(HKDF_SHA256, DOMAIN).extract(secret)));
        self.secret.store(secret);
    }

    /// The tickets of this context.
    pub(crate) fn bound(self: &Arc<Self>, context: Context) -> Bound {
        Bound { tickets: self.clone(), context }
    }

    /// The key of the ticket with this salt.
    fn key(&self, context: Context, period: [u8; PERIOD_BYTES], salt: &[u8]) -> Option<LessSafeKey> {
        let secret = self.secret.load();
        let info = [&context.0[..], &period, salt];
        let key = secret.as_ref()?.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }
}

/// The number of the present period.
fn now() -> u32 {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(passed.as_secs() / PERIOD.as_secs()).unwrap_or(u32::MAX)
}

/// The tickets of one context.
#[derive(Clone)]
pub(crate) struct Bound {
    tickets: Arc<Tickets>,
    context: Context,
}

impl fmt::Debug for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bound(…)")
    }
}

impl Bound {
    fn seal(&self, period: u32, plain: &[u8]) -> Option<Vec<u8>> {
        let period = period.to_be_bytes();
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).ok()?;
        let key = self.tickets.key(self.context, period, &salt)?;
        let mut ticket = Vec::with_capacity(PERIOD_BYTES + SALT_BYTES + plain.len() + TAG_BYTES);
        ticket.extend_from_slice(&period);
        ticket.extend_from_slice(&salt);
        ticket.extend_from_slice(plain);
        let (_, sealed) = ticket.split_at_mut(PERIOD_BYTES + SALT_BYTES);
        // The key seals nothing else, so the nonce may be the same each time.
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), sealed).ok()?;
        ticket.extend_from_slice(tag.as_ref());
        Some(ticket)
    }

    fn open(&self, period: u32, ticket: &[u8]) -> Option<Vec<u8>> {
        if ticket.len() > TICKET_BYTES_MAX {
            return None;
        }
        let (made, rest) = ticket.split_first_chunk::<PERIOD_BYTES>()?;
        // A node whose clock is ahead may make them in a period that has not begun here.
        if u32::from_be_bytes(*made).abs_diff(period) > 1 {
            return None;
        }
        let (salt, sealed) = rest.split_at_checked(SALT_BYTES)?;
        let key = self.tickets.key(self.context, *made, salt)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let length = key.open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

impl ProducesTickets for Bound {
    fn enabled(&self) -> bool {
        self.tickets.on && self.tickets.secret.load().is_some()
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(PERIOD.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(now(), plain)
    }

    // Asked by rustls in TLS 1.2 even where there are none.
    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        if !self.enabled() {
            return None;
        }
        self.open(now(), ticket)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(secret: u8) -> Bound {
        let tickets = Tickets::new(true);
        tickets.set_secret(Some(&[secret; 32]));
        tickets.bound(Context::NO_CLIENT)
    }

    #[test]
    fn another_node_of_the_cluster_reads_a_ticket_and_nobody_else() {
        let (one, other, stranger) = (of(1), of(1), of(2));
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(other.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(stranger.decrypt(&ticket), None);
        assert_eq!(other.tickets.bound(Context([1; 32])).decrypt(&ticket), None);
        assert_ne!(one.encrypt(b"session").unwrap(), ticket);
    }

    #[test]
    fn a_ticket_is_read_for_one_period_after_its_own() {
        let tickets = of(1);
        let ticket = tickets.seal(7, b"session").unwrap();
        for (period, read) in [(5, false), (6, true), (7, true), (8, true), (9, false)] {
            assert_eq!(tickets.open(period, &ticket).is_some(), read, "{period}");
        }
    }

    #[test]
    fn there_are_none_without_a_secret_or_when_they_are_off() {
        let tickets = Tickets::new(true);
        assert!(!tickets.bound(Context::NO_CLIENT).enabled());
        assert_eq!(tickets.bound(Context::NO_CLIENT).encrypt(b"session"), None);
        tickets.set_secret(Some(&[1; 32]));
        assert!(tickets.bound(Context::NO_CLIENT).enabled());
        let off = Tickets::off();
        off.set_secret(Some(&[1; 32]));
        assert!(!off.bound(Context::NO_CLIENT).enabled());
    }

    proptest! {
        #[test]
        fn what_strangers_send_is_no_ticket(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..200_usize) {
            let tickets = of(1);
            prop_assert_eq!(tickets.decrypt(&bytes), None);
            let mut ticket = tickets.encrypt(&bytes).unwrap();
            let opened = tickets.decrypt(&ticket);
            prop_assert_eq!(opened.as_ref(), Some(&bytes));
            let at = at % ticket.len();
            ticket[at] ^= 1;
            prop_assert_eq!(tickets.decrypt(&ticket), None);
        }
    }
}
