//! What the connections to an upstream's targets must be.

use super::{Notes, text};
use crate::Upstream;

/// The most bytes of PEM for certificates.
const CA_BYTES_MAX: usize = 128 * 1024;

pub(super) fn check(upstream: &Upstream, notes: &mut Notes) {
    let Some(tls) = &upstream.tls else { return };
    if let Some(sni) = &tls.sni
        && (text::host(sni).is_err() || sni.parse::<std::net::IpAddr>().is_ok() || sni.starts_with('['))
    {
        notes.note("tls.sni", format!("{sni:?} is no DNS name: write it in lower case, without a port"));
    }
    if tls.sni.is_some() && tls.sni_from != Default::default() {
        notes.note("tls.sni_from", "says where the name comes from, which sni says already: leave one out");
    }
    if let Some(name) = &tls.name
        && name.parse::<std::net::IpAddr>().is_err()
        && (text::host(name).is_err() || name.starts_with('['))
    {
        notes.note(
            "tls.name",
            format!("{name:?} is no DNS name and no IP address: write it in lower case, without a port"),
        );
    }
    if !tls.verify {
        for (field, is_there) in [("name", tls.name.is_some()), ("ca", tls.ca.is_some())] {
            if is_there {
                notes.note(
                    format!("tls.{field}"),
                    "is not looked at where verify is false: leave one of the two out",
                );
            }
        }
    }
    if tls.ca.as_ref().is_some_and(|ca| ca.len() > CA_BYTES_MAX) {
        notes.note("tls.ca", format!("is over {CA_BYTES_MAX} bytes"));
    }
}
