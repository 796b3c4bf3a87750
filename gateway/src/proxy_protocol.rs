//! The PROXY protocol, versions 1 and 2, by which a proxy before us says from whom a connection is
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::{io::AsyncReadExt, net::TcpStream};

/// Which versions are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Version 1, a line of text.
    V1,
    /// Version 2, in binary.
    V2,
    /// Either.
    Any,
}

/// What every header of version 2 begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What every header of version 1 begins with (section 2.1).
const WORD: &[u8] = b"PROXY ";
/// The longest header of version 1, CR and LF among it (section 2.1).
const V1_BYTES_MAX: usize = 107;
/// The fixed part of a header of version 2.
const V2_HEAD_BYTES: usize = 16;
/// The longest header of version 2 that is read, its further fields (TLVs) among it: those that proxies send are far shorter.
const V2_BYTES_MAX: usize = 4_096;

/// What the bytes of a connection's beginning are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A header, as far as it goes.
    More,
    /// A header of so many bytes, and from whom the connection is; none if the proxy speaks for itself, or does not know.
    Header(usize, Option<SocketAddr>),
}

/// What begins a connection is no header that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no PROXY header")]
pub(crate) struct Malformed;

/// Reads the header that these bytes begin with.
pub(crate) fn parse(bytes: &[u8], taken: ProxyProtocol) -> Result<Found, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(have, want)| have == want);
    match taken {
        ProxyProtocol::V1 | ProxyProtocol::Any if begins(WORD) => v1(bytes),
        ProxyProtocol::V2 | ProxyProtocol::Any if begins(SIGNATURE) => v2(bytes),
        _ => Err(Malformed),
    }
}

fn v1(bytes: &[u8]) -> Result<Found, Malformed> {
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = memchr::memchr(b'\n', within) else {
        return if within.len() < V1_BYTES_MAX { Ok(Found::More) } else { Err(Malformed) };
    };
    let line = within[..end].strip_suffix(b"\r").ok_or(Malformed)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
    let mut words = line.split(' ').skip(1);
    let source = match words.next() {
        // What follows is to be ignored.
        Some("UNKNOWN") => return Ok(Found::Header(end + 1, None)),
        Some("TCP4") => addresses::<Ipv4Addr>(&mut words)?,
        Some("TCP6") => addresses::<Ipv6Addr>(&mut words)?,
        _ => return Err(Malformed),
    };
    if words.next().is_some() {
        return Err(Malformed);
    }
    Ok(Found::Header(end + 1, Some(source)))
}

/// The source of the four words: source, destination and their ports.
fn addresses<'w, A>(words: &mut impl Iterator<Item = &'w str>) -> Result<SocketAddr, Malformed>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut address = || words.next().and_then(|word| word.parse::<A>().ok()).ok_or(Malformed);
    let (source, _destination) = (address()?, address()?);
    let mut port = || words.next().and_then(port).ok_or(Malformed);
    let (source_port, _destination_port) = (port()?, port()?);
    Ok(SocketAddr::new(source.into(), source_port))
}

/// A number as it is written, with no zero before it and no sign.
fn port(word: &str) -> Option<u16> {
    let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain)
}

fn v2(bytes: &[u8]) -> Result<Found, Malformed> {
    let Some((head, rest)) = bytes.split_first_chunk::<V2_HEAD_BYTES>() else { return Ok(Found::More) };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if V2_HEAD_BYTES + length > V2_BYTES_MAX {
        return Err(Malformed);
    }
    let Some(rest) = rest.get(..length) else {
        return match command {
            0x20 | 0x21 => Ok(Found::More),
            _ => Err(Malformed),
        };
    };
    let source = match (command, family) {
        // LOCAL: the proxy itself asks, as for its health checks.
        (0x20, _) => None,
        // PROXY, of no family, or of one that has no addresses of ours.
        (0x21, 0x00) => None,
        (0x21, 0x11) => {
            let (source, port) = rest.first_chunk::<4>().zip(rest.get(8..10)).ok_or(Malformed)?;
            // With its destination.
            rest.get(..12).ok_or(Malformed)?;
            Some(SocketAddr::new(Ipv4Addr::from(*source).into(), u16::from_be_bytes([port[0], port[1]])))
        }
        (0x21, 0x21) => {
            let (source, port) = rest.first_chunk::<16>().zip(rest.get(32..34)).ok_or(Malformed)?;
            rest.get(..36).ok_or(Malformed)?;
            Some(SocketAddr::new(Ipv6Addr::from(*source).into(), u16::from_be_bytes([port[0], port[1]])))
        }
        _ => return Err(Malformed),
    };
    Ok(Found::Header(V2_HEAD_BYTES + length, source))
}

/// Reads the header from the connection's beginning, and no byte beyond. Gives from whom the connection is.
pub(crate) async fn read(stream: &mut TcpStream, taken: ProxyProtocol) -> io::Result<Option<SocketAddr>> {
    let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut header = Vec::with_capacity(V1_BYTES_MAX);
    loop {
        let known = header.len();
        header.resize(known + V1_BYTES_MAX, 0);
        let seen = stream.peek(&mut header[known..]).await?;
        header.truncate(known + seen);
        if seen == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // What is seen of a header that goes on is all its own; of one that ends, what is beyond stays where it is.
        let (end, source) = match parse(&header, taken).map_err(malformed)? {
            Found::More => (header.len(), None),
            Found::Header(end, source) => (end, Some(source)),
        };
        stream.read_exact(&mut header[known..end]).await?;
        if let Some(source) = source {
            return Ok(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v2_of(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn version_1_is_read_as_it_is_written() {
        for (line, source) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n", Some("192.0.2.1:56324")),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", Some("[2001:db8::1]:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", None),
        ] {
            let source = source.map(|source| source.parse().unwrap());
            assert_eq!(
                parse(line.as_bytes(), ProxyProtocol::Any),
                Ok(Found::Header(line.len(), source)),
                "{line:?}"
            );
            let with_more = format!("{line}GET / HTTP/1.1\r\n");
            assert_eq!(parse(with_more.as_bytes(), ProxyProtocol::V1), Ok(Found::Header(line.len(), source)));
            for end in 0..line.len() {
                assert_eq!(
                    parse(&line.as_bytes()[..end], ProxyProtocol::V1),
                    Ok(Found::More),
                    "{line:?} {end}"
                );
            }
            assert_eq!(parse(line.as_bytes(), ProxyProtocol::V2), Err(Malformed));
        }
    }

    #[test]
    fn what_is_not_quite_version_1_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY \r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)),
        ] {
            assert_eq!(parse(line.as_bytes(), ProxyProtocol::Any), Err(Malformed), "{line:?}");
        }
    }

    #[test]
    fn version_2_is_read_as_it_is_written() {
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0xdc, 4, 1, 187];
        let v6 = [&Ipv6Addr::LOCALHOST.octets()[..], &[0; 16], &[0, 7, 0, 8]].concat();
        let tlv = [&v4[..], &[0x04, 0, 1, 0]].concat();
        for (header, source) in [
            (v2_of(0x21, 0x11, &v4), Some("192.0.2.1:56324")),
            (v2_of(0x21, 0x11, &tlv), Some("192.0.2.1:56324")),
            (v2_of(0x21, 0x21, &v6), Some("[::1]:7")),
            (v2_of(0x20, 0x00, &[]), None),
            (v2_of(0x20, 0x11, &v4), None),
            (v2_of(0x21, 0x00, &[1, 2, 3]), None),
        ] {
            let source = source.map(|source| source.parse().unwrap());
            assert_eq!(
                parse(&header, ProxyProtocol::Any),
                Ok(Found::Header(header.len(), source)),
                "{header:?}"
            );
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end], ProxyProtocol::V2), Ok(Found::More), "{end}");
            }
            assert_eq!(parse(&header, ProxyProtocol::V1), Err(Malformed));
        }
        for header in [
            v2_of(0x11, 0x11, &v4),
            v2_of(0x22, 0x11, &v4),
            v2_of(0x21, 0x12, &v4),
            v2_of(0x21, 0x31, &[0; 216]),
            v2_of(0x21, 0x11, &v4[..11]),
            v2_of(0x21, 0x21, &v4),
            v2_of(0x20, 0x00, &[0; 4_096]),
        ] {
            assert_eq!(parse(&header, ProxyProtocol::Any), Err(Malformed), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn any_source_is_read_back(v6 in any::<bool>(), octets in any::<[u8; 16]>(), port in any::<u16>()) {
            let ip: IpAddr = if v6 { octets.into() } else { [octets[0], octets[1], octets[2], octets[3]].into() };
            let kind = if v6 { "TCP6" } else { "TCP4" };
            let line = format!("PROXY {kind} {ip} {ip} {port} {port}\r\n");
            let source = Some(SocketAddr::new(ip, port));
            prop_assert_eq!(parse(line.as_bytes(), ProxyProtocol::Any), Ok(Found::Header(line.len(), source)));
        }

        /// However it comes in pieces, and whatever follows, it is the same header; and nothing panics.
        #[test]
        fn more_bytes_change_nothing_that_is_known(
            begin in prop_oneof![Just(&b"PROXY "[..]), Just(&b"PROXY TCP4 "[..]), Just(&SIGNATURE[..]), Just(&b""[..])],
            rest in prop::collection::vec(any::<u8>(), 0..64),
            cut in 0..64_usize,
        ) {
            let bytes = [begin, &rest].concat();
            let whole = parse(&bytes, ProxyProtocol::Any);
            let part = parse(&bytes[..cut.min(bytes.len())], ProxyProtocol::Any);
            match part {
                Ok(Found::More) => {}
                known => prop_assert_eq!(whole, known),
            }
            if let Ok(Found::Header(end, _)) = whole {
                prop_assert!(end <= bytes.len());
            }
        }
    }
}
