//! Takes a message's body out of its connection's bytes (RFC 9112, sections 6 and 7).

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::{
    Fault,
    chunk::{Chunks, Step},
    fields,
    lines::Lines,
};

/// The most lines of trailers.
const TRAILERS_MAX: usize = 100;

/// Where in its body a message stands.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// So many bytes are to come.
    Length(u64),
    /// It comes in chunks.
    Chunked(Box<Chunked>),
    /// It ends with the connection.
    Close,
}

/// What there was of a body.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// Bytes of it.
    Data(Bytes),
    /// What comes after its last byte; then it is at its end.
    Trailers(HeaderMap),
    /// Nothing, and more must come.
    More,
    /// It is at its end.
    End,
}

/// Where among its chunks a body stands.
#[derive(Debug)]
pub(crate) struct Chunked {
    part: Part,
    chunks: Chunks,
    trailers: Lines,
    trailer_bytes_max: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// In a chunk's line, or at the end of its data.
    Line,
    /// In a chunk's data, with this many bytes to come.
    Data(u64),
    /// In the trailers.
    Trailers,
    /// Behind the last byte.
    End,
}

impl Decoder {
    /// A body of so many bytes.
    pub(crate) fn length(length: u64) -> Self {
        Self::Length(length)
    }

    /// A body in chunks, with so many bytes of trailers at the most.
    pub(crate) fn chunked(trailer_bytes_max: usize) -> Self {
        let (chunks, trailers) = (Chunks::new(), Lines::default());
        Self::Chunked(Box::new(Chunked { part: Part::Line, chunks, trailers, trailer_bytes_max }))
    }

    /// Whether the body is at its end.
    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.part == Part::End,
            Self::Close => false,
        }
    }

    /// How many bytes are to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(chunked) => (chunked.part == Part::End).then_some(0),
            Self::Close => None,
        }
    }

    /// Takes what there is of the body out of `buf`.
    pub(crate) fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, Fault> {
        match self {
            Self::Length(0) => Ok(Decoded::End),
            Self::Length(_) | Self::Close if buf.is_empty() => Ok(Decoded::More),
            Self::Length(left) => Ok(Decoded::Data(take(buf, left))),
            Self::Close => Ok(Decoded::Data(buf.split().freeze())),
            Self::Chunked(chunked) => chunked.decode(buf),
        }
    }
}

/// At most `left` bytes of `buf`, taken off both.
fn take(buf: &mut BytesMut, left: &mut u64) -> Bytes {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(buf.len());
    *left -= taken as u64;
    buf.split_to(taken).freeze()
}

impl Chunked {
    fn decode(&mut self, buf: &mut BytesMut) -> Result<Decoded, Fault> {
        loop {
            match &mut self.part {
                Part::End => return Ok(Decoded::End),
                Part::Trailers => return self.trailers(buf),
                _ if buf.is_empty() => return Ok(Decoded::More),
                Part::Data(left) => {
                    let data = take(buf, left);
                    if *left == 0 {
                        self.part = Part::Line;
                        self.chunks.data_ended();
                    }
                    return Ok(Decoded::Data(data));
                }
                Part::Line => {
                    self.part = match self.chunks.byte(buf[0]) {
                        Some(Step::Line) => Part::Line,
                        Some(Step::Data(size)) => Part::Data(size),
                        Some(Step::Last) => Part::Trailers,
                        None => return Err(Fault::Chunk),
                    };
                    buf.advance(1);
                }
            }
        }
    }

    fn trailers(&mut self, buf: &mut BytesMut) -> Result<Decoded, Fault> {
        let end = self.trailers.scan(buf)?;
        if end.unwrap_or(buf.len()) > self.trailer_bytes_max {
            return Err(Fault::HeadTooLarge);
        }
        if self.trailers.count() > TRAILERS_MAX {
            return Err(Fault::HeadersTooMany);
        }
        let Some(end) = end else { return Ok(Decoded::More) };
        self.part = Part::End;
        if self.trailers.count() == 0 {
            buf.advance(end);
            return Ok(Decoded::End);
        }
        fields::read_trailers(&buf.split_to(end).freeze(), &self.trailers).map(Decoded::Trailers)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: usize = 4096;

    fn chunked() -> Decoder {
        Decoder::chunked(BYTES_MAX)
    }

    /// The body and its trailers, and what is left behind it; bytes come in pieces of `step`.
    fn decode(mut decoder: Decoder, text: &[u8], step: usize) -> Result<(Vec<u8>, usize, Vec<u8>), Fault> {
        let (mut body, mut trailers, mut buf) = (Vec::new(), 0, BytesMut::new());
        let mut pieces = text.chunks(step.max(1));
        loop {
            match decoder.decode(&mut buf)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::Trailers(map) => trailers = map.len(),
                Decoded::End => {
                    buf.extend(pieces.flatten());
                    return Ok((body, trailers, buf.to_vec()));
                }
                Decoded::More => match pieces.next() {
                    Some(piece) => buf.extend_from_slice(piece),
                    None => return Ok((body, usize::MAX, Vec::new())),
                },
            }
        }
    }

    #[test]
    fn a_body_ends_where_its_length_says() {
        assert_eq!(decode(Decoder::length(3), b"abcd", 2).unwrap(), (b"abc".to_vec(), 0, b"d".to_vec()));
        assert_eq!(decode(Decoder::length(0), b"d", 1).unwrap(), (vec![], 0, b"d".to_vec()));
    }

    #[test]
    fn a_body_in_chunks_ends_with_an_empty_one_and_its_trailers() {
        let text = b"3;a=\"b\"\r\nabc\r\n0A\r\n0123456789\r\n0\r\nx-a: 1\r\nx-b: 2\r\n\r\nnext";
        for step in 1..text.len() {
            let want = (b"abc0123456789".to_vec(), 2, b"next".to_vec());
            assert_eq!(decode(chunked(), text, step).unwrap(), want, "{step}");
        }
    }

    #[test]
    fn trailers_are_bounded_and_lines() {
        for bad in [
            &b"0\r\na\n\r\n"[..],
            b"0\r\n a: b\r\n\r\n",
            b"0\r\na : b\r\n\r\n",
            b"0\r\na: \0\r\n\r\n",
            &[b"0\r\na: ", &[b'b'; BYTES_MAX][..], b"\r\n\r\n"].concat(),
            &[b"0\r\n", &b"a: b\r\n".repeat(TRAILERS_MAX + 1)[..], b"\r\n"].concat(),
        ] {
            assert!(decode(chunked(), bad, 1000).is_err(), "{bad:?}");
        }
        let framing = b"0\r\ncontent-length: 1\r\ntransfer-encoding: gzip\r\n\r\n";
        assert_eq!(decode(chunked(), framing, 1000).unwrap().1, 2, "they say nothing of this message");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(body in prop::collection::vec(any::<u8>(), 0..200), chunk in 1_usize..50, step in 1_usize..50) {
            let mut text = Vec::new();
            for piece in body.chunks(chunk) {
                text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
            prop_assert_eq!(decode(chunked(), &text, step).unwrap(), (body, 0, vec![]));
        }

        #[test]
        fn no_bytes_panic(text in prop::collection::vec(any::<u8>(), 0..80), step in 1_usize..20) {
            let _ = decode(chunked(), &text, step);
        }
    }
}
