//! The body of a target's answer, whatever it speaks.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;

use crate::{body::BodyError, h1::client::ResponseBytes};

/// The body of a target's answer.
#[derive(Debug)]
pub(crate) enum Answered {
    /// On a connection of its own, in HTTP/1.1.
    Own(ResponseBytes),
    /// On one that it shares, in HTTP/2.
    Shared(Incoming),
    /// None: a stream of HTTP/2 that is a tunnel now.
    Switched(TokioIo<Upgraded>),
}

impl Body for Answered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx),
            Self::Shared(body) => {
                Pin::new(body).poll_frame(cx).map(|frame| Some(frame?.map_err(BodyError::from)))
            }
            Self::Switched(_) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Shared(body) => body.is_end_stream(),
            Self::Switched(_) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Shared(body) => body.size_hint(),
            Self::Switched(_) => SizeHint::with_exact(0),
        }
    }
}
