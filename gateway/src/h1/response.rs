//! A response's head as a target sends it (RFC 9112, section 4).

use bytes::{Bytes, BytesMut};
use http::{Method, Response, StatusCode, Version, response::Parts};

use super::{Fault, decoder::Decoder, fields, lines::Lines};

/// The most header lines of a response.
const HEADERS_MAX: usize = 200;
/// Header lines that the gateway may add before it answers the client.
const OWN_LINES: usize = 4;

/// A response's head, and what it says of the response's body and its connection.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: Parts,
    pub(crate) decoder: Decoder,
    /// Whether another request may follow on the connection once the body has come.
    pub(crate) keep_alive: bool,
}

impl Head {
    /// Whether another head follows it (RFC 9110, section 15.2); a 101 is the last of its connection.
    pub(crate) fn is_interim(&self) -> bool {
        self.parts.status.is_informational() && self.parts.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Takes a head out of what has come, if it is there whole; `method` is the request's.
pub(crate) fn read(
    lines: &mut Lines,
    buf: &mut BytesMut,
    method: &Method,
    bytes_max: usize,
) -> Result<Option<Head>, Fault> {
    let end = lines.scan(buf)?;
    if end.unwrap_or(buf.len()) > bytes_max {
        return Err(Fault::HeadTooLarge);
    }
    if lines.count() > HEADERS_MAX + 1 {
        return Err(Fault::HeadersTooMany);
    }
    let Some(end) = end else { return Ok(None) };
    let head = parse(&buf.split_to(end).freeze(), lines, method, bytes_max);
    lines.clear();
    head.map(Some)
}

fn parse(head: &Bytes, lines: &Lines, method: &Method, bytes_max: usize) -> Result<Head, Fault> {
    let (_, end) = lines.bounds().next().ok_or(Fault::Syntax)?;
    let (version, status) = status_line(&head[..end])?;
    let (headers, framing) = fields::read(head, lines, 1, OWN_LINES)?;
    // RFC 9112, section 6.3.
    let bare = *method == Method::HEAD
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let decoder = match (framing.chunked, framing.length) {
        (true, _) if version == Version::HTTP_10 => return Err(Fault::TransferEncoding),
        // What follows is the other protocol's.
        _ if status == StatusCode::SWITCHING_PROTOCOLS => Decoder::Close,
        _ if bare => Decoder::length(0),
        (true, _) => Decoder::chunked(bytes_max),
        (false, Some(length)) => Decoder::length(length),
        (false, None) => Decoder::Close,
    };
    // If such a body does come, it would pass for the answer to the next request (RFC 9110, section 8.6; RFC 9112, section 6.1).
    let says_more = status == StatusCode::NO_CONTENT && (framing.chunked || framing.length.unwrap_or(0) > 0);
    let keep_alive = !framing.close
        && !says_more
        && !matches!(decoder, Decoder::Close)
        && (version == Version::HTTP_11 || framing.keep_alive);
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.headers) = (status, headers);
    Ok(Head { parts, decoder, keep_alive })
}

/// Version and status; what the reason says is nobody's (RFC 9112, section 4), and it may be left out with its space.
fn status_line(line: &[u8]) -> Result<(Version, StatusCode), Fault> {
    let (version, rest) = line.split_at_checked(9).ok_or(Fault::Syntax)?;
    let version = match version {
        b"HTTP/1.1 " => Version::HTTP_11,
        b"HTTP/1.0 " => Version::HTTP_10,
        _ => return Err(Fault::Version),
    };
    let (status, reason) = rest.split_at_checked(3).ok_or(Fault::Syntax)?;
    let good = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
    if !matches!(reason.first(), None | Some(b' ')) || !reason.iter().all(good) {
        return Err(Fault::Syntax);
    }
    let status = StatusCode::from_bytes(status).map_err(|_| Fault::Syntax)?;
    Ok((version, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_to(method: Method, text: &str) -> Result<Option<Head>, Fault> {
        read(&mut Lines::default(), &mut BytesMut::from(text), &method, 8192)
    }

    fn head(text: &str) -> Head {
        read_to(Method::GET, text).unwrap().unwrap()
    }

    #[test]
    fn where_a_body_ends_is_what_the_head_says() {
        let decoder = |text| head(text).decoder;
        assert!(matches!(decoder("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n"), Decoder::Length(5)));
        assert!(matches!(decoder("HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n"), Decoder::Chunked(_)));
        assert!(matches!(decoder("HTTP/1.1 200 OK\r\n\r\n"), Decoder::Close));
        for bare in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 \r\ncontent-length: 5\r\n\r\n"] {
            assert!(decoder(bare).is_done(), "{bare}");
        }
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert!(read_to(Method::HEAD, text).unwrap().unwrap().decoder.is_done());
    }

    #[test]
    fn a_connection_is_kept_unless_it_is_said_or_meant_to_end() {
        let keep = |text| head(text).keep_alive;
        assert!(keep("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(!keep("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"));
        assert!(!keep("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!keep("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"));
        assert!(keep("HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"));
        assert!(keep("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n"));
        assert!(!keep("HTTP/1.1 204 No Content\r\ncontent-length: 1\r\n\r\n"));
        assert!(!keep("HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n"));
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for bad in [
            "HTTP/2.0 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1  200 OK\r\n\r\n",
            "HTTP/1.1 099 OK\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
            "HTTP/1.1 200 OK\n\r\n",
            "ICY 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\r\n c\r\n\r\n",
        ] {
            assert!(read_to(Method::GET, bad).is_err(), "{bad:?}");
        }
        assert!(read_to(Method::GET, "HTTP/1.1 200 O").unwrap().is_none());
    }
}
