//! What a certificate must be, as far as it can be told without reading X.509: the data plane tells the rest.

use super::{Notes, text};
use crate::Certificate;

const HOSTS_MAX: usize = 1_000;

pub(super) fn check(certificate: &Certificate, notes: &mut Notes) {
    let client = certificate.client.as_ref().map(|client| ("client.ca", &client.ca));
    let own = [("chain", &certificate.chain), ("key", &certificate.key.0)];
    for (place, pem) in own.into_iter().chain(client) {
        if !pem.contains("-----BEGIN ") {
            notes.note(place, "is no PEM: it has a line -----BEGIN …----- in it");
        }
    }
    if certificate.hosts.len() > HOSTS_MAX {
        notes.note("hosts", format!("has {}, and may have {HOSTS_MAX}", certificate.hosts.len()));
    }
    for (at, host) in certificate.hosts.iter().enumerate() {
        if let Err(error) = text::host_pattern(host) {
            notes.note(format!("hosts[{at}]"), error);
        } else if host.parse::<std::net::Ipv4Addr>().is_ok() || host.starts_with('[') {
            notes
                .note(format!("hosts[{at}]"), "is an address, for which clients ask by no name: use default");
        }
    }
}
