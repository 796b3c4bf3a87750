//! The PROXY protocol to targets: for whom a connection is made, before anything else on it
//! (haproxy.org/download/2.9/doc/proxy-protocol.txt).

use std::net::{IpAddr, SocketAddr};

use model::upstream::ProxyProtocol;

/// What each header of version 2 begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, of a connection for somebody else.
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header of a connection that is made for a client which has come from one address to the other.
pub(super) fn header(version: ProxyProtocol, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (from_host, to_host) = (from.ip().to_canonical(), to.ip().to_canonical());
    match version {
        ProxyProtocol::V1 => match (from_host, to_host) {
            (IpAddr::V4(_), IpAddr::V4(_)) => line("TCP4", from_host, to_host, from.port(), to.port()),
            (from_host, to_host) => {
                line("TCP6", as_v6(from_host).into(), as_v6(to_host).into(), from.port(), to.port())
            }
        }
        .into_bytes(),
        ProxyProtocol::V2 => {
            let mut header = SIGNATURE.to_vec();
            let (family, addresses) = match (from_host, to_host) {
                (IpAddr::V4(from), IpAddr::V4(to)) => (TCP4, [from.octets(), to.octets()].concat()),
                (from, to) => (TCP6, [as_v6(from).octets(), as_v6(to).octets()].concat()),
            };
            // Two ports of two bytes follow.
            let length = if family == TCP4 { 12_u16 } else { 36 };
            header.extend([PROXY, family]);
            header.extend(length.to_be_bytes());
            header.extend(addresses);
            header.extend(from.port().to_be_bytes());
            header.extend(to.port().to_be_bytes());
            header
        }
    }
}

fn line(family: &str, from: IpAddr, to: IpAddr, from_port: u16, to_port: u16) -> String {
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n")
}

fn as_v6(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(version: ProxyProtocol, from: &str, to: &str) -> Vec<u8> {
        header(version, from.parse().unwrap(), to.parse().unwrap())
    }

    #[test]
    fn version_1_is_a_line() {
        let text = |from, to| String::from_utf8(of(ProxyProtocol::V1, from, to)).unwrap();
        assert_eq!(text("192.0.2.1:56324", "192.0.2.9:443"), "PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n");
        assert_eq!(text("[::ffff:192.0.2.1]:1", "192.0.2.9:2"), "PROXY TCP4 192.0.2.1 192.0.2.9 1 2\r\n");
        assert_eq!(text("[2001:db8::1]:1", "[::1]:2"), "PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
        assert_eq!(text("192.0.2.1:1", "[::1]:2"), "PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n");
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        assert!(text(longest, longest).len() <= 107, "section 2.1");
    }

    #[test]
    fn version_2_is_addresses_and_ports_after_a_signature() {
        let header = of(ProxyProtocol::V2, "192.0.2.1:256", "192.0.2.9:443");
        assert_eq!(header[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
        assert_eq!(header[16..], [192, 0, 2, 1, 192, 0, 2, 9, 1, 0, 1, 187]);
        let header = of(ProxyProtocol::V2, "[::1]:1", "[::2]:2");
        assert_eq!(header[12..16], [0x21, 0x21, 0, 36]);
        assert_eq!(header.len(), 16 + 36);
    }
}
