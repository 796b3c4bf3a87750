//! What a target answered, and what becomes of it where another answer is wanted.

use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;

use super::{answered::Answered, pool::Lease};
use crate::upload::RequestBody;

/// The most bytes of an answer that nobody wants that are read, so that its connection can be kept, and for how long.
const UNWANTED_BYTES_MAX: u64 = 64 * 1024;
const UNWANTED_WAIT: Duration = Duration::from_secs(2);

/// What a target answered, and what the exchange has of it.
pub(crate) struct Answer {
    pub(crate) response: Response<Answered>,
    pub(crate) lease: Lease,
    /// The request, where such an answer is one after which it may be sent again.
    pub(super) request: Option<Box<Request<RequestBody>>>,
}

impl Answer {
    /// Reads a small body to its end, so that the connection can be used again, and closes that of a larger one.
    pub(crate) fn throw_away(self) {
        let Self { response, lease, .. } = self;
        let mut body = response.into_body();
        if body.is_end_stream() {
            return;
        }
        if body.size_hint().upper().is_none_or(|bytes| bytes > UNWANTED_BYTES_MAX) {
            return;
        }
        tokio::task::spawn_local(async move {
            let reading = async { while let Some(Ok(_)) = body.frame().await {} };
            // A connection whose body has not come to its end ends with it.
            let _ = tokio::time::timeout(UNWANTED_WAIT, reading).await;
            drop(lease);
        });
    }
}
