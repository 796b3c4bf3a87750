//! What a target says of a connection of HTTP/2 in its settings, and who waits to know.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// How many streams h2 opens before the target has said how many it takes. By no other number it is told whether that was said; who counts
/// requests is [`Shares`](super::shared::Shares).
pub(super) const UNSAID: usize = usize::MAX - 1;

/// What a target says of one connection, kept up to date by whoever runs it.
#[derive(Debug)]
pub(super) struct Said {
    /// How many requests it takes at once on a connection, as it last said on any.
    streams_max: Rc<Cell<usize>>,
    /// How many it gets at most.
    limit: usize,
    /// Whether it takes WebSockets (RFC 8441, section 3); none before it has said anything.
    websockets: Cell<Option<bool>>,
    /// Whether the connection has ended.
    ended: Cell<bool>,
    news: Notify,
    /// Wakes whoever runs the connection.
    runner: RefCell<Option<Waker>>,
}

impl Said {
    /// Nothing yet, on a connection to a target that has last said so of all, and gets `limit` requests at once at most.
    pub(super) fn nothing(streams_max: Rc<Cell<usize>>, limit: usize) -> Rc<Self> {
        Rc::new(Self {
            streams_max,
            limit,
            websockets: Cell::new(None),
            ended: Cell::new(false),
            news: Notify::new(),
            runner: RefCell::new(None),
        })
    }

    /// How many requests it takes at once, and gets.
    pub(super) fn streams_max(&self) -> usize {
        self.streams_max.get().min(self.limit)
    }

    /// As h2 knows it now; whoever runs the connection is woken when there may be more to know.
    pub(super) fn hear(&self, streams_max: usize, websockets: bool, runner: &Waker) {
        if streams_max == UNSAID {
            *self.runner.borrow_mut() = Some(runner.clone());
            return;
        }
        self.streams_max.set(streams_max.max(1));
        if self.websockets.replace(Some(websockets)).is_none() {
            self.news.notify_waiters();
        }
    }

    /// The connection has ended.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.news.notify_waiters();
    }

    /// Whether it takes WebSockets, once it has said so; none if the connection ends before.
    pub(super) async fn websockets(&self) -> Option<bool> {
        loop {
            if self.ended.get() || self.websockets.get().is_some() {
                return self.websockets.get();
            }
            self.news.notified().await;
        }
    }
}

/// A connection's bytes. What comes of them wakes whoever runs it, until the target's settings are there.
#[derive(Debug)]
pub(super) struct Listened<S> {
    stream: S,
    said: Rc<Said>,
}

impl<S> Listened<S> {
    pub(super) fn new(stream: S, said: Rc<Said>) -> Self {
        Self { stream, said }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if self.said.websockets.get().is_none()
            && let Some(runner) = &*self.said.runner.borrow()
        {
            runner.wake_by_ref();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, task::noop_waker_ref};

    use super::*;

    fn said() -> Rc<Said> {
        Said::nothing(Rc::new(Cell::new(7)), 20)
    }

    #[test]
    fn until_it_has_said_something_it_is_not_known() {
        let said = said();
        let mut asked = Box::pin(said.websockets());
        said.hear(UNSAID, false, noop_waker_ref());
        assert_eq!((asked.as_mut().now_or_never(), said.streams_max()), (None, 7));
        said.hear(3, true, noop_waker_ref());
        assert_eq!((asked.now_or_never(), said.streams_max()), (Some(Some(true)), 3));
        said.hear(usize::MAX, true, noop_waker_ref());
        assert_eq!(said.streams_max(), 20);
        said.hear(0, false, noop_waker_ref());
        assert_eq!((said.websockets().now_or_never(), said.streams_max()), (Some(Some(false)), 1));
    }

    #[test]
    fn a_connection_that_ends_keeps_nobody_waiting() {
        let said = said();
        let mut asked = Box::pin(said.websockets());
        assert_eq!(asked.as_mut().now_or_never(), None);
        said.end();
        assert_eq!(asked.now_or_never(), Some(None));
    }
}
