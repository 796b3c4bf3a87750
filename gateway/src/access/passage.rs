//! The line of a connection that went through by a TCP route, or was to.

use std::{
    io::Write,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use super::line::{self, millis, plain, timestamp};

/// What is told of a connection; what there was not is not in its line.
#[derive(Debug)]
pub(crate) struct PassageLine<'p> {
    pub(crate) client: IpAddr,
    /// The listener's name.
    pub(crate) listener: &'p str,
    /// The host that its client has named.
    pub(crate) sni: Option<&'p str>,
    /// How it ended, in a word.
    pub(crate) end: &'p str,
    /// Of the client.
    pub(crate) bytes_in: u64,
    /// Of the target.
    pub(crate) bytes_out: u64,
    pub(crate) took: Duration,
    pub(crate) route: Option<&'p str>,
    pub(crate) upstream: Option<&'p str>,
    pub(crate) target: Option<&'p str>,
    /// How long it took to connect to the target.
    pub(crate) target_took: Option<Duration>,
    /// At targets.
    pub(crate) attempts: u32,
}

#[derive(Serialize)]
struct Json<'p> {
    timestamp: String,
    client: IpAddr,
    listener: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'p str>,
    end: &'p str,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_route: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_ms: Option<f64>,
    retries: u32,
}

impl PassageLine<'_> {
    /// As an object of JSON.
    pub(super) fn json(&self, now: SystemTime, to: &mut Vec<u8>) {
        let json = Json {
            timestamp: timestamp(now),
            client: self.client,
            listener: self.listener,
            sni: self.sni,
            end: self.end,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration_ms: millis(self.took),
            tcp_route: self.route,
            upstream: self.upstream,
            target: self.target,
            target_ms: self.target_took.map(millis),
            retries: self.attempts.saturating_sub(1),
        };
        line::json(&json, to);
    }

    /// As words.
    pub(super) fn text(&self, now: SystemTime, to: &mut Vec<u8>) {
        let mut text = format!(
            "{} {} TCP {} {} {} in={} out={} ms={}",
            timestamp(now),
            self.client,
            plain(self.listener),
            self.sni.map_or_else(|| "-".to_owned(), plain),
            self.end,
            self.bytes_in,
            self.bytes_out,
            millis(self.took),
        );
        let words = [("tcp_route", self.route), ("upstream", self.upstream), ("target", self.target)];
        for (name, value) in words {
            if let Some(value) = value {
                text.extend([" ", name, "=", &plain(value)]);
            }
        }
        if let Some(took) = self.target_took {
            text.push_str(&format!(" target_ms={}", millis(took)));
        }
        // Memory takes every byte.
        let _ = writeln!(to, "{text} retries={}", self.attempts.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_there_was() {
        let line = PassageLine {
            client: IpAddr::from([192, 0, 2, 1]),
            listener: "postgres",
            sni: None,
            end: "closed",
            bytes_in: 7,
            bytes_out: 8,
            took: Duration::from_micros(1_500),
            route: Some("db"),
            upstream: Some("pool"),
            target: Some("10.0.0.1:5432"),
            target_took: Some(Duration::from_micros(250)),
            attempts: 2,
        };
        let (mut text, mut json) = (Vec::new(), Vec::new());
        line.text(SystemTime::UNIX_EPOCH, &mut text);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "1970-01-01T00:00:00.000Z 192.0.2.1 TCP postgres - closed in=7 out=8 ms=1.5 tcp_route=db upstream=pool \
             target=10.0.0.1:5432 target_ms=0.25 retries=1\n"
        );
        PassageLine { sni: Some("a b\n"), route: None, ..line }.json(SystemTime::UNIX_EPOCH, &mut json);
        let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (&read["sni"], &read["retries"], read.get("tcp_route")),
            (&"a b\n".into(), &1.into(), None)
        );
        assert_eq!(json.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
