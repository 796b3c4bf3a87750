//! The socket below a connection, with or without TLS on it.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    net::Shutdown,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use futures::task::noop_waker_ref;
use rustix::net::{SendFlags, send};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
    task::coop::unconstrained,
};

use super::buffers;

/// What carries bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

/// A connection's bytes, both ways. Plain TCP is by far the most frequent, and is called directly.
pub(crate) enum Io {
    /// The socket itself.
    Tcp(TcpStream),
    /// TLS, or whatever else is on a socket.
    Layered(Box<dyn Duplex>),
}

impl Io {
    /// Reads into what `buf` has room for; 0 bytes are the end. Costs no system call while nothing has come.
    pub(crate) fn poll_read_into(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        tokio_util::io::poll_read_buf(Pin::new(self), cx, buf)
    }

    /// Writes what is the last there is, and ends this side: the end goes out with it, in one packet. Left to the close, it would be held
    /// back until then, and thrown away where something of the client was not read.
    pub(crate) fn poll_write_last(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self::Tcp(io) = self else { return Pin::new(self).poll_write(cx, bytes) };
        loop {
            ready!(io.poll_write_ready(cx))?;
            let flags = SendFlags::MORE | SendFlags::NOSIGNAL;
            match io.try_io(Interest::WRITABLE, || Ok(send(&*io, bytes, flags)?)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    if matches!(written, Ok(count) if count == bytes.len()) {
                        // Who is gone already needs no end.
                        let _ = SockRef::from(&*io).shutdown(Shutdown::Write);
                    }
                    return Poll::Ready(written);
                }
            }
        }
    }

    /// Whether nothing has come, and not its end either. Costs no system call while that is so. It is found out even where a task has had its turn,
    /// after which all that it reads seems to wait.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match self {
            Self::Tcp(io) => {
                io.try_read(&mut byte).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Layered(io) => {
                let mut buf = ReadBuf::new(&mut byte);
                let reading = poll_fn(|cx| Pin::new(&mut *io).poll_read(cx, &mut buf));
                let mut cx = Context::from_waker(noop_waker_ref());
                pin!(unconstrained(reading)).poll(&mut cx).is_pending()
            }
        }
    }

    /// Has its close reset it, where its end would pass for that of what was sent. With TLS nothing passes for an end but what says so.
    pub(crate) fn break_off(&self) {
        if let Self::Tcp(io) = self {
            // That it may fail harms nothing else.
            let _ = SockRef::from(io).set_linger(Some(Duration::ZERO));
        }
    }
}

impl std::fmt::Debug for Io {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp(_) => "Tcp",
            Self::Layered(_) => "Layered",
        })
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Layered(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Layered(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Self::Layered(io) => Pin::new(io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Layered(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) => Poll::Ready(Ok(())),
            Self::Layered(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Layered(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

/// A connection whose first bytes were read already.
#[derive(Debug)]
pub(crate) struct Rewound {
    first: BytesMut,
    io: Io,
}

impl Rewound {
    pub(crate) fn new(first: BytesMut, io: Io) -> Self {
        let mut rewound = Self { first, io };
        rewound.rest();
        rewound
    }

    /// Gives the buffer back once there is nothing in it.
    fn rest(&mut self) {
        if self.first.is_empty() {
            buffers::give(std::mem::take(&mut self.first));
        }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let count = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.split_to(count));
        self.rest();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
