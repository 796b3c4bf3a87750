//! Follows a client's byte stream from message to message and stops at the first byte that is framed badly.
//!
//! hyper is lenient where two parsers may come to differ, and a difference is how requests are smuggled. This
//! follower is strict in the few things that decide where a message ends (RFC 9112, sections 2.2, 5, 6 and 7); all
//! else, control bytes and white space before a colon among it, is refused by hyper's own parser.

pub(crate) mod guard;

use memchr::{memchr, memchr2};

/// The longest line that is kept while its end has not come.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of chunk extensions in one message.
const EXTENSION_BYTES_MAX: usize = 1024;
/// The largest chunk and the largest Content-Length: far above anything real, far below overflow.
const LENGTH_DIGITS_MAX: usize = 18;
const CHUNK_DIGITS_MAX: u8 = 15;

/// What is wrong with the framing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A line that ends in LF alone, or in the middle of which there is a CR.
    LineEnd,
    /// A line longer than [`LINE_BYTES_MAX`].
    LineTooLong,
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
}

impl Fault {
    /// What the client is told.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::LineEnd => "A line of the head does not end in CR LF, or has a CR in it",
            Self::LineTooLong => "A line of the head is too long",
            Self::WhiteSpace => "A header line begins with white space, or has some before its colon",
            Self::ContentLength => "Content-Length is no plain number, or is there more than once",
            Self::TransferEncoding => "Transfer-Encoding is not exactly chunked, or is in HTTP/1.0",
            Self::Both => "There are both Content-Length and Transfer-Encoding",
            Self::Chunk => "The body is framed badly",
            Self::Fragment => "The request target has a #",
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
    /// In a chunk's size.
    Size { value: u64, digits: u8 },
    /// In a chunk's extensions.
    Extension { zero: bool },
    /// At the LF that ends a chunk's size line.
    SizeEnd { zero: bool },
    /// In a chunk's data, with this many bytes to come.
    Data(u64),
    /// At the CR that ends a chunk's data.
    DataCr,
    /// At the LF that ends a chunk's data.
    DataLf,
    /// In the trailers.
    Trailers,
}

/// The framing of one connection's requests, as far as it has come.
#[derive(Debug)]
pub(crate) struct Follower {
    state: State,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    http_10: bool,
    length: Option<u64>,
    chunked: bool,
    extension_bytes: usize,
    size: u64,
}

impl Follower {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Start,
            line: Vec::new(),
            http_10: false,
            length: None,
            chunked: false,
            extension_bytes: 0,
            size: 0,
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
                    self.state = if left == 0 { State::Start } else { State::Length(left) };
                    taken
                }
                State::Data(left) => {
                    let (taken, left) = skip(left, rest);
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    taken
                }
                _ => {
                    self.chunk_byte(rest[0]).map_err(|fault| Violation {
                        good: at,
                        in_head: false,
                        fault,
                    })?;
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
            // A CR that was the last byte seen must go on with LF.
            let (end, complete) = if self.line.last() == Some(&b'\r') {
                (at, rest[at] == b'\n')
            } else {
                match memchr2(b'\r', b'\n', &rest[at..]).map(|length| at + length) {
                    Some(cr) if rest[cr] == b'\r' && cr + 1 < rest.len() => (cr + 1, rest[cr + 1] == b'\n'),
                    Some(lf) if rest[lf] == b'\n' => (lf, false),
                    _ if self.line.len() + rest.len() - at > LINE_BYTES_MAX => {
                        return Err(refuse(at, Fault::LineTooLong));
                    }
                    _ => {
                        self.line.extend_from_slice(&rest[at..]);
                        return Ok(rest.len());
                    }
                }
            };
            if !complete {
                return Err(refuse(end, Fault::LineEnd));
            }
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

    /// Takes one line, with its CR, the only one in it, and without its LF.
    fn line_ended(&mut self, line: &[u8]) -> Result<(), Fault> {
        let Some((b'\r', line)) = line.split_last() else { return Err(Fault::LineEnd) };
        match self.state {
            State::Start if line.is_empty() => {}
            State::Start => {
                if memchr(b'#', line).is_some() {
                    return Err(Fault::Fragment);
                }
                self.http_10 = line.ends_with(b"HTTP/1.0");
                self.length = None;
                self.chunked = false;
                self.extension_bytes = 0;
                self.state = State::Head;
            }
            State::Trailers if line.is_empty() => self.state = State::Start,
            State::Trailers => no_fold(line)?,
            _ => return self.header(line),
        }
        Ok(())
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Fault> {
        match line.first() {
            None => return self.head_ended(),
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
            Some(_) => no_fold(line)?,
        }
        if self.chunked && self.length.is_some() { Err(Fault::Both) } else { Ok(()) }
    }

    fn head_ended(&mut self) -> Result<(), Fault> {
        self.state = match (self.chunked, self.length) {
            (true, _) => State::Size { value: 0, digits: 0 },
            (false, None | Some(0)) => State::Start,
            (false, Some(length)) => State::Length(length),
        };
        Ok(())
    }

    fn chunk_byte(&mut self, byte: u8) -> Result<(), Fault> {
        self.state = match (self.state, byte) {
            (State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F')
                if digits < CHUNK_DIGITS_MAX =>
            {
                let digit = (byte as char).to_digit(16).ok_or(Fault::Chunk)?;
                State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { value, digits: 1.. }, b'\r' | b';') => {
                self.size = value;
                let zero = value == 0;
                if byte == b';' { State::Extension { zero } } else { State::SizeEnd { zero } }
            }
            (State::Extension { zero }, b'\r') => State::SizeEnd { zero },
            (State::Extension { zero }, b'\t' | b' '..=b'~' | 0x80..) => {
                self.extension_bytes += 1;
                if self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err(Fault::Chunk);
                }
                State::Extension { zero }
            }
            (State::SizeEnd { zero: true }, b'\n') => State::Trailers,
            (State::SizeEnd { zero: false }, b'\n') => State::Data(self.size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            _ => return Err(Fault::Chunk),
        };
        Ok(())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What streams are made of.
    const PARTS: [&str; 22] = [
        "GET / HTTP/1.1",
        "POST / HTTP/1.0",
        "\r\n",
        "\r\n",
        "\r\n\r\n",
        "\r",
        "\n",
        "Host: a\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 0\r\n",
        "content-length",
        "Transfer-Encoding: chunked\r\n\r\n",
        "Transfer-Encoding: gzip\r\n",
        ": ",
        " ",
        "3",
        "0\r\n",
        "3\r\nabc\r\n",
        ";ext=1",
        "abc",
        "#",
        "GET /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n",
    ];

    /// What a stream comes to, whole and byte by byte.
    fn fault(stream: &str) -> Option<Fault> {
        let whole = Follower::new().feed(stream.as_bytes()).err();
        let mut follower = Follower::new();
        let single = (0..stream.len())
            .find_map(|at| follower.feed(&stream.as_bytes()[at..=at]).err().map(|found| (at, found)));
        assert_eq!(
            whole.map(|found| (found.good, found.in_head, found.fault)),
            single.map(|(at, found)| (at, found.in_head, found.fault)),
            "{stream:?}"
        );
        if whole.is_none() {
            assert!(follower.between_messages(), "{stream:?} ends in {:?}", follower.state);
        }
        whole.map(|found| found.fault)
    }

    #[test]
    fn good_streams_are_followed_to_their_ends() {
        for stream in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\ncontent-length: 5 \r\n\r\na\nb\ncGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\na\nb\nc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n000\r\nx: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Lengthy: x\r\nTransfer-Encodings: x\r\n\r\n",
        ] {
            assert_eq!(fault(stream), None, "{stream:?}");
        }
    }

    #[test]
    fn bad_heads_are_refused() {
        for (head, want) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Fault::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Fault::LineEnd),
            ("GET /a#b HTTP/1.1\r\n\r\n", Fault::Fragment),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::LineEnd),
            ("\nGET / HTTP/1.1\r\n\r\n", Fault::LineEnd),
            ("GET / HTTP/1.1\r\nX: a\rb\r\n\r\n", Fault::LineEnd),
            ("GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n", Fault::WhiteSpace),
            ("GET / HTTP/1.1\r\n X: a\r\n\r\n", Fault::WhiteSpace),
            ("GET / HTTP/1.1\r\nContent-Length : 1\r\n\r\n", Fault::WhiteSpace),
            ("GET / HTTP/1.1\r\nTransfer-Encoding\t: chunked\r\n\r\n", Fault::WhiteSpace),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Fault::ContentLength),
            ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Fault::ContentLength),
            ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Fault::ContentLength),
            ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Fault::ContentLength),
            ("GET / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", Fault::ContentLength),
            ("GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", Fault::ContentLength),
            ("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", Fault::ContentLength),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Fault::TransferEncoding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Fault::TransferEncoding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Fault::TransferEncoding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Fault::TransferEncoding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: \"chunked\"\r\n\r\n", Fault::TransferEncoding),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::TransferEncoding,
            ),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TransferEncoding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", Fault::Both),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::Both),
        ] {
            assert_eq!(fault(head), Some(want), "{head:?}");
        }
    }

    #[test]
    fn bad_chunks_are_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1 \r\n",
            " 1\r\n",
            "1\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "1\r\na\r\n\r\n",
            "1;a\n",
            "1;\0\r\n",
            "ffffffffffffffff\r\n",
            "0000000000000000\r\n",
            "1\r2",
        ] {
            let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert_eq!(fault(&stream), Some(Fault::Chunk), "{body:?}");
        }
        for body in ["0\r\n\n", "0\r\nx: y\n\r\n"] {
            let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            assert_eq!(fault(&stream), Some(Fault::LineEnd), "{body:?}");
        }
    }

    proptest! {
        /// However a stream is cut, it is judged alike: whole, byte by byte, and in two.
        #[test]
        fn cuts_change_nothing(
            parts in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..24),
            cut in any::<prop::sample::Index>(),
        ) {
            let stream = parts.concat();
            let feed = |cuts: &[usize]| {
                let mut follower = Follower::new();
                let mut begin = 0;
                for &end in cuts {
                    if let Err(found) = follower.feed(&stream.as_bytes()[begin..end]) {
                        return Err((begin + found.good, found.in_head, found.fault));
                    }
                    begin = end;
                }
                Ok(follower.between_messages())
            };
            let whole = feed(&[stream.len()]);
            prop_assert_eq!(feed(&(1..=stream.len()).collect::<Vec<_>>()), whole);
            prop_assert_eq!(feed(&[cut.index(stream.len() + 1), stream.len()]), whole);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = Follower::new().feed(&bytes);
        }
    }

    #[test]
    fn what_a_stranger_can_grow_is_bounded() {
        let long = format!("GET /{}", "a".repeat(LINE_BYTES_MAX));
        assert_eq!(
            Follower::new().feed(long.as_bytes()).map_err(|found| found.fault),
            Err(Fault::LineTooLong)
        );
        let extension = "x".repeat(EXTENSION_BYTES_MAX + 1);
        let stream = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;{extension}");
        assert_eq!(fault(&stream), Some(Fault::Chunk));
    }
}
