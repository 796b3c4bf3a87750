//! A body that is encoded on its way.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};

use super::encoding::{Encoder, Encoding, Share};
use crate::{
    body::{BodyError, ResponseBody, Wrapping},
    metrics::Metrics,
};

/// The most that goes into the encoder at once, in bytes.
const SLICE_BYTES: usize = 16 * 1024;
/// The most that goes into it before others have their turn: a millisecond or so of a core.
const TURN_BYTES: usize = 32 * 1024;
/// Less output than this waits for more, as long as there is more to come at once.
const OUTPUT_BYTES_MIN: usize = 4 * 1024;

/// A body that is encoded on its way.
pub(super) struct Encoded {
    source: ResponseBody,
    encoding: Encoding,
    /// None once all is put out.
    encoder: Option<Encoder>,
    /// Of the source, not yet in the encoder.
    input: Bytes,
    /// What comes after the last byte.
    trailers: Option<Frame<Bytes>>,
    /// How much went in since others had their turn, in bytes.
    worked_bytes: usize,
    unflushed: Unflushed,
    metrics: Arc<Metrics>,
    _share: Share,
}

/// Whether the encoder holds back what it was given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unflushed {
    Nothing,
    Some,
    /// And whoever makes the source has had a turn to make more of it.
    Waited,
}

impl Encoded {
    pub(super) fn new(
        source: ResponseBody,
        encoding: Encoding,
        encoder: Encoder,
        (share, metrics): (Share, Arc<Metrics>),
    ) -> Self {
        Self {
            source,
            encoding,
            encoder: Some(encoder),
            input: Bytes::new(),
            trailers: None,
            worked_bytes: 0,
            unflushed: Unflushed::Nothing,
            metrics,
            _share: share,
        }
    }

    /// Encodes a slice of the input; the output, once there is enough.
    fn work(&mut self) -> Result<Option<Bytes>, BodyError> {
        let Some(encoder) = &mut self.encoder else { return Ok(None) };
        let slice = self.input.split_to(self.input.len().min(SLICE_BYTES));
        encoder.write(&slice).map_err(BodyError::Encode)?;
        self.metrics.compressed_in[self.encoding as usize].add(slice.len() as u64);
        self.worked_bytes += slice.len();
        self.unflushed = Unflushed::Some;
        Ok((encoder.output().len() >= OUTPUT_BYTES_MIN).then(|| take(encoder)))
    }

    fn flush(&mut self) -> Result<Bytes, BodyError> {
        self.unflushed = Unflushed::Nothing;
        let Some(encoder) = &mut self.encoder else { return Ok(Bytes::new()) };
        encoder.flush().map_err(BodyError::Encode)?;
        Ok(take(encoder))
    }

    fn finish(&mut self) -> Result<Bytes, BodyError> {
        self.unflushed = Unflushed::Nothing;
        let Some(encoder) = self.encoder.take() else { return Ok(Bytes::new()) };
        Ok(encoder.finish().map_err(BodyError::Encode)?.into())
    }

    fn put_out(&self, bytes: Bytes) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.metrics.compressed_out[self.encoding as usize].add(bytes.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }
}

/// The output so far.
fn take(encoder: &mut Encoder) -> Bytes {
    std::mem::take(encoder.output()).into()
}

impl Body for Encoded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        loop {
            if this.encoder.is_none() {
                return Poll::Ready(this.trailers.take().map(Ok));
            }
            if !this.input.is_empty() {
                if this.worked_bytes >= TURN_BYTES {
                    this.worked_bytes = 0;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                match this.work()? {
                    Some(output) => return this.put_out(output),
                    None => continue,
                }
            }
            match Pin::new(&mut this.source).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.input = data,
                    Err(trailers) => {
                        this.trailers = Some(trailers);
                        let last = this.finish()?;
                        return this.put_out(last);
                    }
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => {
                    let last = this.finish()?;
                    return this.put_out(last);
                }
                Poll::Pending => {
                    this.worked_bytes = 0;
                    match this.unflushed {
                        Unflushed::Nothing => return Poll::Pending,
                        // hyper hands a body over in pieces, and reads the next when this one has been taken: it has its turn
                        // first. Each flush costs bytes.
                        Unflushed::Some => {
                            this.unflushed = Unflushed::Waited;
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Unflushed::Waited => {
                            let output = this.flush()?;
                            if !output.is_empty() {
                                return this.put_out(output);
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Wrapping for Encoded {
    fn inner(&mut self) -> Option<&mut ResponseBody> {
        Some(&mut self.source)
    }
}
