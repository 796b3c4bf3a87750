//! Follows a client's byte stream from message to message and stops at the first byte that is framed badly.
//!
//! hyper is lenient where two parsers may come to differ, and a difference is how requests are smuggled. This
//! follower is strict in the few things that decide where a message ends (RFC 9112, sections 2.2, 5, 6 and 7); all
//! else, control bytes and white space before a colon among it, is refused by hyper's own parser.

mod chunk;
pub(crate) mod guard;
#[cfg(test)]
mod tests;

use chunk::{Chunks, Step};
use memchr::{memchr, memchr2};

use crate::settings::Limit;

/// The largest Content-Length: far above anything real, far below overflow.
const LENGTH_DIGITS_MAX: usize = 18;
/// The longest method; those that are registered have up to 17 bytes.
const METHOD_BYTES_MAX: usize = 64;

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadLimits {
    /// Bytes, and those of a message's trailers.
    pub(crate) bytes_max: usize,
    /// Bytes of the request target.
    pub(crate) target_bytes_max: usize,
    /// Header lines.
    pub(crate) headers_max: usize,
}

/// What is wrong with the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A line that ends in LF alone, or in the middle of which there is a CR.
    LineEnd,
    /// A head, or trailers, larger than [`HeadLimits::bytes_max`].
    HeadTooLarge,
    /// More header lines than [`HeadLimits::headers_max`].
    HeadersTooMany,
    /// A request target longer than [`HeadLimits::target_bytes_max`].
    TargetTooLong,
    /// A method longer than [`METHOD_BYTES_MAX`].
    MethodTooLong,
    /// A version of HTTP that is neither 1.0 nor 1.1.
    Version,
    /// A header line that begins with white space, or has some before its colon.
    WhiteSpace,
    /// Content-Length that is no plain number, or more than one.
    ContentLength,
    /// Transfer-Encoding that is not exactly `chunked`, more than one, or in HTTP/1.0.
    TransferEncoding,
    /// Content-Length and Transfer-Encoding.
    Both,
    /// A chunk's size, extension or end.
    Chunk,
    /// A `#` in a request line: no part of a request target (RFC 9112, section 3.2), and cut off by some parsers.
    Fragment,
    /// A byte above 127 in a request line, where a URI has none (RFC 3986, section 2).
    NotAscii,
}

impl Fault {
    /// What the client is told.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::LineEnd => "A line of the head does not end in CR LF, or has a CR in it",
            Self::HeadTooLarge => "The head is too large",
            Self::HeadersTooMany => "There are too many header lines",
            Self::TargetTooLong => "The request target is too long",
            Self::MethodTooLong => "The method is too long",
            Self::Version => "This version of HTTP is not served here",
            Self::WhiteSpace => "A header line begins with white space, or has some before its colon",
            Self::ContentLength => "Content-Length is no plain number, or is there more than once",
            Self::TransferEncoding => "Transfer-Encoding is not exactly chunked, or is in HTTP/1.0",
            Self::Both => "There are both Content-Length and Transfer-Encoding",
            Self::Chunk => "The body is framed badly",
            Self::Fragment => "The request target has a #",
            Self::NotAscii => "The request line has a byte that is not ASCII",
        }
    }

    /// The limit of the settings that it is about; none if it is one of the rules.
    pub(crate) fn limit(self) -> Option<Limit> {
        match self {
            Self::HeadTooLarge => Some(Limit::HeadBytes),
            Self::HeadersTooMany => Some(Limit::Headers),
            Self::TargetTooLong => Some(Limit::TargetBytes),
            _ => None,
        }
    }
}

/// Where the stream goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Violation {
    /// How many bytes of the slice that was fed are good.
    pub(crate) good: usize,
    /// Whether that is in a head; if not, in a body.
    pub(crate) in_head: bool,
    /// What is wrong.
    pub(crate) fault: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a request line; empty lines are skipped (RFC 9112, section 2.2).
    Start,
    /// In a head, after its request line.
    Head,
    /// In a body, with this many bytes to come.
    Length(u64),
    /// In a chunk's line, or at the end of its data.
    Chunk,
    /// In a chunk's data, with this many bytes to come.
    Data(u64),
    /// In the trailers.
    Trailers,
}

/// The framing of one connection's requests, as far as it has come.
#[derive(Debug)]
pub(crate) struct Follower {
    limits: HeadLimits,
    state: State,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    /// Of this head, or of these trailers, in whole lines.
    head_bytes: usize,
    headers: usize,
    http_10: bool,
    length: Option<u64>,
    chunked: bool,
    chunks: Chunks,
}

impl Follower {
    pub(crate) fn new(limits: HeadLimits) -> Self {
        Self {
            limits,
            state: State::Start,
            line: Vec::new(),
            head_bytes: 0,
            headers: 0,
            http_10: false,
            length: None,
            chunked: false,
            chunks: Chunks::new(),
        }
    }

    /// Whether the stream stands between two messages.
    pub(crate) fn between_messages(&self) -> bool {
        self.state == State::Start && self.line.is_empty()
    }

    /// Whether the stream stands within a head.
    pub(crate) fn in_head(&self) -> bool {
        match self.state {
            State::Start => !self.line.is_empty(),
            State::Head => true,
            _ => false,
        }
    }

    /// Goes on over `bytes`.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            at += match self.state {
                State::Start | State::Head | State::Trailers => self.lines(rest, at)?,
                State::Length(left) => {
                    let (taken, left) = skip(left, rest);
                    self.state = State::Length(left);
                    if left == 0 {
                        self.message_ended();
                    }
                    taken
                }
                State::Data(left) => {
                    let (taken, left) = skip(left, rest);
                    self.state = if left == 0 { State::Chunk } else { State::Data(left) };
                    if left == 0 {
                        self.chunks.data_ended();
                    }
                    taken
                }
                State::Chunk => {
                    self.state = match self.chunks.byte(rest[0]) {
                        Some(Step::Line) => State::Chunk,
                        Some(Step::Data(size)) => State::Data(size),
                        Some(Step::Last) => State::Trailers,
                        None => return Err(Violation { good: at, in_head: false, fault: Fault::Chunk }),
                    };
                    1
                }
            };
        }
        Ok(())
    }

    /// Takes the lines that `rest` holds while they are lines of a head or of trailers, and says how many bytes.
    fn lines(&mut self, rest: &[u8], base: usize) -> Result<usize, Violation> {
        let mut at = 0;
        while at < rest.len() && matches!(self.state, State::Start | State::Head | State::Trailers) {
            let in_head = self.state != State::Trailers;
            let refuse = |good: usize, fault| Violation { good: base + good, in_head, fault };
            let room = self.limits.bytes_max.saturating_sub(self.head_bytes + self.line.len());
            // A CR that was the last byte seen must go on with LF.
            let (end, complete) = if self.line.last() == Some(&b'\r') {
                (at, rest[at] == b'\n')
            } else {
                match memchr2(b'\r', b'\n', &rest[at..]).map(|length| at + length) {
                    Some(cr) if rest[cr] == b'\r' && cr + 1 < rest.len() => (cr + 1, rest[cr + 1] == b'\n'),
                    Some(lf) if rest[lf] == b'\n' => (lf, false),
                    _ if rest.len() - at > room => {
                        let fault = self.too_large(&rest[at..at + room]);
                        return Err(refuse(at + room, fault));
                    }
                    _ => {
                        self.line.extend_from_slice(&rest[at..]);
                        return Ok(rest.len());
                    }
                }
            };
            if end + 1 - at > room {
                let fault = self.too_large(&rest[at..at + room]);
                return Err(refuse(at + room, fault));
            }
            if !complete {
                return Err(refuse(end, Fault::LineEnd));
            }
            self.head_bytes += self.line.len() + end + 1 - at;
            let outcome = if self.line.is_empty() {
                self.line_ended(&rest[at..end])
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&rest[at..end]);
                let outcome = self.line_ended(&line);
                line.clear();
                self.line = line;
                outcome
            };
            // The LF itself is not good: without it hyper can't take the head for complete.
            outcome.map_err(|fault| refuse(end, fault))?;
            at = end + 1;
        }
        Ok(at)
    }

    /// What is too large about a head that has no more room once `more` has come of a line.
    fn too_large(&self, more: &[u8]) -> Fault {
        if self.state != State::Start {
            return Fault::HeadTooLarge;
        }
        let mut beginning = self.line.iter().chain(more).take(METHOD_BYTES_MAX + 1);
        if beginning.any(|byte| *byte == b' ') {
            Fault::TargetTooLong
        } else if self.line.len() + more.len() > METHOD_BYTES_MAX {
            Fault::MethodTooLong
        } else {
            Fault::HeadTooLarge
        }
    }

    /// Takes one line, with its CR, the only one in it, and without its LF.
    fn line_ended(&mut self, line: &[u8]) -> Result<(), Fault> {
        let Some((b'\r', line)) = line.split_last() else { return Err(Fault::LineEnd) };
        match self.state {
            State::Start if line.is_empty() => {}
            State::Start => {
                self.request_line(line)?;
                self.headers = 0;
                self.length = None;
                self.chunked = false;
                self.state = State::Head;
            }
            State::Trailers if line.is_empty() => self.message_ended(),
            State::Trailers => no_fold(line)?,
            _ => return self.header(line),
        }
        Ok(())
    }

    /// Takes a request line. What is no request line at all is left to hyper, which refuses it.
    fn request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        self.http_10 = line.ends_with(b"HTTP/1.0");
        if !line.is_ascii() {
            return Err(Fault::NotAscii);
        }
        let Some(method_end) = memchr(b' ', &line[..line.len().min(METHOD_BYTES_MAX + 1)]) else {
            return if line.len() > METHOD_BYTES_MAX { Err(Fault::MethodTooLong) } else { Ok(()) };
        };
        let (target, version) = match line.split_last_chunk::<9>() {
            Some((target, version)) if version.starts_with(b" HTTP/") => (target, &version[..]),
            _ => (line, &b""[..]),
        };
        if target.len().saturating_sub(method_end + 1) > self.limits.target_bytes_max {
            return Err(Fault::TargetTooLong);
        }
        if memchr(b'#', line).is_some() {
            return Err(Fault::Fragment);
        }
        match version {
            [.., b'1', b'.', b'0' | b'1'] => Ok(()),
            [.., b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Fault::Version),
            _ => Ok(()),
        }
    }

    fn message_ended(&mut self) {
        self.head_bytes = 0;
        self.state = State::Start;
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Fault> {
        if line.is_empty() {
            self.head_ended();
            return Ok(());
        }
        self.headers += 1;
        if self.headers > self.limits.headers_max {
            return Err(Fault::HeadersTooMany);
        }
        match line.first() {
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(line, b"content-length")? {
                    let length = content_length(value).ok_or(Fault::ContentLength)?;
                    if self.length.replace(length).is_some() {
                        return Err(Fault::ContentLength);
                    }
                }
            }
            Some(b't' | b'T') => {
                if let Some(value) = value_of(line, b"transfer-encoding")? {
                    if self.chunked || self.http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Fault::TransferEncoding);
                    }
                    self.chunked = true;
                }
            }
            _ => no_fold(line)?,
        }
        if self.chunked && self.length.is_some() { Err(Fault::Both) } else { Ok(()) }
    }

    fn head_ended(&mut self) {
        self.head_bytes = 0;
        match (self.chunked, self.length) {
            (true, _) => {
                self.chunks = Chunks::new();
                self.state = State::Chunk;
            }
            (false, None | Some(0)) => self.message_ended(),
            (false, Some(length)) => self.state = State::Length(length),
        }
    }
}

/// How many of the `left` bytes are in `rest`, and how many are left then.
fn skip(left: u64, rest: &[u8]) -> (usize, u64) {
    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    (taken, left - taken as u64)
}

fn no_fold(line: &[u8]) -> Result<(), Fault> {
    if matches!(line.first(), Some(b' ' | b'\t')) { Err(Fault::WhiteSpace) } else { Ok(()) }
}

/// The value of the header line if its name is this one.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, Fault> {
    let Some((found, rest)) = line.split_at_checked(name.len()) else { return Ok(None) };
    if !found.eq_ignore_ascii_case(name) {
        return Ok(None);
    }
    match rest.split_first() {
        Some((b':', value)) => Ok(Some(trim(value))),
        Some((b' ' | b'\t', _)) => Err(Fault::WhiteSpace),
        _ => Ok(None),
    }
}

/// Without the optional white space at both ends (RFC 9110, section 5.6.3), which is space and tab alone.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Digits alone, and not so many that anything could overflow.
fn content_length(value: &[u8]) -> Option<u64> {
    let plain = (1..=LENGTH_DIGITS_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    plain.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}
