//! What a proxy says of a connection before its first byte: wherever it is cut it is judged alike, and what it says is found in it.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::net::SocketAddr;

use gateway::{
    ProxyProtocol,
    fuzzing::{ProxyHeader, proxy_header},
};

phalanx_fuzz::target!(|data| {
    for taken in [ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Any] {
        let whole = proxy_header(data, taken);
        for end in 0..data.len() {
            match proxy_header(&data[..end], taken) {
                ProxyHeader::More => {}
                known => assert_eq!(known, whole, "at {end}"),
            }
        }
        if let ProxyHeader::Whole(length, source) = whole {
            let header = &data[..length];
            assert_eq!(proxy_header(header, taken), whole, "what follows has changed it");
            assert!(source.is_none_or(|source| says(header, source)), "{header:?} does not say {source:?}");
        }
    }
    let [v1, v2, any] =
        [ProxyProtocol::V1, ProxyProtocol::V2, ProxyProtocol::Any].map(|taken| proxy_header(data, taken));
    if matches!(any, ProxyHeader::Whole(..)) {
        assert!((v1 == any) != (v2 == any), "it is of one version");
    }
});

/// Whether the source stands in the header where its version has it.
fn says(header: &[u8], source: SocketAddr) -> bool {
    if let Ok(line) = std::str::from_utf8(header)
        && let Some(words) = line.strip_prefix("PROXY ")
    {
        let words: Vec<&str> = words.trim_end().split(' ').collect();
        let [_, address, _, port, _] = words[..] else { return false };
        return address.parse() == Ok(source.ip()) && port == source.port().to_string();
    }
    let octets = match source {
        SocketAddr::V4(source) => source.ip().octets().to_vec(),
        SocketAddr::V6(source) => source.ip().octets().to_vec(),
    };
    let port_at = 16 + 2 * octets.len();
    header[16..].starts_with(&octets) && header[port_at..].starts_with(&source.port().to_be_bytes())
}
