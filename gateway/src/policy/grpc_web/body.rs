//! Bodies of gRPC-Web: trailers as a frame, and all of it as base64.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::body::{BodyError, ResponseBody, Wrapping};

/// What a frame of trailers begins with (grpc/doc/PROTOCOL-WEB.md): the highest bit, and no compression.
const TRAILERS: u8 = 0x80;

/// An answer whose trailers are the last frame of its body.
#[derive(Debug)]
pub(super) struct Framed<B> {
    inner: B,
    is_text: bool,
    is_over: bool,
}

impl<B> Framed<B> {
    pub(super) fn new(inner: B, is_text: bool) -> Self {
        Self { inner, is_text, is_over: false }
    }
}

impl<B> Body for Framed<B>
where
    B: Body<Data = Bytes, Error = BodyError> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)).transpose()? else {
            return Poll::Ready(None);
        };
        let bytes = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    self.is_over = true;
                    framed(&trailers)
                }
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            },
        };
        // Each part by itself, with padding: a client that waits for the end of a message must not wait for the next.
        let bytes = if self.is_text { Bytes::from(STANDARD.encode(&bytes)) } else { bytes };
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Wrapping for Framed<ResponseBody> {
    fn inner(&mut self) -> Option<&mut ResponseBody> {
        Some(&mut self.inner)
    }
}

/// The trailers as lines of HTTP/1.1 in a frame.
fn framed(trailers: &HeaderMap) -> Bytes {
    let mut frame = BytesMut::with_capacity(64);
    frame.put_slice(&[TRAILERS, 0, 0, 0, 0]);
    for (name, value) in trailers {
        frame.put_slice(name.as_str().as_bytes());
        frame.put_slice(b": ");
        frame.put_slice(value.as_bytes());
        frame.put_slice(b"\r\n");
    }
    // Far less than that: what a target may send as trailers is bounded.
    let length = u32::try_from(frame.len() - 5).unwrap_or(u32::MAX);
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

/// Takes base64 as it comes, in parts of any length, each of which may have padding at its end.
#[derive(Debug, Default)]
pub(crate) struct FromBase64 {
    /// What is left of a group of four.
    left: Vec<u8>,
}

impl FromBase64 {
    /// The bytes of all whole groups that there are with this part.
    pub(crate) fn part(&mut self, text: &[u8]) -> Result<Bytes, BodyError> {
        self.left.extend_from_slice(text);
        let whole = self.left.len() / 4 * 4;
        let mut bytes = BytesMut::with_capacity(whole / 4 * 3);
        let mut groups = &self.left[..whole];
        while !groups.is_empty() {
            // Padding ends what was encoded together.
            let end = groups.iter().position(|byte| *byte == b'=').map_or(groups.len(), |at| at / 4 * 4 + 4);
            let (together, rest) = groups.split_at(end);
            bytes.extend_from_slice(&STANDARD.decode(together).map_err(|_| BodyError::Base64)?);
            groups = rest;
        }
        self.left.drain(..whole);
        Ok(bytes.freeze())
    }

    /// Nothing more comes: an error if that is in the midst of a group.
    pub(crate) fn end(&self) -> Result<(), BodyError> {
        if self.left.is_empty() { Ok(()) } else { Err(BodyError::Base64) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn base64_comes_in_any_parts(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6), cut in 1_usize..9) {
            let text: String = parts.iter().map(|part| STANDARD.encode(part)).collect();
            let mut decoder = FromBase64::default();
            let mut bytes = Vec::new();
            for part in text.as_bytes().chunks(cut) {
                bytes.extend_from_slice(&decoder.part(part).unwrap());
            }
            decoder.end().unwrap();
            prop_assert_eq!(bytes, parts.concat());
        }
    }

    #[test]
    fn what_is_no_base64_is_an_error() {
        for bad in ["a*bc", "=abc", "ab=c", "===="] {
            assert!(FromBase64::default().part(bad.as_bytes()).is_err(), "{bad}");
        }
        let mut decoder = FromBase64::default();
        assert_eq!(decoder.part(b"YWI").unwrap(), "");
        assert!(decoder.end().is_err());
    }

    #[test]
    fn trailers_are_a_frame_of_lines() {
        let trailers =
            HeaderMap::from_iter([("grpc-status", "0"), ("grpc-message", "a b")].map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_static(value))
            }));
        let frame = framed(&trailers);
        assert_eq!(frame[..5], [0x80, 0, 0, 0, 35]);
        assert_eq!(frame[5..], *b"grpc-status: 0\r\ngrpc-message: a b\r\n");
    }
}
