//! A client's ClientHello, which TCP routes look at: however the stream is cut the same is found, no byte after its last record is read, and
//! the host is the one that another reader finds. An input is a byte that says how the stream is cut, and the stream.
#![cfg_attr(feature = "libfuzzer", no_main)]

use gateway::fuzzing::client_hello;
use phalanx_fuzz::Input;

phalanx_fuzz::target!(|data| {
    let mut input = Input(data);
    let cut = usize::from(input.byte());
    let stream = input.0;
    let (found, read) = client_hello([stream]);
    for piece in [1, cut + 1] {
        let (again, read_again) = client_hello(stream.chunks(piece));
        assert_eq!(again, found, "in pieces of {piece} it is read otherwise");
        // What is none is known to be none from its first byte on, or from what came with it.
        assert!(found.is_err() || read_again == read, "in pieces of {piece} it is read up to another place");
    }
    let Ok(host) = found else { return };
    let (message, end) = message(stream).expect("there is no whole message in it");
    assert_eq!(read, end, "it is read up to another place");
    if let Some(host) = host {
        let named = named(&message).expect("no host is named");
        assert!(named.eq_ignore_ascii_case(host.as_bytes()), "{named:?} is named, and not {host}");
    }
});

/// The first message of a handshake, and where the record ends that it ends in.
fn message(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut message, mut at) = (Vec::new(), 0);
    loop {
        let header = stream.get(at..at + 5)?;
        let length = usize::from(header[3]) << 8 | usize::from(header[4]);
        message.extend_from_slice(stream.get(at + 5..at + 5 + length)?);
        at += 5 + length;
        if let [_, high, middle, low, ..] = message[..] {
            let wanted = 4 + (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low));
            if message.len() >= wanted {
                message.truncate(wanted);
                return Some((message, at));
            }
        }
    }
}

/// The host in a ClientHello's extension 0 (RFC 8446, section 4.1.2; RFC 6066, section 3).
fn named(message: &[u8]) -> Option<Vec<u8>> {
    // The message's header, the version and the random number.
    let mut rest = message.get(4 + 2 + 32..)?;
    let mut part = |of_length: usize| {
        let (length, behind) = rest.split_at_checked(of_length)?;
        let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        let (part, behind) = behind.split_at_checked(length)?;
        rest = behind;
        Some(part)
    };
    let (_session, _ciphers, _compression) = (part(1)?, part(2)?, part(1)?);
    let mut extensions = part(2)?;
    while let [kind @ .., _, _] = extensions.get(..4)? {
        let kind = u16::from_be_bytes(kind.try_into().ok()?);
        let length = usize::from(extensions[2]) << 8 | usize::from(extensions[3]);
        let body = extensions.get(4..4 + length)?;
        if kind == 0 {
            // A list of one name, of type 0.
            return body.get(5..).map(<[u8]>::to_vec);
        }
        extensions = &extensions[4 + length..];
    }
    None
}
