//! What the connections to an upstream's targets must be.

use std::{ops::RangeInclusive, time::Duration};

use super::{Notes, text};
use crate::{
    Upstream,
    upstream::{Http2, Protocol},
};

/// The most bytes of PEM for certificates.
const CA_BYTES_MAX: usize = 128 * 1024;
const STREAMS: RangeInclusive<u32> = 1..=1_024;
const STREAM_WINDOW: RangeInclusive<u64> = 16 << 10..=16 << 20;
/// The most bytes that a connection takes ahead of all its clients.
const WINDOWS_MAX: u64 = 1 << 30;
const FRAME: RangeInclusive<u64> = 16 << 10..=1 << 20;
const PING: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

pub(super) fn check(upstream: &Upstream, notes: &mut Notes) {
    if let Some(http2) = &upstream.http2 {
        self::http2(http2, upstream, notes);
    }
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

fn http2(http2: &Http2, upstream: &Upstream, notes: &mut Notes) {
    let is_spoken = match upstream.protocol {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto => upstream.tls.is_some(),
    };
    if !is_spoken {
        notes.note("http2", "is for protocol http2, or auto with tls: no HTTP/2 is spoken to these targets");
    }
    if !STREAMS.contains(&http2.streams_max) {
        let (least, most) = (STREAMS.start(), STREAMS.end());
        notes.note("http2.streams_max", format!("is {}, and may be {least} to {most}", http2.streams_max));
    }
    for (place, bytes, range) in
        [("stream_window", http2.stream_window, STREAM_WINDOW), ("frame_max", http2.frame_max, FRAME)]
    {
        if !range.contains(&bytes) {
            let [bytes, least, most] = [bytes, *range.start(), *range.end()].map(crate::size::format);
            notes.note(format!("http2.{place}"), format!("is {bytes}, and may be {least} to {most}"));
        }
    }
    if http2.stream_window.saturating_mul(u64::from(http2.streams_max)) > WINDOWS_MAX {
        let most = crate::size::format(WINDOWS_MAX);
        notes.note("http2.stream_window", format!("is, for each of streams_max, together over {most}"));
    }
    if !http2.ping_interval.is_zero() && !PING.contains(&http2.ping_interval) {
        notes.note("http2.ping_interval", "must be from 1s to 1h; 0s is never");
    }
    if !PING.contains(&http2.ping_timeout) {
        notes.note("http2.ping_timeout", "must be from 1s to 1h");
    }
}
