//! A request's body: on its way to a target, or left behind where nobody wants it.

use std::{
    cell::{Cell, OnceCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header, request::Parts};
use http_body::{Body, Frame, SizeHint};

use crate::{
    body::BodyError, error::Fault, h1::wire::Rest, headers, incoming::Incoming, policy::grpc_web::FromBase64,
    streams::Stream, timer, upstream::Reading,
};

/// The most bytes of a body that nobody wants that are read, so that its connection can be kept.
pub(crate) const UNWANTED_BYTES_MAX: u64 = 64 * 1024;
/// How long an upload may stand still once its request is answered.
pub(crate) const UPLOAD_WAIT: Duration = Duration::from_secs(2);
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// How far a body has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// When its last byte was handed on ([`timer::now_ms`]); 0 before.
    ended_at_ms: Cell<u64>,
    /// How many bytes have been handed on.
    bytes: Cell<u64>,
    /// Since when no more was asked for than was handed on ([`timer::now_ms`]); 0 while the client is waited for.
    untaken_since_ms: Cell<u64>,
    /// Whether the client did not send it to its end.
    broke_off: Cell<bool>,
    /// Of HTTP/2, what is told of how it comes.
    stream: OnceCell<Rc<Stream>>,
    /// Of HTTP/1.1, what of it has not come yet.
    rest: OnceCell<Rest>,
    /// How many bytes it may have.
    bytes_max: Cell<Option<u64>>,
}

impl Progress {
    /// When its last byte was handed on ([`timer::now_ms`]).
    pub(crate) fn ended_at_ms(&self) -> Option<u64> {
        Some(self.ended_at_ms.get()).filter(|at| *at != 0)
    }

    /// Its last byte is handed on.
    pub(crate) fn end(&self) {
        self.ended_at_ms.set(timer::now_ms());
    }

    /// It is handed on once more, from its beginning.
    pub(crate) fn begin_again(&self) {
        self.ended_at_ms.set(0);
    }

    /// Since when no more was asked for than was handed on ([`timer::now_ms`]); 0 while the client is waited for.
    pub(crate) fn untaken_since_ms(&self) -> u64 {
        self.untaken_since_ms.get()
    }

    /// It may be asked for from now on.
    pub(crate) fn offered(&self) {
        self.untaken_since_ms.set(timer::now_ms());
    }

    /// What the client sends is not what it should be.
    fn break_off(&self) {
        self.broke_off.set(true);
    }

    /// Whether the client did not send it to its end.
    pub(crate) fn broke_off(&self) -> bool {
        self.broke_off.get()
    }

    /// Tells this stream how it comes.
    pub(crate) fn tell(&self, stream: &Rc<Stream>) {
        // Once, as it begins.
        let _ = self.stream.set(stream.clone());
    }

    /// How many bytes it may have, if it has come to more.
    pub(crate) fn exceeded(&self) -> Option<u64> {
        self.bytes_max.get().filter(|max| self.bytes.get() > *max)
    }

    /// How many bytes have been handed on, without the framing.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

/// The body that a client sends, until it is known who takes it.
pub(crate) struct Upload {
    /// None once it is on its way to a target.
    body: Option<Incoming>,
    progress: Rc<Progress>,
    /// Whether the client may wait for a 100 before it sends it.
    expected: bool,
}

impl Upload {
    /// The request's body, if it has one.
    pub(crate) fn of(head: &Parts, body: Incoming) -> Option<Self> {
        if body.is_end_stream() {
            return None;
        }
        let expected = head.headers.contains_key(header::EXPECT);
        let progress = Rc::<Progress>::default();
        if let Incoming::H1(body) = &body {
            // Once, as it begins.
            let _ = progress.rest.set(body.rest());
        }
        Some(Self { body: Some(body), progress, expected })
    }

    /// How far it has come.
    pub(crate) fn progress(&self) -> Rc<Progress> {
        self.progress.clone()
    }

    /// It may have no more bytes than these. An error if it says that it has.
    pub(crate) fn limit(&self, bytes_max: u64) -> Result<(), Fault> {
        let lowest = self.progress.bytes_max.get().map_or(bytes_max, |max| max.min(bytes_max));
        self.progress.bytes_max.set(Some(lowest));
        match &self.body {
            Some(body) if body.size_hint().lower() > lowest => Err(Fault::body_too_large(lowest)),
            _ => Ok(()),
        }
    }

    /// The body, to be sent to a target.
    pub(crate) fn take(&mut self) -> RequestBody {
        match self.body.take() {
            Some(body) => RequestBody::Incoming(body, self.progress.clone()),
            None => RequestBody::Empty,
        }
    }

    /// The request is answered by the gateway itself. A small part of the body that is still to come is read and thrown
    /// away, so that the next request can follow it. If there is more, or if the client may leave it out, or if what has come was
    /// not as it should be, the connection ends with the response, which says so (RFC 9110, sections 9.3 and 10.1.1; RFC 9112,
    /// section 9.6).
    pub(crate) fn leave(self, response: &mut HeaderMap) {
        if self.progress.ended_at_ms().is_some() {
            return;
        }
        let is_good = !self.expected && !self.progress.broke_off();
        match self.progress.rest.get().filter(|rest| is_good && rest.bytes_min() <= UNWANTED_BYTES_MAX) {
            Some(rest) => rest.throw_away(),
            None => {
                response.insert(header::CONNECTION, CLOSE);
            }
        }
    }
}

/// A request's body on its way to a target.
#[derive(Debug)]
pub(crate) enum RequestBody {
    /// None.
    Empty,
    /// The client's, as it comes.
    Incoming(Incoming, Rc<Progress>),
    /// The client's, kept as it comes in case it must be sent again.
    Kept(Reading),
    /// The gateway's own, until it is handed on.
    Full(Option<Bytes>),
    /// The client's, whose text is made bytes.
    Text(Box<Text>),
}

/// A body that comes as base64.
#[derive(Debug)]
pub(crate) struct Text {
    body: RequestBody,
    decoder: FromBase64,
}

impl RequestBody {
    /// Whether nothing of it was taken.
    pub(crate) fn is_untouched(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Incoming(_, progress) => {
                progress.bytes.get() == 0 && progress.ended_at_ms().is_none() && !progress.broke_off()
            }
            Self::Full(bytes) => bytes.is_some(),
            // It can be read from its beginning by whoever keeps it.
            Self::Kept(_) | Self::Text(_) => false,
        }
    }

    /// How far it has come, if there is one.
    pub(crate) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Incoming(_, progress) => Some(progress.clone()),
            Self::Kept(reading) => reading.progress(),
            Self::Full(_) => None,
            Self::Text(text) => text.body.progress(),
        }
    }

    /// The bytes of which it is the base64.
    pub(crate) fn decoded(self) -> Self {
        Self::Text(Box::new(Text { body: self, decoder: FromBase64::default() }))
    }
}

impl Text {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
            let Some(data) = frame.as_ref().and_then(Frame::data_ref) else {
                self.decoder.end()?;
                return Poll::Ready(frame.map(Ok));
            };
            let bytes = self.decoder.part(data)?;
            // A part of a group is nothing yet.
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Kept(reading) => Pin::new(reading).poll_frame(cx),
            Self::Text(text) => {
                let frame = ready!(text.poll_frame(cx));
                if let (Some(Err(_)), Some(progress)) = (&frame, text.body.progress()) {
                    progress.break_off();
                }
                Poll::Ready(frame)
            }
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Incoming(body, progress) => {
                let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) else {
                    progress.untaken_since_ms.set(0);
                    if let Some(stream) = progress.stream.get() {
                        stream.waits_for_more();
                    }
                    return Poll::Pending;
                };
                progress.untaken_since_ms.set(timer::now_ms());
                progress.broke_off.set(frame.as_ref().is_some_and(Result::is_err));
                let mut frame = frame;
                if let Some(Ok(frame)) = &mut frame {
                    let more = frame.data_ref().map_or(0, |data| data.len() as u64);
                    progress.bytes.set(progress.bytes.get() + more);
                    if let Some(stream) = progress.stream.get() {
                        stream.sent(more);
                    }
                    if progress.exceeded().is_some() {
                        progress.broke_off.set(true);
                        return Poll::Ready(Some(Err(BodyError::TooLarge)));
                    }
                    if let Some(trailers) = frame.trailers_mut() {
                        headers::clean_trailers(trailers);
                    }
                }
                if frame.is_none() || body.is_end_stream() {
                    progress.end();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Incoming(body, _) => body.is_end_stream(),
            Self::Kept(reading) => reading.is_end_stream(),
            Self::Text(text) => text.body.is_end_stream() && text.decoder.end().is_ok(),
            Self::Full(bytes) => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Incoming(body, _) => body.size_hint(),
            Self::Kept(reading) => reading.size_hint(),
            Self::Text(_) => SizeHint::default(),
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
