//! A request's body that is kept as it goes by, so that it can be sent once more from its beginning.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::{body::BodyError, upload::RequestBody};

/// What all bodies that a worker keeps may take together, in bytes: theirs, and those that it takes to keep them in the parts in
/// which they came.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// How many bytes a worker takes to keep bodies.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeptBytes(Rc<Cell<usize>>);

/// A body, and what has come of it so far; kept whole up to a bound, and above it not at all.
#[derive(Debug)]
pub(crate) struct Replay {
    source: RefCell<Source>,
    bytes_max: usize,
    all: KeptBytes,
    /// Which reading is the last; earlier ones are over.
    reading: Cell<u32>,
}

#[derive(Debug)]
struct Source {
    body: RequestBody,
    frames: Vec<Part>,
    /// Of the body, in `frames`.
    bytes: usize,
    /// Whether all that has come is in `frames`.
    is_whole: bool,
    is_at_end: bool,
}

#[derive(Debug, Clone)]
enum Part {
    Data(Bytes),
    /// Large, and rare.
    Trailers(Box<HeaderMap>),
}

/// One reading of a body from its beginning.
#[derive(Debug)]
pub(crate) struct Reading {
    replay: Rc<Replay>,
    number: u32,
    next: usize,
}

impl Replay {
    /// Keeps this body up to so many bytes.
    pub(crate) fn of(body: RequestBody, bytes_max: usize, all: &KeptBytes) -> Rc<Self> {
        let source = Source { body, frames: Vec::new(), bytes: 0, is_whole: true, is_at_end: false };
        Rc::new(Self { source: source.into(), bytes_max, all: all.clone(), reading: Cell::new(0) })
    }

    /// The body from its beginning; none if that is not kept any more. A reading before this one is over.
    pub(crate) fn again(self: Rc<Self>) -> Option<RequestBody> {
        if !self.is_whole() {
            return None;
        }
        let number = self.reading.get().wrapping_add(1);
        self.reading.set(number);
        if let Some(progress) = self.source.borrow().body.progress() {
            progress.begin_again();
        }
        Some(RequestBody::Kept(Reading { replay: self, number, next: 0 }))
    }

    /// The body from its beginning, for one more reader beside the present one; none unless all of it has come and is kept.
    pub(crate) fn beside(self: Rc<Self>) -> Option<RequestBody> {
        let number = self.reading.get();
        self.has_all().then_some(RequestBody::Kept(Reading { replay: self, number, next: 0 }))
    }

    /// Whether all of it has come and is kept.
    fn has_all(&self) -> bool {
        let source = self.source.borrow();
        source.is_whole && (source.is_at_end || source.body.is_end_stream())
    }

    /// All of it, without its trailers; none if it is not kept whole, or has not come to its end.
    pub(crate) fn copy(&self) -> Option<Bytes> {
        if !self.has_all() {
            return None;
        }
        let source = self.source.borrow();
        let parts = source.frames.iter().filter_map(|part| match part {
            Part::Data(data) => Some(data),
            Part::Trailers(_) => None,
        });
        let mut parts = parts.peekable();
        let first = parts.next().cloned().unwrap_or_default();
        Some(if parts.peek().is_none() {
            first
        } else {
            [&first].into_iter().chain(parts).flat_map(|data| data.iter().copied()).collect()
        })
    }

    /// Whether all that has come is kept.
    pub(crate) fn is_whole(&self) -> bool {
        self.source.borrow().is_whole
    }
}

impl Source {
    /// Keeps a part, or gives everything up if that would be too much.
    fn keep(&mut self, part: Part, bytes_max: usize, all: &Cell<usize>) {
        let more = match &part {
            Part::Data(data) => data.len(),
            Part::Trailers(trailers) => {
                trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
            }
        };
        let bytes = self.bytes + more;
        let taken = more + size_of::<Part>();
        if bytes > bytes_max || all.get() + taken > KEPT_BYTES_MAX {
            self.give_up(all);
        } else if self.is_whole {
            self.bytes = bytes;
            all.set(all.get() + taken);
            self.frames.push(part);
        }
    }

    fn give_up(&mut self, all: &Cell<usize>) {
        all.set(all.get() - self.bytes - self.frames.len() * size_of::<Part>());
        (self.bytes, self.is_whole, self.frames) = (0, false, Vec::new());
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.source.get_mut().give_up(&self.all.0);
    }
}

impl Reading {
    /// What keeps the body, if nobody else has it who would read it again.
    pub(super) fn kept_by_no_other(&self) -> Option<Rc<Replay>> {
        (Rc::strong_count(&self.replay) == 1).then(|| self.replay.clone())
    }

    /// How far the body has come.
    pub(crate) fn progress(&self) -> Option<Rc<crate::upload::Progress>> {
        self.replay.source.borrow().body.progress()
    }
}

impl Body for Reading {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let replay = &*this.replay;
        if this.number != replay.reading.get() {
            // Another attempt has the body now; nothing more is sent on this connection.
            return Poll::Pending;
        }
        let source = &mut *replay.source.borrow_mut();
        if let Some(part) = source.frames.get(this.next) {
            this.next += 1;
            let is_last =
                this.next == source.frames.len() && (source.is_at_end || source.body.is_end_stream());
            // Another reader may have been there before.
            let progress = source.body.progress().filter(|progress| progress.ended_at_ms().is_none());
            if is_last && let Some(progress) = progress {
                progress.end();
            }
            return Poll::Ready(Some(Ok(match part.clone() {
                Part::Data(data) => Frame::data(data),
                Part::Trailers(trailers) => Frame::trailers(*trailers),
            })));
        }
        if source.is_at_end {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut source.body).poll_frame(cx));
        match &frame {
            None => source.is_at_end = true,
            Some(Ok(frame)) => {
                let data = frame.data_ref().cloned().map(Part::Data);
                let part = data.or_else(|| Some(Part::Trailers(Box::new(frame.trailers_ref()?.clone()))));
                if let Some(part) = part {
                    source.keep(part, replay.bytes_max, &replay.all.0);
                    this.next = source.frames.len();
                }
            }
            // What the client did not send can't be sent again.
            Some(Err(_)) => source.give_up(&replay.all.0),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let source = self.replay.source.borrow();
        self.next >= source.frames.len() && (source.is_at_end || source.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.replay.source.borrow();
        let rest = source.body.size_hint();
        let ahead = source.frames.iter().skip(self.next).map(|part| match part {
            Part::Data(data) => data.len() as u64,
            Part::Trailers(_) => 0,
        });
        let ahead: u64 = ahead.sum();
        let mut hint = SizeHint::new();
        hint.set_lower(ahead + rest.lower());
        if let Some(upper) = rest.upper() {
            hint.set_upper(ahead + upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_takes_to_keep_a_body_in_small_parts_is_counted() {
        let all = KeptBytes::default();
        let replay = Replay::of(RequestBody::Empty, 1_000, &all);
        for _ in 0..1_000 {
            let part = Part::Data(Bytes::from_static(b"x"));
            replay.source.borrow_mut().keep(part, replay.bytes_max, &all.0);
        }
        assert!(replay.is_whole() && all.0.get() >= 1_000 * size_of::<Part>(), "{all:?}");
        replay.source.borrow_mut().keep(Part::Data(Bytes::from_static(b"x")), replay.bytes_max, &all.0);
        assert!(!replay.is_whole() && all.0.get() == 0);
    }
}
