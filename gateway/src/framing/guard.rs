//! The guard between a client's socket and hyper: bytes go through unchanged until they are framed badly.
//!
//! In a head hyper is then handed bytes that it must refuse, so that it answers every request before it, then
//! 400, and closes. In a body reading fails, and the exchange answers 400.
//!
//! What hyper answers a head that it refuses itself is a bare status. The guard writes a problem document in
//! its place.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Follower, HeadLimits};
use crate::connection::Watch;

/// What no part of a head may hold, and the end of a head.
const POISON: &[u8] = b"\0\r\n\r\n";
/// The most bytes that are read and thrown away from a client that was answered before it had sent
/// everything.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug)]
enum Mode {
    Follow,
    /// hyper is being handed the rest of [`POISON`].
    Poison(&'static [u8]),
    /// A body was framed badly.
    Broken,
}

/// A client's stream, followed.
#[derive(Debug)]
pub(crate) struct Guard<S> {
    io: S,
    mode: Mode,
    follower: Follower,
    watch: Arc<Watch>,
    /// How much of the answer that stands in the place of hyper's own is written.
    answered_bytes: usize,
    shut: bool,
    lingered_bytes: usize,
}

impl<S> Guard<S> {
    pub(crate) fn new(io: S, watch: Arc<Watch>, limits: HeadLimits) -> Self {
        Self {
            io,
            mode: Mode::Follow,
            follower: Follower::new(limits),
            watch,
            answered_bytes: 0,
            shut: false,
            lingered_bytes: 0,
        }
    }
}

/// The status of an answer that hyper makes by itself.
fn own_status(bytes: &[u8]) -> Option<u16> {
    let (version, status) = bytes.get(..12)?.split_at(9);
    if !matches!(version, b"HTTP/1.1 " | b"HTTP/1.0 ") {
        return None;
    }
    std::str::from_utf8(status).ok()?.parse().ok()
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Mode::Follow = this.mode {
            let before = buf.filled().len();
            match Pin::new(&mut this.io).poll_read(cx, buf) {
                Poll::Ready(Ok(())) => {}
                Poll::Pending => {
                    this.watch.reading(!this.follower.between_messages(), this.follower.in_head());
                    return Poll::Pending;
                }
                failed => return failed,
            }
            this.watch.read(buf.filled().len() - before);
            if this.watch.is_tunnel() || buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            let Err(violation) = this.follower.feed(&buf.filled()[before..]) else {
                return Poll::Ready(Ok(()));
            };
            this.watch.refuse(violation.fault);
            buf.set_filled(before + violation.good);
            this.mode = if violation.in_head { Mode::Poison(POISON) } else { Mode::Broken };
            if violation.good > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        match &mut this.mode {
            Mode::Poison(left) => {
                let (now, later) = left.split_at(left.len().min(buf.remaining()));
                buf.put_slice(now);
                *left = later;
                Poll::Ready(Ok(()))
            }
            _ => Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "bad framing"))),
        }
    }
}

impl<S: AsyncWrite + Unpin> Guard<S> {
    /// Writes the answer that stands in the place of hyper's own, once `connection` has made it.
    fn poll_answer(&mut self, cx: &mut Context<'_>, status: u16) -> Poll<io::Result<()>> {
        let Some(answer) = self.watch.answer(status) else { return Poll::Pending };
        while let Some(left) = answer.get(self.answered_bytes..).filter(|left| !left.is_empty()) {
            let written = Pin::new(&mut self.io).poll_write(cx, left);
            self.watch.writing(&written);
            match std::task::ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.answered_bytes += count,
            }
        }
        Poll::Ready(Ok(()))
    }
}

// Not vectored: the server is told to write from one buffer.
impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.watch.is_settled()
            && let Some(status) = own_status(bytes)
        {
            std::task::ready!(this.poll_answer(cx, status))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut this.io).poll_write(cx, bytes);
        this.watch.writing(&written);
        written
    }

    /// hyper flushes when it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.flushed();
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Ends the stream. A client that is still sending is listened to for a little, since closing on unread
    /// bytes resets the connection and may take the answer with it (RFC 9112, section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            std::task::ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.shut = true;
            this.watch.linger();
        }
        let complete = matches!(this.mode, Mode::Follow) && this.follower.between_messages();
        if complete || this.watch.is_tunnel() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 2048];
        while this.lingered_bytes < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.io).poll_read(cx, &mut buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => this.lingered_bytes += buf.filled().len(),
                Poll::Ready(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
