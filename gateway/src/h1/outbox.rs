//! A message on its way out: its head, then its body as it comes, in as few writes as there can be.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::Body;
use tokio::io::AsyncWrite;

use super::{
    buffers,
    encode::{self, Framing, LAST_CHUNK},
    io::Io,
};
use crate::body::BodyError;

/// Up to this many bytes of a body are copied behind what there is to be written; more are written from where they are.
const COPIED_BYTES_MAX: usize = 8 * 1024;

/// Why a message did not go out whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsent {
    /// Nobody takes it any more.
    #[error(transparent)]
    Io(io::Error),
    /// Its body broke off.
    #[error(transparent)]
    Body(BodyError),
    /// Its body is longer or shorter than its head says.
    #[error("the body is not as long as the head says")]
    Length,
}

/// A message on its way out.
///
/// The socket is borrowed for a write alone: a body may read from the same one.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// What is to be written first, from `at` on.
    out: Vec<u8>,
    at: usize,
    /// What is to be written next.
    data: Bytes,
    /// What is to be written last.
    after: &'static [u8],
    framing: Framing,
    /// Whether the body has ended.
    ended: bool,
    /// Why it broke off, told once what came before is written.
    broken: Option<Unsent>,
    /// How many bytes were written.
    written_bytes: u64,
    /// Whether the connection is closed behind it.
    closes: bool,
    /// Whether the receiver takes nothing at the moment.
    waits: bool,
}

impl Outbox {
    /// Begins with a head, which `head` writes.
    pub(crate) fn new(framing: Framing, head: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut out = buffers::take_out();
        head(&mut out);
        let ended = matches!(framing, Framing::None | Framing::Length(0));
        Self {
            out,
            at: 0,
            data: Bytes::new(),
            after: b"",
            framing,
            ended,
            broken: None,
            written_bytes: 0,
            closes: false,
            waits: false,
        }
    }

    /// Its connection is closed as soon as it is out.
    pub(crate) fn and_close(&mut self) {
        self.closes = true;
    }

    /// How many bytes were written.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Whether the receiver takes nothing at the moment.
    pub(crate) fn waits(&self) -> bool {
        self.waits
    }

    fn push(&mut self, data: Bytes) -> Result<(), Unsent> {
        if self.at > 0 {
            // Nothing else ends what was written while there is always more.
            self.out.drain(..self.at);
            self.at = 0;
        }
        match &mut self.framing {
            Framing::None => return Ok(()),
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Unsent::Length)?;
                self.ended = *left == 0;
            }
            Framing::Chunked if data.is_empty() => return Ok(()),
            Framing::Chunked => encode::chunk(&mut self.out, data.len()),
            Framing::Close => {}
        }
        let after: &[u8] = if self.framing == Framing::Chunked { b"\r\n" } else { b"" };
        if !self.out.is_empty() && data.len() <= COPIED_BYTES_MAX {
            self.out.extend_from_slice(&data);
            self.out.extend_from_slice(after);
        } else {
            (self.data, self.after) = (data, after);
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Unsent> {
        match (self.framing, trailers) {
            (Framing::Length(1..), _) => return Err(Unsent::Length),
            (Framing::Chunked, Some(trailers)) if self.data.is_empty() => {
                encode::trailers(&mut self.out, trailers);
            }
            (Framing::Chunked, _) if self.data.is_empty() => self.out.extend_from_slice(LAST_CHUNK),
            (Framing::Chunked, _) => self.after = b"\r\n0\r\n\r\n",
            _ => {}
        }
        self.ended = true;
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.at == self.out.len() && self.data.is_empty() && self.after.is_empty()
    }

    /// Writes all there is.
    fn poll_write(&mut self, io: &RefCell<Io>, cx: &mut Context<'_>) -> Poll<Result<(), Unsent>> {
        let io = &mut *io.borrow_mut();
        while !self.is_empty() {
            let first = &self.out[self.at..];
            let written = if self.data.is_empty() && self.after.is_empty() {
                if self.closes && self.ended {
                    io.poll_write_last(cx, first)
                } else {
                    Pin::new(&mut *io).poll_write(cx, first)
                }
            } else {
                let slices = [IoSlice::new(first), IoSlice::new(&self.data), IoSlice::new(self.after)];
                let begin = slices.iter().take_while(|slice| slice.is_empty()).count();
                Pin::new(&mut *io).poll_write_vectored(cx, &slices[begin..])
            };
            self.waits = written.is_pending();
            let count = ready!(written).map_err(Unsent::Io)?;
            if count == 0 {
                return Poll::Ready(Err(Unsent::Io(io::ErrorKind::WriteZero.into())));
            }
            self.advance(count);
        }
        self.out.clear();
        self.at = 0;
        let flushed = Pin::new(io).poll_flush(cx);
        self.waits = flushed.is_pending();
        flushed.map_err(Unsent::Io)
    }

    fn advance(&mut self, mut count: usize) {
        self.written_bytes += count as u64;
        let first = count.min(self.out.len() - self.at);
        self.at += first;
        count -= first;
        let second = count.min(self.data.len());
        self.data.advance(second);
        self.after = &self.after[count - second..];
    }

    /// Writes the message to its end, its body as it comes. While the body has nothing to give, what there is of it is
    /// written at once. Trailers go out if the receiver takes them.
    pub(crate) fn poll_send<B>(
        &mut self,
        io: &RefCell<Io>,
        mut body: Pin<&mut B>,
        takes_trailers: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Unsent>>
    where
        B: Body<Data = Bytes, Error = BodyError>,
    {
        loop {
            if self.ended
                || self.broken.is_some()
                || !self.data.is_empty()
                // What comes next is written from `out`, and so before this.
                || !self.after.is_empty()
                || self.out.len() - self.at > COPIED_BYTES_MAX
            {
                ready!(self.poll_write(io, cx))?;
                if let Some(broken) = self.broken.take() {
                    return Poll::Ready(Err(broken));
                }
                if self.ended {
                    return Poll::Ready(Ok(()));
                }
            }
            match body.as_mut().poll_frame(cx) {
                Poll::Pending => {
                    ready!(self.poll_write(io, cx))?;
                    return Poll::Pending;
                }
                Poll::Ready(None) => self.end(None)?,
                Poll::Ready(Some(Err(error))) => self.broken = Some(Unsent::Body(error)),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        self.push(data)?;
                        if !self.ended && body.is_end_stream() {
                            self.end(None)?;
                        }
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().ok().filter(|_| takes_trailers);
                        self.end(trailers.as_ref())?;
                    }
                },
            }
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        buffers::give_out(std::mem::take(&mut self.out));
    }
}

#[cfg(test)]
mod tests;
