//! One line of the access log, for people or for programs. The query is not in it: queries hold keys and
//! other secrets.

use std::{
    borrow::Cow,
    io::Write,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use http::StatusCode;
use serde::Serialize;

use super::Entry;
use crate::upload::Progress;

/// The longest method, host and path in a line, in bytes; the rest is cut off.
const METHOD_BYTES_MAX: usize = 32;
const HOST_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 2_048;

/// What one line says; what there was not is not in it.
#[derive(Debug, Serialize)]
pub(super) struct Line<'e> {
    timestamp: String,
    client: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<Cow<'e, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'e str>,
    status: u16,
    bytes_in: u64,
    bytes_out: u64,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_ms: Option<f64>,
    retries: u32,
    #[serde(skip_serializing_if = "is_zero")]
    hedges: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    hedge_won: bool,
    request_id: &'e str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<'e> Line<'e> {
    pub(super) fn of(
        entry: &'e Entry,
        now: SystemTime,
        status: StatusCode,
        bytes_out: u64,
        duration: Duration,
    ) -> Self {
        let asked = entry.asked.as_ref();
        let host = asked.and_then(|asked| asked.host.as_ref());
        Self {
            timestamp: timestamp(now),
            client: entry.client,
            method: asked.map(|asked| cut(asked.method.as_str(), METHOD_BYTES_MAX)),
            host: host.map(|host| {
                let end = host.len().min(HOST_BYTES_MAX);
                String::from_utf8_lossy(&host.as_bytes()[..end])
            }),
            path: asked.map(|asked| cut(asked.uri.path(), PATH_BYTES_MAX)),
            status: status.as_u16(),
            bytes_in: entry.upload.as_deref().map_or(0, Progress::bytes),
            bytes_out,
            duration_ms: millis(duration),
            route: entry.route.as_ref().map(|name| name.as_str()),
            consumer: entry.consumer.as_ref().map(|name| name.as_str()),
            upstream: entry.upstream.as_ref().map(|name| name.as_str()),
            target: entry.target.as_deref(),
            // One that is under way still ends with the request.
            target_ms: entry.attempt_began.map(|began| began.elapsed()).or(entry.target_time).map(millis),
            retries: entry.attempts.saturating_sub(1 + entry.hedges),
            hedges: entry.hedges,
            hedge_won: entry.hedge_won,
            request_id: entry.id.to_str().unwrap_or_default(),
        }
    }

    /// As an object of JSON.
    pub(super) fn json(&self, to: &mut Vec<u8>) {
        json(self, to);
    }

    /// As words.
    pub(super) fn text(&self, to: &mut Vec<u8>) {
        let word = |word: Option<&str>| word.map_or_else(|| "-".to_owned(), plain);
        let mut text = format!(
            "{} {} {} {} {} {} in={} out={} ms={}",
            self.timestamp,
            self.client,
            word(self.method),
            word(self.host.as_deref()),
            word(self.path),
            self.status,
            self.bytes_in,
            self.bytes_out,
            self.duration_ms,
        );
        let words = [
            ("route", self.route),
            ("consumer", self.consumer),
            ("upstream", self.upstream),
            ("target", self.target),
        ];
        for (name, value) in words {
            if let Some(value) = value {
                text.extend([" ", name, "=", &plain(value)]);
            }
        }
        // Memory takes every byte.
        let _ = to.write_all(text.as_bytes());
        if let Some(ms) = self.target_ms {
            let _ = write!(to, " target_ms={ms}");
        }
        let _ = write!(to, " retries={}", self.retries);
        if self.hedges > 0 {
            let _ = write!(to, " hedges={} hedge_won={}", self.hedges, self.hedge_won);
        }
        let _ = writeln!(to, " id={}", plain(self.request_id));
    }
}

/// A line of JSON.
pub(super) fn json(line: &impl Serialize, to: &mut Vec<u8>) {
    let before = to.len();
    match serde_json::to_writer(&mut *to, line) {
        Ok(()) => to.push(b'\n'),
        // A map of texts and finite numbers has its JSON, and memory takes every byte.
        Err(_) => to.truncate(before),
    }
}

/// To the microsecond.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

/// The text as one word, in which no stranger can end the line or begin another word.
pub(super) fn plain(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() {
            word.push(char::from(byte));
        } else {
            word.push_str(&format!("%{byte:02X}"));
        }
    }
    word
}

/// RFC 3339, in UTC, to the millisecond.
pub(super) fn timestamp(time: SystemTime) -> String {
    let passed = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (passed.as_secs() / 86_400, passed.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let ms = passed.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The year, month and day that is so many days after the Unix epoch. Years are counted from March, so that a
/// leap day is the last of its year, in eras of 400 years, which are all of one length.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_TO_EPOCH: u64 = 719_468; // from the 1st of March of the year 0
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + DAYS_TO_EPOCH;
    let (era, day) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let leap_days = day / 1_460 - day / 36_524 + day / (DAYS_PER_ERA - 1);
    let year = (day - leap_days) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    // Five months from March have 153 days, over and over.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + later, month, day)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::access::Note;

    #[test]
    fn a_line_is_one_line_whatever_is_in_it() {
        let id = HeaderValue::from_static("id");
        let entry = Entry::refused(IpAddr::from([192, 0, 2, 1]), id);
        let line = |path| Line {
            path: Some(path),
            ..Line::of(&entry, SystemTime::UNIX_EPOCH, StatusCode::OK, 7, Duration::from_micros(1_500))
        };
        let mut text = Vec::new();
        line("/a b\n\"é").text(&mut text);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "1970-01-01T00:00:00.000Z 192.0.2.1 - - /a%20b%0A\"%C3%A9 200 in=0 out=7 ms=1.5 retries=0 id=id\n"
        );
        let mut json = Vec::new();
        line("/a b\n\"é").json(&mut json);
        let json = String::from_utf8(json).unwrap();
        assert!(json.ends_with("}\n") && json.lines().count() == 1, "{json}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&read["path"], &read["duration_ms"]), (&"/a b\n\"é".into(), &1.5.into()));
    }

    #[test]
    fn what_was_hedged_is_told_and_is_no_retry() {
        let mut entry = Entry::refused(IpAddr::from([192, 0, 2, 1]), HeaderValue::from_static("id"));
        (entry.attempts, entry.hedges, entry.hedge_won) = (3, 1, true);
        let line = Line::of(&entry, SystemTime::UNIX_EPOCH, StatusCode::OK, 7, Duration::ZERO);
        let (mut text, mut json) = (Vec::new(), Vec::new());
        line.text(&mut text);
        assert!(String::from_utf8(text).unwrap().ends_with(" retries=1 hedges=1 hedge_won=true id=id\n"));
        line.json(&mut json);
        let read: serde_json::Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            (&read["retries"], &read["hedges"], &read["hedge_won"]),
            (&1.into(), &1.into(), &true.into())
        );
    }

    #[test]
    fn an_attempt_that_has_not_ended_has_its_time_too() {
        let mut note = Note(Some(Box::new(Entry::refused(
            IpAddr::from([192, 0, 2, 1]),
            HeaderValue::from_static("id"),
        ))));
        let upstream = model::Name::new("u").unwrap();
        note.attempt(&upstream, "first");
        note.attempted();
        let told = |entry: &Entry| {
            Line::of(entry, SystemTime::UNIX_EPOCH, StatusCode::OK, 7, Duration::ZERO).target_ms
        };
        note.0.as_mut().unwrap().target_time = Some(Duration::from_secs(3_600));
        assert_eq!(told(note.0.as_deref().unwrap()), Some(3_600_000.0));
        // The time is that of the attempt that the line names.
        note.attempt(&upstream, "second");
        assert!(told(&note.take().unwrap()).is_some_and(|ms| ms < 3_600_000.0));
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
    }

    proptest! {
        #[test]
        fn dates_are_those_of_the_calendar(seconds in 0..253_402_300_800_u64) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            // "Sun, 06 Nov 1994 08:49:37 GMT"
            let want = httpdate::fmt_http_date(time);
            let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
            let month = months.iter().position(|month| *month == &want[8..11]).unwrap() + 1;
            let want = format!("{}-{month:02}-{}T{}.000Z", &want[12..16], &want[5..7], &want[17..25]);
            prop_assert_eq!(timestamp(time), want);
        }
    }
}
