//! A request's head as a client sends it (RFC 9112, section 3).

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Uri, Version, request::Parts};
use memchr::{memchr, memrchr};

use super::{Fault, decoder::Decoder, fields, lines::Lines};
use crate::settings::Limits;

/// Empty lines before a request line that are taken for a mistake (RFC 9112, section 2.2).
const EMPTY_LINES_MAX: u8 = 4;
/// The longest method; those that are registered have up to 17 bytes.
const METHOD_BYTES_MAX: usize = 64;
/// Header lines that the gateway may add before it forwards a request.
const OWN_LINES: usize = 6;

/// A request's head, and what it says of the request's body and its connection.
#[derive(Debug)]
pub(crate) struct Head {
    /// In a place of its own: it is handed on often.
    pub(crate) parts: Box<Parts>,
    pub(crate) decoder: Decoder,
    /// Whether another request may follow on the connection.
    pub(crate) keep_alive: bool,
    /// Whether the client waits for a 100 before it sends the body.
    pub(crate) expects: bool,
    /// Whether the client takes trailers.
    pub(crate) trailers: bool,
}

/// Reads heads from a connection.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    lines: Lines,
    empty_lines: u8,
}

impl Reader {
    /// Takes a head out of what has come, if it is there whole.
    pub(crate) fn read(&mut self, buf: &mut BytesMut, limits: &Limits) -> Result<Option<Head>, Fault> {
        while self.lines.count() == 0 && buf.starts_with(b"\r\n") {
            self.empty_lines += 1;
            if self.empty_lines > EMPTY_LINES_MAX {
                return Err(Fault::HeadTooLarge);
            }
            buf.advance(2);
            self.lines.clear();
        }
        if buf.is_empty() {
            return Ok(None);
        }
        let end = self.lines.scan(buf)?;
        if end.unwrap_or(buf.len()) > limits.head_bytes_max {
            return Err(self.too_large(buf, limits));
        }
        if self.lines.count() > limits.headers_max + 1 {
            return Err(Fault::HeadersTooMany);
        }
        let Some(end) = end else { return Ok(None) };
        let head = parse(&buf.split_to(end).freeze(), &self.lines, limits);
        self.lines.clear();
        self.empty_lines = 0;
        head.map(Some)
    }

    /// What is too large about a head.
    fn too_large(&self, head: &[u8], limits: &Limits) -> Fault {
        let first = self.lines.bounds().next().map_or(head.len(), |(_, end)| end);
        if first > METHOD_BYTES_MAX && memchr(b' ', &head[..=METHOD_BYTES_MAX]).is_none() {
            Fault::MethodTooLong
        } else if first > limits.head_bytes_max {
            Fault::TargetTooLong
        } else {
            Fault::HeadTooLarge
        }
    }
}

fn parse(head: &Bytes, lines: &Lines, limits: &Limits) -> Result<Head, Fault> {
    let (_, end) = lines.bounds().next().ok_or(Fault::Syntax)?;
    let line = &head[..end];
    if !line.is_ascii() {
        return Err(Fault::NotAscii);
    }
    // Exactly one space on each side of the target, and so none in it.
    let (method_end, target_end) = memchr(b' ', line).zip(memrchr(b' ', line)).ok_or(Fault::Syntax)?;
    if target_end <= method_end + 1 {
        return Err(Fault::Syntax);
    }
    if method_end > METHOD_BYTES_MAX {
        return Err(Fault::MethodTooLong);
    }
    let target = method_end + 1..target_end;
    if target.len() > limits.target_bytes_max {
        return Err(Fault::TargetTooLong);
    }
    if memchr(b'#', &line[target.clone()]).is_some() {
        return Err(Fault::Fragment);
    }
    let version = version(&line[target_end + 1..])?;
    let method = Method::from_bytes(&line[..method_end]).map_err(|_| Fault::Syntax)?;
    let uri = Uri::from_maybe_shared(head.slice(target)).map_err(|_| Fault::Syntax)?;
    let (headers, framing) = fields::read(head, lines, 1, OWN_LINES)?;
    let decoder = match (framing.chunked, framing.length) {
        (true, _) if version == Version::HTTP_10 => return Err(Fault::TransferEncoding),
        (true, _) => Decoder::chunked(limits.head_bytes_max),
        (false, length) => Decoder::length(length.unwrap_or(0)),
    };
    let keep_alive = !framing.close && (version == Version::HTTP_11 || framing.keep_alive);
    let expects = framing.expects && version == Version::HTTP_11 && !decoder.is_done();
    let mut parts = Box::new(Request::new(()).into_parts().0);
    (parts.method, parts.uri, parts.version, parts.headers) = (method, uri, version, headers);
    Ok(Head { parts, decoder, keep_alive, expects, trailers: framing.trailers })
}

fn version(text: &[u8]) -> Result<Version, Fault> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Fault::Version)
        }
        _ => Err(Fault::Syntax),
    }
}

#[cfg(test)]
mod tests {
    use http::header;
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Option<Head>, Fault> {
        let limits =
            Limits { head_bytes_max: 8192, target_bytes_max: 64, headers_max: 4, ..Limits::default() };
        Reader::default().read(&mut BytesMut::from(text), &limits)
    }

    fn head(text: &str) -> Head {
        read(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_read_with_what_it_says_of_the_connection() {
        let got =
            head("POST /a?b=c HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
        assert_eq!((got.parts.method.as_str(), got.parts.uri.to_string().as_str()), ("POST", "/a?b=c"));
        assert_eq!(got.parts.headers[header::HOST], "a");
        assert!(got.keep_alive && got.expects && !got.decoder.is_done());
        assert!(!head("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(head("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(
            !head("GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n").expects,
            "there is no body to wait with"
        );
    }

    #[test]
    fn what_is_no_request_line_is_refused() {
        for (bad, fault) in [
            ("GET /\r\n\r\n", Fault::Syntax),
            ("GET  / HTTP/1.1\r\n\r\n", Fault::Syntax),
            ("GET / /b HTTP/1.1\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.1 \r\n\r\n", Fault::Syntax),
            (" GET / HTTP/1.1\r\n\r\n", Fault::Syntax),
            ("GET\t/ HTTP/1.1\r\n\r\n", Fault::Syntax),
            ("GET / http/1.1\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/1.10\r\n\r\n", Fault::Syntax),
            ("G(T / HTTP/1.1\r\n\r\n", Fault::Syntax),
            ("GET / HTTP/2.0\r\n\r\n", Fault::Version),
            ("GET / HTTP/1.2\r\n\r\n", Fault::Version),
            ("GET /\u{e9} HTTP/1.1\r\n\r\n", Fault::NotAscii),
            ("PRI * HTTP/2.0\r\n\r\n", Fault::Version),
            ("GET /a#b HTTP/1.1\r\n\r\n", Fault::Fragment),
            ("GET / HTTP/1.1\n\r\n", Fault::LineEnd),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TransferEncoding),
        ] {
            assert_eq!(read(bad.as_bytes()).map(drop), Err(fault), "{bad:?}");
        }
    }

    #[test]
    fn what_is_too_long_is_told_apart() {
        let long = |target: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(target));
        assert!(read(long(63).as_bytes()).is_ok());
        assert_eq!(read(long(64).as_bytes()).map(drop), Err(Fault::TargetTooLong));
        assert_eq!(read(&[b'a'; 8193]).map(drop), Err(Fault::MethodTooLong));
        assert_eq!(
            read(format!("GET /{}", "a".repeat(8192)).as_bytes()).map(drop),
            Err(Fault::TargetTooLong)
        );
        // However much of the head has come by then.
        assert_eq!(read(long(8192).as_bytes()).map(drop), Err(Fault::TargetTooLong));
        let method = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(8192));
        assert_eq!(read(method.as_bytes()).map(drop), Err(Fault::MethodTooLong));
        let lines = |count| format!("GET / HTTP/1.1\r\n{}\r\n", "a: 1\r\n".repeat(count));
        assert!(read(lines(4).as_bytes()).is_ok());
        assert_eq!(read(lines(5).as_bytes()).map(drop), Err(Fault::HeadersTooMany));
        let large = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(8192));
        assert_eq!(read(large.as_bytes()).map(drop), Err(Fault::HeadTooLarge));
    }

    #[test]
    fn a_few_empty_lines_come_before_a_request() {
        assert!(read(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n").unwrap().is_some());
        assert_eq!(read(&b"\r\n".repeat(5)).map(drop), Err(Fault::HeadTooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_pieces_make_no_difference(
            text in "(GET|POST|\\PC{0,4}) (/[a-z%#]{0,4}|\\*) HTTP/1.[01]\r\n([a-zA-Z-]{0,8}:? ?[a-z0-9]{0,4}\r?\n){0,3}\r\n",
            cut in 0_usize..60,
        ) {
            let text = text.as_bytes();
            let whole = read(text);
            let limits = Limits { head_bytes_max: 8192, target_bytes_max: 64, headers_max: 4, ..Limits::default() };
            let (mut reader, mut buf) = (Reader::default(), BytesMut::from(&text[..cut.min(text.len())]));
            let mut pieces = reader.read(&mut buf, &limits);
            if matches!(pieces, Ok(None)) {
                buf.extend_from_slice(&text[cut.min(text.len())..]);
                pieces = reader.read(&mut buf, &limits);
            }
            match (whole, pieces) {
                (Ok(Some(whole)), Ok(Some(pieces))) => prop_assert_eq!(whole.parts.headers, pieces.parts.headers),
                (whole, pieces) => prop_assert_eq!(whole.map(|head| head.is_some()), pieces.map(|head| head.is_some())),
            }
        }
    }
}
