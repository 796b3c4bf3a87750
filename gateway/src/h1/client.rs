//! A connection to a target, and one exchange on it.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Request, header};
use http_body::{Body, Frame, SizeHint};

use super::{
    Fault, buffers,
    decoder::{Decoded, Decoder},
    encode::{self, Framing},
    io::{Io, Rewound},
    lines::Lines,
    outbox::{Outbox, Unsent},
    response::{self, Head},
};
use crate::{
    body::BodyError,
    timer,
    upload::RequestBody,
    upstream::{
        breaker::Counted,
        pool::{Pool, Whose},
    },
};

/// The most interim responses to one request (RFC 9110, section 15.2).
const INTERIM_MAX: u8 = 16;
/// What a read of a long body has room for.
const LONG_READ_BYTES: usize = 64 * 1024;
/// A body of which more than this is to come is read in long reads.
const LONG_BODY_BYTES: u64 = 16 * 1024;

/// A connection to a target, between exchanges.
#[derive(Debug)]
pub(crate) struct Link {
    io: RefCell<Io>,
    /// Whose requests it is for; none if for any.
    pub(crate) whose: Option<Box<Whose>>,
    /// Its place among the connections of an upstream that limits them.
    counted: Option<Rc<Counted>>,
}

impl Link {
    pub(crate) fn new(io: Io, whose: Option<Box<Whose>>, counted: Option<Rc<Counted>>) -> Self {
        Self { io: RefCell::new(io), whose, counted }
    }

    /// Whether somebody waits for a connection who can't have this one.
    pub(crate) fn is_wanted(&self, waiting_here: u32) -> bool {
        self.counted.as_ref().is_some_and(|counted| counted.is_wanted(waiting_here))
    }

    /// Whether it stands, as far as is known, and its target has said nothing that it was not asked. Costs no system call
    /// while nothing has come.
    pub(crate) fn is_quiet(&self) -> bool {
        self.io.borrow_mut().is_quiet()
    }
}

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The target closed it before it had answered.
    #[error("it closed the connection without an answer")]
    Closed,
    /// The target answered what is no response.
    #[error("its answer is none: {0}")]
    Bad(Fault),
    /// The request's body broke off.
    #[error("the request's body broke off: {0}")]
    Request(BodyError),
}

/// A request and its response, on a connection of their own.
#[derive(Debug)]
pub(crate) struct Exchange {
    link: Link,
    request: Box<Request<RequestBody>>,
    /// None once the request is out, or is taken no further.
    outbox: Option<Outbox>,
    /// What has come and is not taken yet.
    buf: BytesMut,
    lines: Lines,
    /// Interim responses that have come, and their bytes.
    interims: u8,
    interim_bytes: usize,
    /// Whether something of the request has gone out.
    sent: bool,
    /// Whether the connection may be used again, as far as the request goes.
    clean: bool,
    /// Since when the target takes nothing ([`timer::now_ms`]); 0 if it does.
    held_since_ms: u64,
}

impl Exchange {
    /// Begins to send the request, whose target is in origin form.
    pub(crate) fn new(link: Link, request: Box<Request<RequestBody>>) -> Box<Self> {
        let framing = match (request.body(), request.headers().get(header::CONTENT_LENGTH)) {
            (RequestBody::Empty, None) => Framing::None,
            (RequestBody::Empty, Some(_)) => Framing::Length(0),
            (body, Some(_)) => body.size_hint().exact().map_or(Framing::Chunked, Framing::Length),
            _ => Framing::Chunked,
        };
        let outbox = Outbox::new(framing, |out| {
            encode::request(out, request.method(), request.uri(), request.headers(), framing);
        });
        Box::new(Self {
            link,
            request,
            outbox: Some(outbox),
            buf: BytesMut::new(),
            lines: Lines::default(),
            interims: 0,
            interim_bytes: 0,
            sent: false,
            clean: true,
            held_since_ms: 0,
        })
    }

    /// The request.
    pub(crate) fn request(&self) -> &Request<RequestBody> {
        &self.request
    }

    /// Since when the target takes nothing of what there is ([`timer::now_ms`]); 0 if it does.
    pub(crate) fn held_since_ms(&self) -> u64 {
        self.held_since_ms
    }

    /// The request, and whether nothing of it has gone out; else its body may have begun.
    pub(crate) fn into_request(self) -> (Box<Request<RequestBody>>, bool) {
        let unsent = !self.sent && self.request.body().is_untouched();
        (self.request, unsent)
    }

    /// The request without its body, which is sent on.
    pub(crate) fn take_head(&mut self) -> Box<Request<RequestBody>> {
        let body = std::mem::replace(self.request.body_mut(), RequestBody::Empty);
        std::mem::replace(&mut self.request, Box::new(Request::new(body)))
    }

    /// The connection, for what it becomes after a 101.
    fn into_tunnel(mut self) -> (Rewound, Option<Rc<Counted>>) {
        let Link { io, counted, .. } = self.link;
        (Rewound::new(std::mem::take(&mut self.buf), io.into_inner()), counted)
    }

    /// Sends what there is of the request; ready once it is out, or is taken no further.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let Some(outbox) = &mut self.outbox else { return Poll::Ready(Ok(())) };
        let sent = outbox.poll_send(&self.link.io, Pin::new(self.request.body_mut()), true, cx);
        self.sent |= outbox.written_bytes() > 0;
        if !outbox.waits() {
            self.held_since_ms = 0;
        } else if self.held_since_ms == 0 {
            self.held_since_ms = timer::now_ms();
        }
        let sent = ready!(sent);
        self.outbox = None;
        Poll::Ready(match sent {
            Ok(()) => {
                // All that was said to come is out. That its sender has ended may be said later, and to nobody.
                if let Some(progress) = self.request.body().progress()
                    && progress.ended_at_ms().is_none()
                {
                    progress.end();
                }
                Ok(())
            }
            Err(Unsent::Io(error)) if !self.sent => Err(Broken::Io(error)),
            Err(Unsent::Io(_)) => {
                // It may have answered before it stopped to listen.
                self.clean = false;
                Ok(())
            }
            Err(Unsent::Body(error)) => Err(Broken::Request(error)),
            Err(Unsent::Length) => Err(Broken::Request(BodyError::Short)),
        })
    }

    /// The next head: that of the answer, or of an interim response before it. Of these there may be so many, and all together may have as many
    /// bytes as one head.
    pub(crate) fn poll_head(&mut self, bytes_max: usize, cx: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Err(error));
        }
        loop {
            if !self.buf.is_empty() {
                let before = self.buf.len();
                let head = response::read(&mut self.lines, &mut self.buf, self.request.method(), bytes_max);
                if let Some(head) = head.map_err(Broken::Bad)? {
                    if head.is_interim() {
                        self.count_interim(before - self.buf.len(), bytes_max).map_err(Broken::Bad)?;
                    }
                    return Poll::Ready(Ok(head));
                }
            }
            if ready!(self.poll_fill(buffers::BYTES, cx))? == 0 {
                return Poll::Ready(Err(Broken::Closed));
            }
        }
    }

    fn count_interim(&mut self, bytes: usize, bytes_max: usize) -> Result<(), Fault> {
        self.interims += 1;
        self.interim_bytes += bytes;
        if self.interims > INTERIM_MAX {
            return Err(Fault::HeadersTooMany);
        }
        if self.interim_bytes > bytes_max { Err(Fault::HeadTooLarge) } else { Ok(()) }
    }

    /// Reads what has come, into room for so many bytes.
    fn poll_fill(&mut self, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        buffers::make_room(&mut self.buf, room);
        let read = self.link.io.borrow_mut().poll_read_into(cx, &mut self.buf);
        if read.is_pending() && self.buf.is_empty() {
            buffers::give(std::mem::take(&mut self.buf));
        }
        read
    }

    /// Puts the connection back among those that wait, if it can be used again, and leaves its buffer.
    fn finish(mut self, keep_alive: bool, pool: &Pool) -> BytesMut {
        let buf = std::mem::take(&mut self.buf);
        if keep_alive && self.clean && self.outbox.is_none() && buf.is_empty() {
            pool.give(self.link);
        }
        buf
    }
}

/// The body of a response, read from its connection as it is asked for. At its end the connection goes back to its pool;
/// dropped before, it is closed.
#[derive(Debug)]
pub(crate) struct ResponseBytes {
    /// None once both the request and the response are over.
    exchange: Option<Box<Exchange>>,
    decoder: Decoder,
    keep_alive: bool,
    pool: Rc<Pool>,
    /// What the connection was read into. It can be used again once nothing of the response is in use, and so is given back last.
    buf: BytesMut,
}

impl Drop for ResponseBytes {
    fn drop(&mut self) {
        buffers::give(std::mem::take(&mut self.buf));
    }
}

impl ResponseBytes {
    pub(crate) fn new(exchange: Box<Exchange>, decoder: Decoder, keep_alive: bool, pool: Rc<Pool>) -> Self {
        let mut body = Self { exchange: Some(exchange), decoder, keep_alive, pool, buf: BytesMut::new() };
        body.finish();
        body
    }

    /// Goes on with a request that was answered before all of it was sent; ready once nothing more of it is taken.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(exchange) = &mut self.exchange else { return Poll::Ready(()) };
        if ready!(exchange.poll_upload(cx)).is_err() {
            exchange.clean = false;
        }
        self.finish();
        Poll::Ready(())
    }

    /// The connection, for what it becomes after a 101.
    pub(crate) fn into_tunnel(mut self) -> Option<(Rewound, Option<Rc<Counted>>)> {
        self.exchange.take().map(|exchange| exchange.into_tunnel())
    }

    fn finish(&mut self) {
        if self.decoder.is_done()
            && let Some(exchange) = self.exchange.take_if(|exchange| exchange.outbox.is_none())
        {
            self.buf = exchange.finish(self.keep_alive, &self.pool);
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let Some(exchange) = &mut self.exchange else { return Poll::Ready(None) };
            let frame = match self.decoder.decode(&mut exchange.buf).map_err(BodyError::Target)? {
                Decoded::Data(data) => Some(Frame::data(data)),
                Decoded::Trailers(trailers) => Some(Frame::trailers(trailers)),
                Decoded::End => None,
                Decoded::More => {
                    let long = self.decoder.left().is_none_or(|left| left > LONG_BODY_BYTES);
                    let room = if long { LONG_READ_BYTES } else { buffers::BYTES };
                    if ready!(exchange.poll_fill(room, cx))? > 0 {
                        continue;
                    }
                    self.exchange = None;
                    let ended = matches!(self.decoder, Decoder::Close);
                    return Poll::Ready(if ended { None } else { Some(Err(BodyError::Short)) });
                }
            };
            self.finish();
            return Poll::Ready(frame.map(Ok));
        }
    }
}

impl Body for ResponseBytes {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let _ = this.poll_upload(cx);
        let frame = this.poll_data(cx);
        if matches!(frame, Poll::Ready(Some(Err(_)))) {
            this.exchange = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none() || self.decoder.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    use futures::task::noop_waker_ref;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn a_link_is_no_quieter_for_a_task_that_has_done_much() {
        for layered in [false, true] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            far.write_all(b"unasked").await.unwrap();
            near.readable().await.unwrap();
            let io = if layered { Io::Layered(Box::new(near)) } else { Io::Tcp(near) };
            let link = Link::new(io, None, None);
            let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
            (0..10_000).for_each(|number| sender.send(number).unwrap());
            let quiet = std::future::poll_fn(|cx| {
                // Until it is another task's turn.
                while receiver.poll_recv(cx).is_ready() {}
                Poll::Ready(link.is_quiet())
            });
            assert!(!quiet.await, "{layered}");
        }
    }

    #[tokio::test]
    async fn a_request_says_of_its_body_what_is_so() {
        for (said, want) in
            [(None, ""), (Some("0"), "content-length: 0\r\n"), (Some("5"), "content-length: 0\r\n")]
        {
            let (near, mut far) = tokio::io::duplex(1024);
            let mut request = Request::new(RequestBody::Empty);
            if let Some(said) = said {
                request.headers_mut().insert(header::CONTENT_LENGTH, said.parse().unwrap());
            }
            let link = Link::new(Io::Layered(Box::new(near)), None, None);
            let mut exchange = Exchange::new(link, Box::new(request));
            let mut cx = Context::from_waker(noop_waker_ref());
            assert!(exchange.poll_head(1024, &mut cx).is_pending());
            drop(exchange);
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, format!("GET / HTTP/1.1\r\n{want}\r\n"));
        }
    }
}
