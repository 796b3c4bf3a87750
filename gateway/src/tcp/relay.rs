//! Bytes between two sockets, both ways as they come: each end is passed on for itself, and who takes nothing is sent nothing.

use std::{
    cell::RefCell,
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{timer, worker::Worker};

/// Read at once, at most: into a buffer of the worker's, so that a connection has none of its own while nothing waits to be taken.
const BUFFER_BYTES: usize = 32 * 1024;
/// Reads of one side before others have their turn.
const ROUNDS_MAX: usize = 16;
/// How long the side that has not ended may be silent once the other has, unless the limit for both is shorter: many who close a
/// connection send only the end of their own side, and wait for nothing.
const HALF_CLOSED_MS: u64 = 300_000;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Both sides have ended.
    Closed,
    /// The client broke off.
    ClientReset,
    /// The target broke off.
    TargetReset,
    /// Neither side has sent anything for too long.
    Idle,
}

/// One of the two ways.
#[derive(Debug, Default)]
struct Way {
    /// What the receiver has not taken yet, and how much of it it has.
    rest: Vec<u8>,
    taken: usize,
    /// Bytes that were read, and bytes that were taken.
    bytes: u64,
    sent: u64,
    /// The sender has said all.
    has_ended: bool,
    /// Nothing goes this way any more.
    is_over: bool,
}

/// Who is gone.
enum Gone {
    From,
    To,
}

impl Way {
    /// Moves what there is; ready once nothing goes this way any more.
    fn poll(
        &mut self,
        from: &mut TcpStream,
        to: &mut TcpStream,
        buffer: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Gone>> {
        if self.is_over {
            return Poll::Ready(Ok(()));
        }
        for _ in 0..ROUNDS_MAX {
            while self.taken < self.rest.len() {
                match ready!(Pin::new(&mut *to).poll_write(cx, &self.rest[self.taken..])) {
                    Ok(count) if count > 0 => {
                        self.taken += count;
                        self.sent += count as u64;
                    }
                    _ => return Poll::Ready(Err(Gone::To)),
                }
            }
            (self.rest, self.taken) = (Vec::new(), 0);
            if self.has_ended {
                // Who is gone already needs no end.
                let _ = SockRef::from(&*to).shutdown(Shutdown::Write);
                self.is_over = true;
                return Poll::Ready(Ok(()));
            }
            let mut read = ReadBuf::new(buffer);
            if ready!(Pin::new(&mut *from).poll_read(cx, &mut read)).is_err() {
                return Poll::Ready(Err(Gone::From));
            }
            let read = read.filled();
            self.bytes += read.len() as u64;
            self.has_ended = read.is_empty();
            if read.is_empty() {
                continue;
            }
            match Pin::new(&mut *to).poll_write(cx, read) {
                Poll::Ready(Ok(count)) if count == read.len() => {}
                Poll::Ready(Ok(count)) => self.rest = read.get(count..).unwrap_or_default().to_vec(),
                Poll::Pending => self.rest = read.to_vec(),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Gone::To)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A client's connection and the one to its target.
#[derive(Debug)]
pub(crate) struct Relay {
    client: TcpStream,
    target: TcpStream,
    up: Way,
    down: Way,
    /// How long neither may send, in milliseconds; 0 is for ever.
    idle_ms: u64,
    moved_at_ms: u64,
    /// The target has broken off while the client was sending.
    is_unheard: bool,
    /// How it ended is known.
    has_ended: bool,
}

impl Drop for Relay {
    fn drop(&mut self) {
        // One that is cut in the middle has not ended, and neither side is to take it for that.
        if !self.has_ended {
            for socket in [&self.client, &self.target] {
                reset(socket);
            }
        }
    }
}

impl Relay {
    /// Between these two, where the target is sent `first` before anything else, `read` bytes of which were the client's.
    pub(crate) fn new(
        client: TcpStream,
        target: TcpStream,
        (first, read): (Vec<u8>, usize),
        idle: Duration,
    ) -> Self {
        Self {
            client,
            target,
            up: Way { rest: first, bytes: read as u64, ..Way::default() },
            down: Way::default(),
            idle_ms: timer::millis(idle),
            moved_at_ms: timer::now_ms(),
            is_unheard: false,
            has_ended: false,
        }
    }

    /// Bytes that were read of the client and of the target.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.up.bytes, self.down.bytes)
    }

    /// Moves bytes to the end of both ways; `moved` is told whenever it has done what there was to do.
    pub(crate) async fn run(&mut self, worker: &Worker, mut moved: impl FnMut(&Self)) -> Ended {
        let mut alarm = Alarm { worker, slot: None, at_ms: 0 };
        std::future::poll_fn(move |cx| {
            let polled = BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(BUFFER_BYTES, 0);
                self.poll(buffer, cx)
            });
            moved(self);
            let polled = match polled {
                Poll::Pending if alarm.is_over(self.silent_until_ms(), cx) => Poll::Ready(Ended::Idle),
                polled => polled,
            };
            self.has_ended = polled.is_ready();
            polled
        })
        .await
    }

    fn poll(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<Ended> {
        let before = self.progress();
        let polled = self.poll_ways(buffer, cx);
        if self.progress() != before {
            self.moved_at_ms = timer::now_ms();
        }
        polled
    }

    fn poll_ways(&mut self, buffer: &mut [u8], cx: &mut Context<'_>) -> Poll<Ended> {
        let Self { client, target, up, down, .. } = self;
        match up.poll(client, target, buffer, cx) {
            Poll::Ready(Err(Gone::From)) => {
                return Poll::Ready(broke_off(Ended::ClientReset, up, target));
            }
            // What the target has said before it went is still to be taken.
            Poll::Ready(Err(Gone::To)) => {
                up.is_over = true;
                self.is_unheard = true;
            }
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        match down.poll(target, client, buffer, cx) {
            Poll::Ready(Err(Gone::From)) => Poll::Ready(broke_off(Ended::TargetReset, down, client)),
            Poll::Ready(Err(Gone::To)) => Poll::Ready(broke_off(Ended::ClientReset, up, target)),
            Poll::Ready(Ok(())) if self.is_unheard => Poll::Ready(Ended::TargetReset),
            Poll::Ready(Ok(())) if up.is_over => Poll::Ready(Ended::Closed),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Changes with every byte that is read or taken, and with each end.
    fn progress(&self) -> [(u64, u64, bool); 2] {
        [&self.up, &self.down].map(|way| (way.bytes, way.sent, way.is_over))
    }

    /// When it will have been silent for too long; none if there is no such time.
    fn silent_until_ms(&self) -> Option<u64> {
        let is_half = self.up.is_over || self.down.is_over;
        let of_all = Some(self.idle_ms).filter(|idle_ms| *idle_ms > 0);
        let limit_ms = of_all.into_iter().chain(is_half.then_some(HALF_CLOSED_MS)).min()?;
        Some(self.moved_at_ms.saturating_add(limit_ms))
    }
}

/// The side that `way` comes from broke off. Where it had not ended before, the other learns that what it has is not all.
fn broke_off(ended: Ended, way: &Way, other: &TcpStream) -> Ended {
    if !way.has_ended {
        reset(other);
    }
    ended
}

/// Has the socket reset its connection when it is closed.
fn reset(socket: &TcpStream) {
    // That it may fail harms nothing else.
    let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
}

/// Wakes a relay once it has been silent for too long. Set anew when it rings, and not for every byte.
struct Alarm<'w> {
    worker: &'w Worker,
    slot: Option<usize>,
    at_ms: u64,
}

impl Alarm<'_> {
    /// Whether that time has come; else it is set.
    fn is_over(&mut self, silent_until_ms: Option<u64>, cx: &Context<'_>) -> bool {
        let Some(until_ms) = silent_until_ms else { return false };
        let now_ms = timer::now_ms();
        if now_ms >= until_ms {
            return true;
        }
        if self.slot.is_none() || self.at_ms <= now_ms || self.at_ms > until_ms {
            self.at_ms = until_ms;
            self.worker.deadlines.set(&mut self.slot, until_ms, cx.waker());
        }
        false
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.worker.deadlines.unset(&mut self.slot);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn socket() -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        TcpStream::connect(listener.local_addr().unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_half_closed_is_not_silent_for_ever() {
        for (idle, open_ms, half_ms) in
            [(0, None, HALF_CLOSED_MS), (1_000, Some(1_000), 1_000), (600_000, Some(600_000), HALF_CLOSED_MS)]
        {
            let first = (Vec::new(), 0);
            let mut relay = Relay::new(socket().await, socket().await, first, Duration::from_millis(idle));
            let began_ms = relay.moved_at_ms;
            assert_eq!(relay.silent_until_ms(), open_ms.map(|ms| began_ms + ms));
            relay.up.is_over = true;
            assert_eq!(relay.silent_until_ms(), Some(began_ms + half_ms), "{idle}");
        }
    }
}
