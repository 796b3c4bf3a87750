//! A connection to a target that tells since when the target has taken nothing of what is sent to it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::timer;

/// Since when a target has taken nothing of what is sent to it, as [`timer::now_ms`]; 0 if it does. Of one
/// thread; hyper's upgrades ask that it could be of others.
pub(crate) type HeldUp = Arc<AtomicU64>;

/// A connection to a target.
#[derive(Debug)]
pub(crate) struct Stream {
    io: TcpStream,
    held_up: HeldUp,
}

impl Stream {
    pub(crate) fn new(io: TcpStream) -> (Self, HeldUp) {
        let held_up = HeldUp::default();
        (Self { io, held_up: held_up.clone() }, held_up)
    }

    fn note(&self, waits: bool) {
        let since = self.held_up.load(Relaxed);
        if waits != (since != 0) {
            self.held_up.store(if waits { timer::now_ms() } else { 0 }, Relaxed);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.note(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.note(written.is_pending());
        written
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
