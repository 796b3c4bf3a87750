//! The ClientHello of TLS (RFC 8446, section 4.1.2), read for the host that it names while every byte is kept for whoever ends the
//! connection.

use std::io;

use rustls::server::{Accepted, Acceptor};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// The most bytes that are read for one, what frames its records included: more than any client sends, with keys of any kind.
const BYTES_MAX: usize = 64 * 1024;
/// Of a record's header (RFC 8446, section 5.1).
const HEADER_BYTES: usize = 5;
/// The type of a record that a handshake begins with.
const HANDSHAKE: u8 = 22;
/// Read at once, at most.
const READ_BYTES: usize = 2048;

/// Reads a ClientHello, however many records and pieces it comes in, and not a byte of what follows it.
#[derive(Default)]
pub(crate) struct Reader {
    acceptor: Acceptor,
    bytes: Vec<u8>,
    /// Where the last record begins.
    record: usize,
}

/// Why there is no ClientHello.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// It is another protocol.
    #[error("what came is no TLS")]
    NotTls,
    /// It is none that can be read; the alert that says so.
    #[error("the ClientHello can't be read: {0}")]
    Bad(rustls::Error, Vec<u8>),
    /// It is endless.
    #[error("the ClientHello has more than {BYTES_MAX} bytes")]
    TooLong,
    /// The client has gone.
    #[error("the client has gone")]
    Gone,
}

impl Reader {
    /// How many bytes the record at hand lacks; 0 once it is whole.
    fn lacks(&self) -> usize {
        let record = self.bytes.get(self.record..).unwrap_or_default();
        match record {
            [_, _, _, high, low, body @ ..] => {
                usize::from(u16::from_be_bytes([*high, *low])).saturating_sub(body.len())
            }
            short => HEADER_BYTES - short.len(),
        }
    }

    /// Takes what came next, no more of it than [`Self::lacks`]; gives the ClientHello once it is whole.
    fn take(&mut self, more: &[u8]) -> Result<Option<Accepted>, Refused> {
        self.bytes.extend_from_slice(more);
        if self.bytes.first().is_some_and(|first| *first != HANDSHAKE) {
            return Err(Refused::NotTls);
        }
        let lacks = self.lacks();
        if self.bytes.len() + lacks > BYTES_MAX {
            return Err(Refused::TooLong);
        }
        if lacks > 0 {
            return Ok(None);
        }
        let mut record = self.bytes.get(self.record..).unwrap_or_default();
        while !record.is_empty() {
            self.acceptor.read_tls(&mut record).map_err(|_| Refused::TooLong)?;
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(accepted) => return Ok(accepted),
                Err((error, mut alert)) => {
                    let mut bytes = Vec::new();
                    // Memory takes every byte.
                    let _ = alert.write_all(&mut bytes);
                    return Err(Refused::Bad(error, bytes));
                }
            }
        }
        self.record = self.bytes.len();
        Ok(None)
    }

    /// Everything that was read.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Reads from this stream until there is a ClientHello. What it is refused for, or what was read when that is given up, is among
    /// its bytes.
    pub(crate) async fn read(&mut self, stream: &mut TcpStream) -> Result<Accepted, Refused> {
        let mut buffer = [0; READ_BYTES];
        loop {
            let wanted = self.lacks().min(READ_BYTES);
            let count = match stream.read(&mut buffer[..wanted]).await {
                Ok(0) => return Err(Refused::Gone),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Refused::Gone),
            };
            if let Some(accepted) = self.take(&buffer[..count])? {
                return Ok(accepted);
            }
        }
    }
}

/// What is found in a stream that is cut into these pieces: the host that it names, and how many of its bytes were read.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn found<'p>(
    pieces: impl IntoIterator<Item = &'p [u8]>,
) -> (Result<Option<String>, &'static str>, usize) {
    let mut reader = Reader::default();
    for mut piece in pieces {
        while !piece.is_empty() {
            let (now, later) = piece.split_at(reader.lacks().min(piece.len()));
            piece = later;
            let told = match reader.take(now) {
                Ok(None) => continue,
                Ok(Some(accepted)) => Ok(accepted.client_hello().server_name().map(str::to_owned)),
                Err(Refused::NotTls) => Err("no TLS"),
                Err(Refused::Bad(..)) => Err("bad"),
                Err(Refused::TooLong) => Err("too long"),
                Err(Refused::Gone) => Err("gone"),
            };
            return (told, reader.bytes.len());
        }
    }
    (Err("gone"), reader.bytes.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::tls::certificate::PROVIDER;

    /// The ClientHello of rustls for this host, in one record.
    fn hello(host: &str) -> Vec<u8> {
        let config = ClientConfig::builder_with_provider(PROVIDER.clone());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of so many bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let records = hello[HEADER_BYTES..].chunks(size).flat_map(|part| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1][..], &length, part].concat()
        });
        records.collect()
    }

    #[test]
    fn the_host_is_found_and_no_byte_after_the_hello_is_read() {
        let hello = hello("db.example");
        for size in [1, 7, 300, 16_384] {
            let records = in_records(&hello, size);
            let stream = [&records[..], b"\x17\x03\x03\0\x02hi"].concat();
            for piece in [1, 5, 4_096, stream.len()] {
                let (name, read) = found(stream.chunks(piece));
                assert_eq!(
                    (name, read),
                    (Ok(Some("db.example".to_owned())), records.len()),
                    "{size} {piece}"
                );
            }
        }
        assert_eq!(found([&hello_for_nobody()[..]]).0, Ok(None));
    }

    /// A client that connects to an address names no host.
    fn hello_for_nobody() -> Vec<u8> {
        hello("192.0.2.1")
    }

    #[test]
    fn what_is_no_hello_is_told_apart() {
        let told = |bytes: &[u8]| found([bytes]).0;
        assert_eq!(told(b"GET / HTTP/1.1\r\n\r\n"), Err("no TLS"));
        assert_eq!(told(b"\x80\x2e\x01\x03\x01"), Err("no TLS"));
        assert_eq!(told(b"\x16\x03\x01\0\x04\x01\0\0\0"), Err("bad"));
        assert_eq!(told(b"\x16\x03\x01\0\x05"), Err("gone"));
        assert_eq!(told(b"\x16\x03\x01\0\0"), Err("bad"));
        let endless: Vec<u8> =
            [22, 3, 1, 0, 4, 1, 255, 255, 255].into_iter().chain([22, 3, 1, 63, 255]).collect();
        let endless = [&endless[..], &[0; 200_000]].concat();
        assert!(matches!(told(&endless), Err("bad" | "too long")), "{:?}", told(&endless));
    }

    proptest! {
        /// However a stream is cut, the same is found, and never more is read than it has.
        #[test]
        fn cuts_make_no_difference(
            change in prop::option::of((0_usize..300, any::<u8>())),
            size in 1_usize..400,
            piece in 1_usize..400,
        ) {
            let mut hello = hello("a.example");
            if let Some((at, byte)) = change {
                hello[at] = byte;
            }
            let stream = in_records(&hello, size);
            let (whole, read) = found([&stream[..]]);
            let (again, read_again) = found(stream.chunks(piece));
            prop_assert_eq!(&again, &whole);
            // What is none is known to be none from its first byte on, or from what came with it.
            prop_assert!(whole.is_err() || read_again == read);
            prop_assert!(read.max(read_again) <= stream.len());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let framed = [&[HANDSHAKE, 3, 1][..], &bytes].concat();
            for bytes in [&bytes, &framed] {
                prop_assert!(found([&bytes[..]]).1 <= bytes.len());
            }
        }
    }
}
