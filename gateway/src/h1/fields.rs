//! The header lines of a message, and of its trailers (RFC 9112, section 5).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use memchr::memchr;

use super::{Fault, lines::Lines};

/// Digits of a Content-Length: far above anything real, far below overflow.
const LENGTH_DIGITS_MAX: usize = 18;

/// What the header lines of a message say of the message itself.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Framing {
    /// Content-Length.
    pub(crate) length: Option<u64>,
    /// `Transfer-Encoding: chunked`.
    pub(crate) chunked: bool,
    /// `Connection` has the option `close`.
    pub(crate) close: bool,
    /// `Connection` has the option `keep-alive`.
    pub(crate) keep_alive: bool,
    /// There is an `Expect: 100-continue`.
    pub(crate) expects: bool,
    /// `TE` has `trailers`.
    pub(crate) trailers: bool,
}

/// Reads the lines of `head` after its first `skip`, with room for `more` of our own.
pub(crate) fn read(
    head: &Bytes,
    lines: &Lines,
    skip: usize,
    more: usize,
) -> Result<(HeaderMap, Framing), Fault> {
    let mut headers = HeaderMap::with_capacity(lines.count().saturating_sub(skip) + more);
    let mut framing = Framing::default();
    for bounds in lines.bounds().skip(skip) {
        let (name, value) = line(head, bounds)?;
        note(&name, &value, &mut framing)?;
        headers.append(name, value);
    }
    if framing.chunked && framing.length.is_some() {
        return Err(Fault::Both);
    }
    Ok((headers, framing))
}

/// Reads the lines of trailers, which say nothing of where a message ends.
pub(crate) fn read_trailers(trailers: &Bytes, lines: &Lines) -> Result<HeaderMap, Fault> {
    let mut map = HeaderMap::with_capacity(lines.count());
    for bounds in lines.bounds() {
        let (name, value) = line(trailers, bounds)?;
        map.append(name, value);
    }
    Ok(map)
}

/// The name and the value of one line.
fn line(head: &Bytes, (begin, end): (usize, usize)) -> Result<(HeaderName, HeaderValue), Fault> {
    let line = &head[begin..end];
    let colon = memchr(b':', line).ok_or_else(|| bad_name(line))?;
    let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| bad_name(&line[..colon]))?;
    let (from, to) = trimmed(line, colon + 1);
    let value =
        HeaderValue::from_maybe_shared(head.slice(begin + from..begin + to)).map_err(|_| Fault::Syntax)?;
    Ok((name, value))
}

/// Why these bytes are no name.
fn bad_name(name: &[u8]) -> Fault {
    let space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if space(name.first()) || space(name.last()) { Fault::WhiteSpace } else { Fault::Syntax }
}

/// The bounds of a value without the optional white space at both ends (RFC 9110, section 5.6.3), which is space and tab
/// alone.
fn trimmed(line: &[u8], mut from: usize) -> (usize, usize) {
    let mut to = line.len();
    while from < to && matches!(line[from], b' ' | b'\t') {
        from += 1;
    }
    while from < to && matches!(line[to - 1], b' ' | b'\t') {
        to -= 1;
    }
    (from, to)
}

/// Notes what a line says of the message.
fn note(name: &HeaderName, value: &HeaderValue, framing: &mut Framing) -> Result<(), Fault> {
    match *name {
        header::CONTENT_LENGTH => {
            let length = content_length(value.as_bytes()).ok_or(Fault::ContentLength)?;
            if framing.length.replace(length).is_some() {
                return Err(Fault::ContentLength);
            }
        }
        header::TRANSFER_ENCODING => {
            if framing.chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::TransferEncoding);
            }
            framing.chunked = true;
        }
        header::CONNECTION => {
            for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                framing.close |= option.eq_ignore_ascii_case(b"close");
                framing.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        }
        header::TE => {
            let mut codings = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            framing.trailers |= codings.any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
        }
        header::EXPECT => framing.expects |= value.as_bytes().eq_ignore_ascii_case(b"100-continue"),
        _ => {}
    }
    Ok(())
}

/// One or more digits and nothing else (RFC 9112, section 6.3).
fn content_length(value: &[u8]) -> Option<u64> {
    let good = !value.is_empty() && value.len() <= LENGTH_DIGITS_MAX && value.iter().all(u8::is_ascii_digit);
    if !good {
        return None;
    }
    Some(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &'static str) -> Result<(HeaderMap, Framing), Fault> {
        let mut lines = Lines::default();
        lines.scan(text.as_bytes()).unwrap().unwrap();
        read(&Bytes::from_static(text.as_bytes()), &lines, 0, 0)
    }

    #[test]
    fn a_line_is_a_name_and_a_value() {
        let (headers, framing) = fields("Host: a\r\nX-A:\t b c \r\nx-a:\r\n\r\n").unwrap();
        assert_eq!(headers["host"], "a");
        assert_eq!(headers.get_all("x-a").iter().collect::<Vec<_>>(), ["b c", ""]);
        assert_eq!(framing, Framing::default());
    }

    #[test]
    fn what_decides_where_a_message_ends_is_read_strictly() {
        let length = |text| fields(text).map(|(_, framing)| framing.length);
        assert_eq!(length("content-length: 007 \r\n\r\n"), Ok(Some(7)));
        for bad in ["+1", "-1", "1,1", "1 1", "", "0x1", "1234567890123456789"] {
            let text = format!("content-length: {bad}\r\n\r\n").leak();
            assert_eq!(length(text), Err(Fault::ContentLength), "{bad}");
        }
        assert_eq!(length("content-length: 1\r\ncontent-length: 1\r\n\r\n"), Err(Fault::ContentLength));
        assert!(fields("transfer-encoding: Chunked\r\n\r\n").unwrap().1.chunked);
        for bad in
            ["gzip, chunked", "chunked, chunked", "chunked;q=1", "identity", "", "xchunked", "\"chunked\""]
        {
            let text = format!("transfer-encoding: {bad}\r\n\r\n").leak();
            assert_eq!(fields(text).map(drop), Err(Fault::TransferEncoding), "{bad}");
        }
        let both = "content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n";
        assert_eq!(fields(both).map(drop), Err(Fault::Both));
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for (bad, fault) in [
            (" folded: 1\r\n\r\n", Fault::WhiteSpace),
            ("a: 1\r\n\t2\r\n\r\n", Fault::WhiteSpace),
            ("a : 1\r\n\r\n", Fault::WhiteSpace),
            ("a\r\n\r\n", Fault::Syntax),
            (": 1\r\n\r\n", Fault::Syntax),
            ("a(: 1\r\n\r\n", Fault::Syntax),
            ("a: \0\r\n\r\n", Fault::Syntax),
            ("a: \x7f\r\n\r\n", Fault::Syntax),
        ] {
            assert_eq!(fields(bad).map(drop), Err(fault), "{bad:?}");
        }
    }

    #[test]
    fn options_of_the_connection_are_found_among_others() {
        let framing = fields("connection: X-A , CLOSE\r\nconnection: keep-alive\r\n\r\n").unwrap().1;
        assert!(framing.close && framing.keep_alive);
        assert!(!fields("connection: closed\r\n\r\n").unwrap().1.close);
    }
}
