//! A client's connection, as its exchanges and the bodies of their requests share it.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;

use super::{
    Fault, buffers,
    decoder::{Decoded, Decoder},
    io::Io,
    request::{Head, Reader},
};
use crate::{body::BodyError, connection::Watch, settings::Limits};

/// What a read of a long body has room for.
const LONG_READ_BYTES: usize = 64 * 1024;
/// A body of which more than this is to come is read in long reads.
const LONG_BODY_BYTES: u64 = 16 * 1024;
/// How much a client may send ahead of the answer that it waits for.
const AHEAD_BYTES_MAX: usize = buffers::BYTES;

/// How many bytes of interim responses wait for a client that takes nothing, beside those of the first; more are left out.
const INTERIM_BYTES_MAX: usize = 64 * 1024;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection. What is written to it and what is read from it go on side by side.
pub(crate) struct Wire {
    pub(crate) io: RefCell<Io>,
    incoming: RefCell<Incoming>,
    watch: Arc<Watch>,
}

/// What a client sends.
struct Incoming {
    /// What has come and is not taken yet.
    buf: BytesMut,
    reader: Reader,
    /// Of the request at hand.
    decoder: Decoder,
    /// Counts requests, so that a body can tell whether it is that of the request at hand.
    number: u64,
    /// What is left to be written, or to be flushed, of the 100 that the client waits for.
    interim: Option<&'static [u8]>,
    /// What is left to be written, or to be flushed, of what targets have said before the answer.
    told: Option<BytesMut>,
    /// Whether the rest of the request's body is to be read and thrown away.
    unwanted: bool,
    /// Whether the client sends no more.
    ended: bool,
    /// Whether it has sent what is no request, so that nobody knows where what follows ends.
    bad: bool,
    /// How many bytes of bodies were taken.
    taken_bytes: u64,
    /// Whether whoever has the request's body has let go of it.
    given_up: bool,
    /// Who waits for others to take the request's body.
    waiting: Option<Waker>,
}

/// What comes next on a connection.
pub(crate) enum Next {
    /// A request.
    Request(Head),
    /// Something that is none.
    Bad(Fault),
    /// Nothing.
    End,
}

impl Wire {
    pub(crate) fn new(io: Io, watch: Arc<Watch>) -> Self {
        let incoming = Incoming {
            buf: BytesMut::new(),
            reader: Reader::default(),
            decoder: Decoder::length(0),
            number: 0,
            interim: None,
            told: None,
            unwanted: false,
            ended: false,
            bad: false,
            taken_bytes: 0,
            given_up: false,
            waiting: None,
        };
        Self { io: RefCell::new(io), incoming: RefCell::new(incoming), watch }
    }

    /// The next request's head.
    pub(crate) fn poll_next(&self, limits: &Limits, cx: &mut Context<'_>) -> Poll<Next> {
        let incoming = &mut *self.incoming.borrow_mut();
        loop {
            if !incoming.buf.is_empty() {
                match incoming.reader.read(&mut incoming.buf, limits) {
                    Ok(None) => {}
                    Ok(Some(head)) => return Poll::Ready(Next::Request(head)),
                    Err(fault) => {
                        incoming.bad = true;
                        return Poll::Ready(Next::Bad(fault));
                    }
                }
            }
            if incoming.ended {
                return Poll::Ready(Next::End);
            }
            match self.poll_fill(incoming, buffers::BYTES, cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => incoming.ended = true,
                Poll::Pending => {
                    self.watch.reading(!incoming.buf.is_empty(), true);
                    incoming.rest();
                    return Poll::Pending;
                }
            }
        }
    }

    /// Whether nothing of a next request has come.
    pub(crate) fn is_between(&self) -> bool {
        self.incoming.borrow().buf.is_empty()
    }

    /// Begins to read the body of the request at hand.
    pub(crate) fn begin(self: &Rc<Self>, decoder: Decoder, expects: bool) -> Option<RequestBytes> {
        let incoming = &mut *self.incoming.borrow_mut();
        incoming.interim = expects.then_some(CONTINUE);
        (incoming.unwanted, incoming.given_up) = (false, false);
        incoming.decoder = decoder;
        incoming.number += 1;
        (!incoming.decoder.is_done()).then(|| RequestBytes { wire: self.clone(), number: incoming.number })
    }

    /// Whether the request's body has come whole.
    pub(crate) fn is_read(&self) -> bool {
        self.incoming.borrow().decoder.is_done()
    }

    /// Whether the rest of the request's body is to be read and thrown away.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.incoming.borrow().unwanted
    }

    /// The final answer is on its way: there is no 100 any more, but for what is left of one that was begun. That is written to `out`, and what is left of what
    /// targets have said before.
    pub(crate) fn answering(&self, out: &mut Vec<u8>) {
        let incoming = &mut *self.incoming.borrow_mut();
        if let Some(left) = incoming.interim.take().filter(|left| left.len() < CONTINUE.len()) {
            out.extend_from_slice(left);
        }
        if let Some(told) = incoming.told.take() {
            out.extend_from_slice(&told);
        }
    }

    /// Has these interim responses of a target written, after what was begun.
    pub(crate) fn tell(&self, heads: &[u8]) {
        if heads.is_empty() {
            return;
        }
        let incoming = &mut *self.incoming.borrow_mut();
        let told = incoming.told.get_or_insert_default();
        if !told.is_empty() && told.len() + heads.len() > INTERIM_BYTES_MAX {
            return;
        }
        if let Some(left) = incoming.interim.take_if(|left| left.len() < CONTINUE.len()) {
            told.extend_from_slice(left);
        }
        told.extend_from_slice(heads);
    }

    /// Writes what is left of what targets have said before the answer.
    pub(crate) fn poll_told(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write_told(&mut self.incoming.borrow_mut(), cx)
    }

    fn poll_write_told(&self, incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(told) = &mut incoming.told {
            ready!(self.poll_write(told, cx))?;
            incoming.told = None;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the client has gone, while it waits for an answer. Some of what it sends ahead is read for that, once others have taken the
    /// request's body: who does learns of its end before.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let incoming = &mut *self.incoming.borrow_mut();
        if !incoming.decoder.is_done() {
            incoming.wait(cx);
        }
        while incoming.decoder.is_done() && incoming.buf.len() < AHEAD_BYTES_MAX {
            match ready!(self.poll_fill(incoming, buffers::BYTES, cx)) {
                Ok(1..) => {}
                _ => {
                    incoming.ended = true;
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }

    /// Reads so much of what is left of the request's body, and throws it away; true at its end.
    pub(crate) fn poll_read_away(&self, left: &mut u64, cx: &mut Context<'_>) -> Poll<bool> {
        let number = self.incoming.borrow().number;
        loop {
            match ready!(self.poll_body(number, cx)) {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(frame)) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                    match left.checked_sub(bytes) {
                        Some(still) => *left = still,
                        None => return Poll::Ready(false),
                    }
                }
            }
        }
    }

    /// Waits for others to take the request's body: true at its end, false if they let go of it before.
    pub(crate) fn poll_taken(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let incoming = &mut *self.incoming.borrow_mut();
        if incoming.decoder.is_done() || incoming.given_up {
            return Poll::Ready(incoming.decoder.is_done());
        }
        incoming.wait(cx);
        Poll::Pending
    }

    /// How many bytes of requests' bodies were taken.
    pub(crate) fn taken_bytes(&self) -> u64 {
        self.incoming.borrow().taken_bytes
    }

    /// Whether the client may be sending still.
    pub(crate) fn is_sending(&self) -> bool {
        let incoming = self.incoming.borrow();
        !incoming.ended && (incoming.bad || !incoming.decoder.is_done() || !incoming.buf.is_empty())
    }

    /// The socket, and what has come on it and was not taken.
    pub(crate) fn into_parts(self) -> (Io, BytesMut) {
        let incoming = &mut *self.incoming.borrow_mut();
        (self.io.into_inner(), std::mem::take(&mut incoming.buf))
    }

    /// Reads what has come, into room for so many bytes.
    fn poll_fill(
        &self,
        incoming: &mut Incoming,
        room: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        buffers::make_room(&mut incoming.buf, room);
        let read = self.io.borrow_mut().poll_read_into(cx, &mut incoming.buf);
        if let Poll::Ready(Ok(bytes)) = read {
            self.watch.read(bytes);
        }
        read
    }

    /// What comes of the body of the request of this number.
    fn poll_body(&self, number: u64, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let incoming = &mut *self.incoming.borrow_mut();
        if incoming.number != number {
            return Poll::Ready(Some(Err(BodyError::Short)));
        }
        loop {
            match incoming.decoder.decode(&mut incoming.buf) {
                Ok(Decoded::Data(data)) => {
                    incoming.taken_bytes += data.len() as u64;
                    if incoming.decoder.is_done() {
                        incoming.wake();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Ok(Decoded::Trailers(trailers)) => {
                    incoming.wake();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(Decoded::End) => {
                    incoming.wake();
                    return Poll::Ready(None);
                }
                Err(fault) => {
                    incoming.given_up = true;
                    incoming.wake();
                    self.watch.refuse(fault);
                    return Poll::Ready(Some(Err(BodyError::Framing(fault))));
                }
                Ok(Decoded::More) => {}
            }
            if incoming.ended {
                return Poll::Ready(Some(Err(BodyError::Short)));
            }
            if incoming.interim.is_some() {
                ready!(self.poll_write_told(incoming, cx))?;
                if let Some(left) = &mut incoming.interim {
                    ready!(self.poll_write(left, cx))?;
                }
                incoming.interim = None;
            }
            let long = incoming.decoder.left().is_none_or(|left| left > LONG_BODY_BYTES);
            let room = if long { LONG_READ_BYTES } else { buffers::BYTES };
            match self.poll_fill(incoming, room, cx) {
                Poll::Ready(Ok(0)) => incoming.ended = true,
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Poll::Pending => {
                    self.watch.reading(true, false);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Writes these bytes.
    fn poll_write(&self, bytes: &mut impl Buf, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = &mut *self.io.borrow_mut();
        while bytes.has_remaining() {
            let count = ready!(Pin::new(&mut *io).poll_write(cx, bytes.chunk()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes.advance(count);
        }
        Pin::new(io).poll_flush(cx)
    }
}

impl Incoming {
    /// Has who waits for others woken.
    fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            self.waiting = Some(cx.waker().clone());
        }
    }

    /// Wakes who waits for others.
    fn wake(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    /// Gives the buffer back while there is nothing in it.
    fn rest(&mut self) {
        if self.buf.is_empty() {
            buffers::give(std::mem::take(&mut self.buf));
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.rest();
    }
}

/// The body of a request, read from its connection as it is asked for.
pub(crate) struct RequestBytes {
    wire: Rc<Wire>,
    number: u64,
}

/// What of the body of the request at hand has not come yet, whoever has the body.
pub(crate) struct Rest(Rc<Wire>);

impl Rest {
    /// How many bytes there are at the least.
    pub(crate) fn bytes_min(&self) -> u64 {
        self.0.incoming.borrow().decoder.left().unwrap_or(0)
    }

    /// Has it read and thrown away once the request is answered.
    pub(crate) fn throw_away(&self) {
        self.0.incoming.borrow_mut().unwanted = true;
    }
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rest")
    }
}

impl RequestBytes {
    /// What of it has not come yet.
    pub(crate) fn rest(&self) -> Rest {
        Rest(self.wire.clone())
    }
}

impl Drop for RequestBytes {
    fn drop(&mut self) {
        let incoming = &mut *self.wire.incoming.borrow_mut();
        if incoming.number == self.number {
            incoming.given_up = true;
            incoming.wake();
        }
    }
}

impl std::fmt::Debug for RequestBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestBytes")
    }
}

impl Body for RequestBytes {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.wire.poll_body(self.number, cx)
    }

    fn is_end_stream(&self) -> bool {
        let incoming = self.wire.incoming.borrow();
        incoming.number != self.number || incoming.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.wire.incoming.borrow().decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests;
