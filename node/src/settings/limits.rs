//! How much of this node a client may take.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use gateway::Limits;

use super::Given;

const HEAD_BYTES: RangeInclusive<usize> = 8_192..=1_048_576;
const TARGET_BYTES: RangeInclusive<usize> = 256..=65_536;
const HEADERS: RangeInclusive<usize> = 10..=10_000;
const CONNECTIONS: RangeInclusive<usize> = 1..=16_777_216;
const STREAMS: RangeInclusive<u32> = 1..=10_000;
const RESETS: RangeInclusive<u32> = 1..=1_000_000;
const STREAM_WINDOW: RangeInclusive<u32> = 16 << 10..=16 << 20;
const CONNECTION_WINDOW: RangeInclusive<u32> = 64 << 10..=64 << 20;
const FRAME: RangeInclusive<u32> = 16 << 10..=1 << 20;
const BY_ADDRESS: RangeInclusive<usize> = 0..=16_777_216;
const TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);

impl Given {
    /// The limits that are given, and for the others the usual ones; adds what is wrong with them.
    pub(super) fn limits(&self, wrong: &mut Vec<String>) -> Limits {
        let mut limits = Limits::default();
        let counts = [
            ("head_bytes_max", self.head_bytes_max, &mut limits.head_bytes_max, HEAD_BYTES),
            ("target_bytes_max", self.target_bytes_max, &mut limits.target_bytes_max, TARGET_BYTES),
            ("headers_max", self.headers_max, &mut limits.headers_max, HEADERS),
            ("connections_max", self.connections_max, &mut limits.connections_max, CONNECTIONS),
            (
                "connections_by_address_max",
                self.connections_by_address_max,
                &mut limits.connections_by_address_max,
                BY_ADDRESS,
            ),
        ];
        for (name, given, limit, range) in counts {
            set(name, given, limit, range, wrong);
        }
        let http2 = &mut limits.http2;
        let counts = [
            ("http2_streams_max", self.http2_streams_max, &mut http2.streams_max, STREAMS),
            ("http2_resets_max", self.http2_resets_max, &mut http2.resets_max, RESETS),
        ];
        for (name, given, limit, range) in counts {
            set(name, given, limit, range, wrong);
        }
        let sizes = [
            ("http2_stream_window", &self.http2_stream_window, &mut http2.stream_window_bytes, STREAM_WINDOW),
            (
                "http2_connection_window",
                &self.http2_connection_window,
                &mut http2.connection_window_bytes,
                CONNECTION_WINDOW,
            ),
            ("http2_frame_max", &self.http2_frame_max, &mut http2.frame_bytes_max, FRAME),
        ];
        for (name, given, limit, range) in sizes {
            sized(name, given.as_deref(), limit, range, wrong);
        }
        if http2.stream_window_bytes > http2.connection_window_bytes {
            wrong.push(
                "http2_stream_window: is over http2_connection_window, which holds for all streams"
                    .to_owned(),
            );
        }
        let is_never = |given: &str| model::duration::parse(given) == Ok(Duration::ZERO);
        if !self.http2_ping_interval.as_deref().is_none_or(is_never) {
            let interval = http2.ping_interval.get_or_insert_default();
            timed("http2_ping_interval", self.http2_ping_interval.as_deref(), interval, wrong);
        }
        timed("http2_ping_timeout", self.http2_ping_timeout.as_deref(), &mut http2.ping_timeout, wrong);
        let timeouts = [
            ("header_timeout", &self.header_timeout, &mut limits.header_timeout),
            ("handshake_timeout", &self.handshake_timeout, &mut limits.handshake_timeout),
            ("idle_timeout", &self.idle_timeout, &mut limits.idle_timeout),
            ("stall_timeout", &self.stall_timeout, &mut limits.stall_timeout),
        ];
        for (name, given, limit) in timeouts {
            timed(name, given.as_deref(), limit, wrong);
        }
        let mut size = |name: &str, given: &Option<String>| {
            let size = model::size::parse(given.as_deref()?);
            size.map_err(|error| wrong.push(format!("{name}: {error}"))).ok()
        };
        limits.body_bytes_max = size("body_bytes_max", &self.body_bytes_max);
        if let Some(bytes) = size("compression_memory", &self.compression_memory) {
            limits.compression_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        limits.client_rate_min = self.client_rate_min.unwrap_or(limits.client_rate_min);
        limits
    }
}

/// Sets the limit to what is given, or tells that it can't be that.
fn set<T: PartialOrd + Copy + Display>(
    name: &str,
    given: Option<T>,
    limit: &mut T,
    range: RangeInclusive<T>,
    wrong: &mut Vec<String>,
) {
    match given {
        None => {}
        Some(given) if range.contains(&given) => *limit = given,
        Some(given) => wrong.push(format!("{name}: {given} is not {} to {}", range.start(), range.end())),
    }
}

/// The same of a time.
fn timed(name: &str, given: Option<&str>, limit: &mut Duration, wrong: &mut Vec<String>) {
    match given.map(model::duration::parse) {
        None => {}
        Some(Ok(given)) if TIMEOUT.contains(&given) => *limit = given,
        Some(Ok(_)) => wrong.push(format!("{name}: is not 1s to 1h")),
        Some(Err(error)) => wrong.push(format!("{name}: {error}")),
    }
}

/// The same of a number of bytes.
fn sized(
    name: &str,
    given: Option<&str>,
    limit: &mut u32,
    range: RangeInclusive<u32>,
    wrong: &mut Vec<String>,
) {
    match given.map(model::size::parse) {
        None => {}
        Some(Ok(given)) => match u32::try_from(given).ok().filter(|given| range.contains(given)) {
            Some(given) => *limit = given,
            None => {
                let [given, least, most] =
                    [given, u64::from(*range.start()), u64::from(*range.end())].map(model::size::format);
                wrong.push(format!("{name}: {given} is not {least} to {most}"));
            }
        },
        Some(Err(error)) => wrong.push(format!("{name}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_the_limit_and_the_rest_is_usual() {
        let given = Given {
            headers_max: Some(20),
            idle_timeout: Some("5s".into()),
            client_rate_min: Some(0),
            http2_streams_max: Some(7),
            compression_memory: Some("1MiB".into()),
            body_bytes_max: Some("2GiB".into()),
            ..Given::default()
        };
        let limits = given.check().unwrap().limits;
        assert_eq!((limits.headers_max, limits.idle_timeout), (20, Duration::from_secs(5)));
        assert_eq!((limits.compression_bytes_max, limits.body_bytes_max), (1 << 20, Some(2 << 30)));
        assert_eq!(Given::default().check().unwrap().limits.body_bytes_max, None);
        assert_eq!((limits.client_rate_min, limits.head_bytes_max), (0, 65_536));
        assert_eq!((limits.http2.streams_max, limits.http2.resets_max), (7, 200));
    }

    #[test]
    fn of_http2_there_are_windows_frames_and_pings() {
        let usual = Given::default().check().unwrap().limits.http2;
        assert_eq!((usual.stream_window_bytes, usual.connection_window_bytes), (256 << 10, 1 << 20));
        assert_eq!((usual.frame_bytes_max, usual.ping_interval), (16 << 10, None));
        let given = Given {
            http2_stream_window: Some("2MiB".into()),
            http2_connection_window: Some("16MiB".into()),
            http2_frame_max: Some("64KiB".into()),
            http2_ping_interval: Some("30s".into()),
            http2_ping_timeout: Some("5s".into()),
            ..Given::default()
        };
        let http2 = given.check().unwrap().limits.http2;
        assert_eq!((http2.stream_window_bytes, http2.connection_window_bytes), (2 << 20, 16 << 20));
        let times = (Some(Duration::from_secs(30)), Duration::from_secs(5));
        assert_eq!((http2.frame_bytes_max, (http2.ping_interval, http2.ping_timeout)), (64 << 10, times));
        let never = Given { http2_ping_interval: Some("0s".into()), ..Given::default() };
        assert_eq!(never.check().unwrap().limits.http2.ping_interval, None);
        let wrong = Given {
            http2_stream_window: Some("2MiB".into()),
            http2_connection_window: Some("65MiB".into()),
            http2_frame_max: Some("1000".into()),
            http2_ping_interval: Some("100ms".into()),
            http2_ping_timeout: Some("soon".into()),
            ..Given::default()
        };
        let error = wrong.check().unwrap_err().to_string();
        for what in [
            "http2_stream_window: is over http2_connection_window",
            "http2_connection_window: 65MiB is not 64KiB to 64MiB",
            "http2_frame_max: \"1000\" is no number of bytes",
            "http2_ping_interval: is not 1s to 1h",
            "http2_ping_timeout: \"soon\"",
        ] {
            assert!(error.contains(what), "{what}: {error}");
        }
    }
}
