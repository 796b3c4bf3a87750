//! A response's body on its way to the client, and with its end the end of the exchange.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};

use crate::{
    access::Note,
    after::Permit,
    connection::Connection,
    h1, headers,
    streams::Open,
    timer,
    upgrade::Tunnel,
    upstream::{answered::Answered, pace::Pace, pool::Lease},
    worker::Worker,
};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Its connection did, or the one who sends it.
    #[error(transparent)]
    Http(#[from] hyper::Error),
    /// Its connection did.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It has less than was said.
    #[error("it ends too soon")]
    Short,
    /// The client frames it badly.
    #[error(transparent)]
    Framing(h1::Fault),
    /// The target frames it badly.
    #[error("the target's answer is framed badly: {0}")]
    Target(h1::Fault),
    /// No more of it came in time.
    #[error("no more of the body came in time")]
    Timeout,
    /// It should be base64 and is not.
    #[error("the body is no base64")]
    Base64,
    /// It has more bytes than it may.
    #[error("a body is too large")]
    TooLarge,
    /// It could not be encoded.
    #[error("encode a body: {0}")]
    Encode(std::io::Error),
}

/// A response's body on its way to the client. With its end ends the exchange.
pub(crate) struct ResponseBody {
    source: Source,
    exchange: Option<Box<Ending>>,
}

/// A body that is another, changed on its way.
pub(crate) trait Wrapping: Body<Data = Bytes, Error = BodyError> + Unpin {
    /// The other, while there is more of it.
    fn inner(&mut self) -> Option<&mut ResponseBody>;
}

enum Source {
    Full(Bytes),
    /// Another, changed on its way.
    Wrapped(Box<dyn Wrapping>),
    /// A target's.
    Upstream(Box<OfTarget>),
    /// None: the connection becomes a tunnel.
    Tunnel(Box<Tunnel>),
}

/// A target's body, as it comes.
struct OfTarget {
    body: Answered,
    /// Its time limits.
    pace: Pace,
    /// What the exchange has of the target.
    #[expect(dead_code, reason = "ends when dropped")]
    lease: Lease,
}

impl Source {
    /// Whether there is no more.
    fn is_end(&self) -> bool {
        match self {
            Self::Tunnel(_) => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Wrapped(body) => body.is_end_stream(),
            Self::Upstream(of) => of.body.is_end_stream(),
        }
    }
}

/// What is to be done when an exchange ends, however it does.
pub(crate) struct Ending {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    /// Of HTTP/2, its stream.
    pub(crate) stream: Option<Open>,
    /// What the client is answered with.
    pub(crate) status: StatusCode,
    /// For the access log.
    pub(crate) note: Note,
    /// What counts as in flight until then.
    pub(crate) permits: Vec<Permit>,
    /// How many bytes of the response's body were taken.
    bytes_out: u64,
    began: Instant,
}

impl Ending {
    /// The exchange begins. Until it is answered its status is that of a client that went away.
    pub(crate) fn of(worker: Rc<Worker>, connection: Rc<Connection>, stream: Option<Open>) -> Self {
        connection.begin();
        Self {
            worker,
            connection,
            stream,
            status: StatusCode::REQUEST_TIMEOUT,
            note: Note::default(),
            permits: Vec::new(),
            bytes_out: 0,
            began: timer::refresh(),
        }
    }
}

impl ResponseBody {
    /// None.
    pub(crate) fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// These bytes.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self { source: Source::Full(bytes), exchange: None }
    }

    /// A target's.
    pub(crate) fn upstream(body: Answered, pace: Pace, lease: Lease) -> Self {
        Self { source: Source::Upstream(Box::new(OfTarget { body, pace, lease })), exchange: None }
    }

    /// Whether it is there as a whole, and no target's.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.source, Source::Full(_))
    }

    /// Puts in its place what is made of it.
    pub(crate) fn wrap<W: Wrapping + 'static>(&mut self, wrap: impl FnOnce(Self) -> W) {
        let inner = std::mem::replace(self, Self::empty());
        self.source = Source::Wrapped(Box::new(wrap(inner)));
    }

    /// None, after which the connection is a tunnel.
    pub(crate) fn tunnel(tunnel: Tunnel) -> Self {
        Self { source: Source::Tunnel(Box::new(tunnel)), exchange: None }
    }

    /// What the connection becomes, if it does not stay what it is.
    pub(crate) fn take_tunnel(&mut self) -> Option<Box<Tunnel>> {
        match std::mem::replace(&mut self.source, Source::Full(Bytes::new())) {
            Source::Tunnel(tunnel) => Some(tunnel),
            source => {
                self.source = source;
                None
            }
        }
    }

    /// The length of a body that is the gateway's own.
    pub(crate) fn own_length(&self) -> Option<u64> {
        match &self.source {
            Source::Full(bytes) => Some(bytes.len() as u64),
            _ => None,
        }
    }

    /// Goes on with a request that was answered before all of it was sent.
    pub(crate) fn poll_upload(&mut self, cx: &mut Context<'_>) {
        match &mut self.source {
            Source::Upstream(of) => {
                if let Answered::Own(body) = &mut of.body {
                    let _ = body.poll_upload(cx);
                }
            }
            Source::Wrapped(body) => body.inner().into_iter().for_each(|inner| inner.poll_upload(cx)),
            Source::Full(_) | Source::Tunnel(_) => {}
        }
    }

    /// The client is answered with this status after all.
    pub(crate) fn answers(&mut self, status: StatusCode) {
        if let Some(exchange) = &mut self.exchange {
            exchange.status = status;
        }
    }

    /// Ties the exchange's end to this body's.
    pub(crate) fn ends(&mut self, exchange: Box<Ending>) {
        if let Some(stream) = &exchange.stream
            && self.is_end_stream()
        {
            // An empty one is asked for nothing.
            stream.complete();
        }
        self.exchange = Some(exchange);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let duration = timer::refresh().saturating_duration_since(self.began);
        self.worker.metrics.answered(self.status, duration);
        if let Some((log, entry)) = self.worker.access.as_ref().zip(self.note.take()) {
            log.write(&entry, self.status, self.bytes_out, duration);
        }
        self.connection.end();
    }
}

/// A part of a target's body without what its trailers must not say.
fn cleaned(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        headers::clean_response_trailers(trailers);
    }
    frame
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if let Some(stream) = this.exchange.as_ref().and_then(|exchange| exchange.stream.as_ref()) {
            stream.asked();
        }
        let frame = match &mut this.source {
            Source::Tunnel(_) => None,
            Source::Full(bytes) if bytes.is_empty() => None,
            Source::Full(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::Wrapped(body) => std::task::ready!(Pin::new(&mut **body).poll_frame(cx)),
            Source::Upstream(of) => {
                let OfTarget { body, pace, .. } = &mut **of;
                let frame = Pin::new(body).poll_frame(cx);
                if pace.is_over(frame.is_pending(), cx) {
                    return Poll::Ready(Some(Err(BodyError::Timeout)));
                }
                std::task::ready!(frame).map(|frame| Ok(cleaned(frame?)))
            }
        };
        if let Some((exchange, Ok(frame))) = this.exchange.as_mut().zip(frame.as_ref()) {
            exchange.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        if let Some(stream) = this.exchange.as_ref().and_then(|exchange| exchange.stream.as_ref()) {
            match &frame {
                Some(Ok(frame)) => {
                    stream.given(frame.data_ref().map_or(0, Bytes::len));
                    if frame.is_trailers() || this.source.is_end() {
                        stream.complete();
                    }
                }
                None => stream.complete(),
                Some(Err(_)) => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Tunnel(_) => SizeHint::with_exact(0),
            Source::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Wrapped(body) => body.size_hint(),
            Source::Upstream(of) => of.body.size_hint(),
        }
    }
}
