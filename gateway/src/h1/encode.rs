//! Heads and chunks as they are written.

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};

use super::date;

/// How a message's body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none, whatever the head says of one (RFC 9110, section 6.4.1).
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// It ends with the connection.
    Close,
}

/// What ends a body in chunks that has no trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What a response says of its connection, beside what its headers say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Nothing: that it stays is understood.
    Implied,
    /// That it stays, to a client of HTTP/1.0.
    KeepAlive,
    /// That it ends.
    Close,
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a response's head; `length` is that of a body that is not sent, where the headers do not tell it.
pub(crate) fn response(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    framing: Framing,
    persistence: Persistence,
    length: Option<u64>,
) {
    if status == StatusCode::OK {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        status_line(out, status);
    }
    let (mut dated, mut upgrades) = (false, false);
    let mut length = length;
    for (name, value) in headers {
        match *name {
            // Said below, by what is so.
            header::CONTENT_LENGTH
                if framing != Framing::None
                    || status == StatusCode::NO_CONTENT
                    || status.is_informational() =>
            {
                continue;
            }
            header::CONTENT_LENGTH => length = None,
            header::TRANSFER_ENCODING => continue,
            header::CONNECTION if persistence == Persistence::Close => {
                upgrades |= value == "upgrade";
                continue;
            }
            header::DATE => dated = true,
            _ => {}
        }
        field(out, name, value.as_bytes());
    }
    if !dated {
        date::write(out);
    }
    body(out, length.map_or(framing, Framing::Length));
    match persistence {
        Persistence::Implied => {}
        Persistence::KeepAlive => out.extend_from_slice(b"connection: keep-alive\r\n"),
        // In one line: some look at the first alone.
        Persistence::Close if upgrades => out.extend_from_slice(b"connection: close, upgrade\r\n"),
        Persistence::Close => out.extend_from_slice(b"connection: close\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of an interim response, which frames nothing (RFC 9110, section 8.6; RFC 9112, section 6.1).
pub(crate) fn interim(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    status_line(out, status);
    for (name, value) in headers {
        if !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING) {
            field(out, name, value.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a request's head, its target in origin form.
pub(crate) fn request(out: &mut Vec<u8>, method: &Method, uri: &Uri, headers: &HeaderMap, framing: Framing) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        match *name {
            // Said below, by what is so.
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING => continue,
            _ => field(out, name, value.as_bytes()),
        }
    }
    body(out, framing);
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    let name = name.as_str().as_bytes();
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn body(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::None | Framing::Close => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

/// Writes what comes before a chunk's data.
pub(crate) fn chunk(out: &mut Vec<u8>, length: usize) {
    let mut digits = [0; 16];
    let (mut at, mut left) = (digits.len(), length);
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[left & 15];
        left >>= 4;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Writes what ends a body in chunks.
pub(crate) fn trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    trailers.iter().for_each(|(name, value)| field(out, name, value.as_bytes()));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn a_response_says_how_its_body_is_framed_and_nothing_else() {
        let say = |status, framing, persistence| {
            let lines =
                headers(&[("content-length", "9"), ("transfer-encoding", "x"), ("date", "d"), ("a", "b")]);
            let mut out = Vec::new();
            response(&mut out, status, &lines, framing, persistence, None);
            String::from_utf8(out).unwrap()
        };
        let ok = StatusCode::OK;
        assert_eq!(
            say(ok, Framing::Length(3), Persistence::Implied),
            "HTTP/1.1 200 OK\r\ndate: d\r\na: b\r\ncontent-length: 3\r\n\r\n"
        );
        assert_eq!(
            say(ok, Framing::Chunked, Persistence::Close),
            "HTTP/1.1 200 OK\r\ndate: d\r\na: b\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        assert_eq!(
            say(StatusCode::NOT_MODIFIED, Framing::None, Persistence::KeepAlive),
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\ndate: d\r\na: b\r\nconnection: keep-alive\r\n\r\n"
        );
        for bare in [StatusCode::NO_CONTENT, StatusCode::SWITCHING_PROTOCOLS] {
            assert!(!say(bare, Framing::None, Persistence::Implied).contains("content-length"), "{bare}");
        }
        assert!(
            say(StatusCode::from_u16(299).unwrap(), Framing::None, Persistence::Implied)
                .starts_with("HTTP/1.1 299 \r\n")
        );
    }

    #[test]
    fn an_interim_response_frames_nothing() {
        let lines = headers(&[("link", "</a>"), ("content-length", "9"), ("transfer-encoding", "x")]);
        let mut out = Vec::new();
        interim(&mut out, StatusCode::from_u16(103).unwrap(), &lines);
        interim(&mut out, StatusCode::from_u16(199).unwrap(), &HeaderMap::new());
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 199 \r\n\r\n");
    }

    #[test]
    fn a_response_without_a_date_is_given_one() {
        let mut out = Vec::new();
        response(&mut out, StatusCode::OK, &HeaderMap::new(), Framing::Length(0), Persistence::Implied, None);
        let text = String::from_utf8(out).unwrap();
        let date = text.lines().find_map(|line| line.strip_prefix("date: ")).unwrap();
        assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
    }

    #[test]
    fn a_chunk_begins_with_its_size() {
        for length in [1, 15, 16, 255, 65_536, usize::MAX] {
            let mut out = Vec::new();
            chunk(&mut out, length);
            assert_eq!(out, format!("{length:x}\r\n").into_bytes());
        }
    }
}
