//! Answers of the admin API, and its refusals as problem documents (RFC 9457).

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use model::{Code, Revision, Violation, api::Problem};
use serde::Serialize;

use crate::{
    admin::{Answer, Body},
    identity,
};

/// Why a request is not done.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: String,
    detail: String,
    violations: Vec<Violation>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self { status, code: code.to_owned(), detail: detail.into(), violations: Vec::new() }
    }

    /// Whether what was asked may have happened.
    pub(crate) fn is_unknown(&self) -> bool {
        self.status == StatusCode::GATEWAY_TIMEOUT
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    pub(crate) fn violations(violations: Vec<Violation>) -> Self {
        let detail = match violations.len() {
            1 => "one thing is wrong; nothing was changed".to_owned(),
            many => format!("{many} things are wrong; nothing was changed"),
        };
        Self { violations, ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail) }
    }

    /// Whether the config went on meanwhile.
    pub(crate) fn is_conflict(&self) -> bool {
        self.status == StatusCode::CONFLICT && self.code == "conflict"
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(crate) fn denied(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "denied", detail)
    }

    pub(crate) fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail)
    }

    pub(crate) fn timeout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", detail)
    }

    pub(crate) fn not_in_cluster() -> Self {
        let detail = "this node is in no cluster yet: gwctl cluster init, or gwctl cluster join";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_formed", detail)
    }

    pub(crate) fn removed() -> Self {
        let detail = "this node was removed from its cluster; nothing was changed. Ask another node; to have \
                      this one join again, stop it and empty its data folder";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "removed", detail)
    }

    pub(crate) fn of_code(code: Code, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, code.as_str(), detail)
    }

    pub(crate) fn response(self, request_id: &str) -> Response<Body> {
        let problem = Problem {
            kind: format!("urn:phalanx:problem:{}", self.code),
            title: self.status.canonical_reason().unwrap_or("Error").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code,
            violations: self.violations,
            request_id: request_id.to_owned(),
            more: Default::default(),
        };
        let mut response = json(self.status, &problem).unwrap_or_default();
        let kind = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = header::HeaderValue::from_static("Bearer realm=\"phalanx\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl From<raft::Error> for Refusal {
    fn from(error: raft::Error) -> Self {
        match error {
            raft::Error::Invalid(violations) => Self::violations(violations),
            raft::Error::NoQuorum => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "no_quorum", error.to_string())
            }
            raft::Error::TimedOut(_) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "unknown_outcome", error.to_string())
            }
            // 412 is for what If-Match and If-None-Match asked (RFC 9110, section 15.5.13); a handler knows.
            other => Self::of_code(other.code(), other.to_string()),
        }
    }
}

impl From<identity::Error> for Refusal {
    fn from(error: identity::Error) -> Self {
        Self::of_code(error.code(), error.to_string())
    }
}

/// A body that is there whole.
pub(super) fn whole(body: impl Into<Bytes>) -> Body {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            format!("the answer can't be written: {error}"),
        )
    })?;
    let mut response = Response::new(whole(body));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// A JSON answer read at `revision`, whose own revision (its ETag) is `etag`.
pub(crate) fn tagged(
    status: StatusCode,
    value: &impl Serialize,
    etag: Revision,
    revision: Revision,
) -> Answer {
    let mut response = json(status, value)?;
    let quoted = header::HeaderValue::from_str(&format!("\"{etag}\""));
    if let Ok(quoted) = quoted {
        response.headers_mut().insert(header::ETAG, quoted);
    }
    response.headers_mut().insert("x-phalanx-revision", header::HeaderValue::from(revision.0));
    Ok(response)
}

/// Nothing to say but that it is done.
pub(crate) fn done() -> Answer {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}
