//! The reader between a target and hyper that takes no lax line ends in the head of a response, nor interim responses without end.
//!
//! hyper takes a bare LF for the end of a line. Whoever else reads the same response may not, and then differs in where its head ends
//! (RFC 9112, section 2.2).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most interim responses (1xx) to one request.
const INTERIM_MAX: u8 = 16;
/// Where the digits of a status are in its line.
const STATUS: std::ops::Range<usize> = 9..12;

/// Whether the head of a response is yet to come: said when a request is sent. Of one thread; hyper's upgrades ask that it could be of
/// others.
pub(crate) type Awaited = Arc<AtomicBool>;

/// The heads of the responses to one request.
#[derive(Debug, Default)]
struct Heads {
    /// How many bytes of the status line have come, up to the end of the status.
    begun: usize,
    status: u16,
    /// Of the line that has not ended.
    line_bytes: usize,
    last: u8,
    interim: u8,
}

/// What more bytes come to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The head goes on.
    More,
    /// That of the final response has ended; what follows is none.
    Ended,
    /// No head is like that.
    Bad,
}

impl Heads {
    fn feed(&mut self, mut bytes: &[u8]) -> Outcome {
        while let Some((&next, rest)) = bytes.split_first() {
            if self.begun < STATUS.end {
                if next == b'\n' {
                    return Outcome::Bad;
                }
                if STATUS.contains(&self.begun) {
                    // Whether they are digits is hyper's to judge.
                    self.status = self.status * 10 + u16::from(next.wrapping_sub(b'0') % 10);
                }
                (self.begun, self.line_bytes, self.last) = (self.begun + 1, self.line_bytes + 1, next);
                bytes = rest;
                continue;
            }
            let Some(lf) = memchr(b'\n', bytes) else {
                (self.line_bytes, self.last) = (self.line_bytes + bytes.len(), bytes[bytes.len() - 1]);
                return Outcome::More;
            };
            let before = if lf == 0 { self.last } else { bytes[lf - 1] };
            if before != b'\r' {
                return Outcome::Bad;
            }
            let is_empty = self.line_bytes + lf == 1;
            (self.line_bytes, self.last) = (0, b'\n');
            bytes = &bytes[lf + 1..];
            if is_empty {
                // After a 101 there is no HTTP any more.
                if !(100..200).contains(&self.status) || self.status == 101 {
                    return Outcome::Ended;
                }
                if self.interim == INTERIM_MAX {
                    return Outcome::Bad;
                }
                *self = Self { interim: self.interim + 1, ..Self::default() };
            }
        }
        Outcome::More
    }
}

/// For fuzz/: whether the heads have ended in these pieces of a stream; none if they are bad.
#[cfg(feature = "fuzzing")]
pub(crate) fn end<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<bool> {
    let mut heads = Heads::default();
    for piece in pieces {
        match heads.feed(piece) {
            Outcome::More => {}
            Outcome::Ended => return Some(true),
            Outcome::Bad => return None,
        }
    }
    Some(false)
}

/// A connection to a target, whose heads are looked at.
#[derive(Debug)]
pub(crate) struct HeadGuard<S> {
    io: S,
    awaited: Awaited,
    heads: Heads,
}

impl<S> HeadGuard<S> {
    pub(crate) fn new(io: S) -> (Self, Awaited) {
        let awaited = Awaited::default();
        (Self { io, awaited: awaited.clone(), heads: Heads::default() }, awaited)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if read.is_ready() && this.awaited.load(Relaxed) {
            match this.heads.feed(&buf.filled()[before..]) {
                Outcome::More => {}
                Outcome::Ended => {
                    this.awaited.store(false, Relaxed);
                    this.heads = Heads::default();
                }
                Outcome::Bad => {
                    let error = "a response's head with lax line ends, or interim responses without end";
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
                }
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\nX: y\r\n\r\n";
    const INTERIM: &str = "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n";

    /// What it comes to, whole and byte by byte.
    fn outcome(text: &str) -> Outcome {
        let whole = Heads::default().feed(text.as_bytes());
        let mut heads = Heads::default();
        let single = text.bytes().map(|byte| heads.feed(&[byte])).find(|outcome| *outcome != Outcome::More);
        assert_eq!(single.unwrap_or(Outcome::More), whole, "{text:?}");
        whole
    }

    #[test]
    fn heads_end_where_they_end() {
        assert_eq!(outcome(OK), Outcome::Ended);
        assert_eq!(outcome(&OK[..OK.len() - 1]), Outcome::More);
        assert_eq!(outcome(&format!("{OK}body\nwith\n\nlines")), Outcome::Ended);
        assert_eq!(outcome(INTERIM), Outcome::More);
        assert_eq!(outcome(&format!("{INTERIM}{INTERIM}{OK}")), Outcome::Ended);
        assert_eq!(outcome("HTTP/1.1 101 Switching Protocols\r\n\r\nno\nHTTP"), Outcome::Ended);
        assert_eq!(outcome("HTTP/1.1 200\r\n\r\n"), Outcome::Ended);
    }

    #[test]
    fn lax_line_ends_are_none() {
        for text in [
            "HTTP/1.1 200 OK\nX: y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\r\n\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200\n\n",
        ] {
            assert_eq!(outcome(text), Outcome::Bad, "{text:?}");
        }
    }

    #[test]
    fn interim_responses_come_to_an_end() {
        let some = INTERIM.repeat(usize::from(INTERIM_MAX));
        assert_eq!(outcome(&format!("{some}{OK}")), Outcome::Ended);
        assert_eq!(outcome(&format!("{some}{INTERIM}")), Outcome::Bad);
    }
}
