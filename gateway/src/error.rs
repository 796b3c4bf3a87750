//! What can go wrong: with the data plane itself, and with a request, as the client is told.

use std::{borrow::Cow, io, net::SocketAddr, path::PathBuf, time::SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use model::Code;

use crate::{
    body::ResponseBody,
    exchange::{Form, Refusal},
    h1,
};

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener could not be had.
    #[error("listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The access log's file can't be opened.
    #[error("write the access log to {path}: {error}", path = path.display())]
    AccessLog {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A thread or its runtime could not be had.
    #[error("start a worker: {0}")]
    Worker(io::Error),
    /// The metrics' names are taken.
    #[error("register metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Error {
    /// Which of the nine outcomes it is.
    pub fn code(&self) -> Code {
        match self {
            Self::Listen { .. } => Code::Conflict,
            Self::AccessLog { .. } | Self::Worker(_) => Code::Unavailable,
            Self::Metrics(_) => Code::Conflict,
        }
    }
}

/// `X-Request-Id`.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// A request that is answered by the gateway itself, and why. What it says is for strangers: no addresses, no names of
/// upstreams, no texts of errors from within.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) code: Code,
    word: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
    close: bool,
    form: Option<Box<Form>>,
}

impl Fault {
    const fn new(status: StatusCode, code: Code, word: &'static str, title: &'static str) -> Self {
        Self { status, code, word, title, detail: Cow::Borrowed(""), close: false, form: None }
    }

    /// The request breaks a rule of HTTP on which security rests; its connection is not trusted with another.
    pub(crate) fn bad_request(detail: &'static str) -> Self {
        let detail = Cow::Borrowed(detail);
        Self {
            detail,
            close: true,
            ..Self::new(StatusCode::BAD_REQUEST, Code::Invalid, "invalid", "The request is not valid")
        }
    }

    /// The request target is too long.
    pub(crate) fn target_too_long() -> Self {
        Self {
            close: true,
            ..Self::new(
                StatusCode::URI_TOO_LONG,
                Code::Invalid,
                "target_too_long",
                "The request target is too long",
            )
        }
    }

    /// The version of HTTP is another one (RFC 9110, section 15.6.6).
    fn version() -> Self {
        Self {
            close: true,
            ..Self::new(
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
                Code::Invalid,
                "http_version",
                "This version of HTTP is not served here",
            )
        }
    }

    /// What the client expects is nothing that is known here (RFC 9110, section 10.1.1).
    pub(crate) fn expectation() -> Self {
        Self {
            close: true,
            ..Self::new(
                StatusCode::EXPECTATION_FAILED,
                Code::Invalid,
                "expectation",
                "What the request expects is not known here",
            )
        }
    }

    /// The head has too many header lines.
    pub(crate) fn headers_too_many() -> Self {
        Self {
            close: true,
            ..Self::new(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                Code::Invalid,
                "headers_too_large",
                "The request's headers are too many or too large",
            )
        }
    }

    /// What is wrong with a head that is no request.
    pub(crate) fn of_head(fault: h1::Fault) -> Self {
        match fault {
            h1::Fault::HeadTooLarge | h1::Fault::HeadersTooMany => Self::headers_too_many(),
            h1::Fault::TargetTooLong => Self::target_too_long(),
            h1::Fault::Version => Self::version(),
            fault => Self::bad_request(fault.detail()),
        }
    }

    /// No route takes the request.
    pub(crate) const NO_ROUTE: Self =
        Self::new(StatusCode::NOT_FOUND, Code::NotFound, "no_route", "No route takes this request");
    /// The target broke off, or said what is no HTTP.
    pub(crate) const BAD_GATEWAY: Self = Self::new(
        StatusCode::BAD_GATEWAY,
        Code::Unavailable,
        "bad_gateway",
        "The upstream could not be reached or gave no valid answer",
    );
    /// The target speaks HTTP/2 alone, and the request asks for an upgrade that it does not take.
    pub(crate) const NO_UPGRADE: Self = Self::new(
        StatusCode::BAD_GATEWAY,
        Code::Unavailable,
        "no_upgrade",
        "The upstream speaks HTTP/2, and does not take this upgrade in it",
    );
    /// The target gave no answer in time.
    pub(crate) const TIMEOUT: Self = Self::new(
        StatusCode::GATEWAY_TIMEOUT,
        Code::Timeout,
        "timeout",
        "The upstream did not answer in time",
    );
    /// The request has come through gateways like this one too often.
    pub(crate) const LOOP: Self = Self::new(
        StatusCode::LOOP_DETECTED,
        Code::Unavailable,
        "loop",
        "The request goes round in a circle of gateways",
    );
    /// The host asks its clients for more than this one has proved in its handshake (RFC 9110, section 15.5.20).
    pub(crate) const MISDIRECTED: Self = Self::new(
        StatusCode::MISDIRECTED_REQUEST,
        Code::Denied,
        "misdirected",
        "This host needs a connection of its own",
    );
    /// There is no target to ask.
    pub(crate) const UNAVAILABLE: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        Code::Unavailable,
        "unavailable",
        "No upstream takes requests for this route",
    );

    /// The upstream has as much to do as it may.
    pub(crate) const OVERFLOW: Self = Self::new(
        StatusCode::SERVICE_UNAVAILABLE,
        Code::Unavailable,
        "overflow",
        "The upstream has as much to do as it may",
    );

    /// The request's body has more bytes than it may.
    pub(crate) fn body_too_large(bytes_max: u64) -> Self {
        let Refusal { code, detail, form, .. } = Refusal::body_too_large(bytes_max);
        Self::refusal(code, detail, form)
    }

    /// What a policy says no with.
    pub(crate) fn refusal(code: Code, detail: impl Into<Cow<'static, str>>, form: Option<Box<Form>>) -> Self {
        let title = match code {
            Code::Ok | Code::Invalid => "The request is not valid",
            Code::Unauthenticated => "The request's credentials are missing or not valid",
            Code::Denied => "The request is not allowed",
            Code::NotFound => "There is no such thing",
            Code::Conflict => "The request does not fit the present state",
            Code::Exhausted => "Too many requests",
            Code::Unavailable => "The service is not available now",
            Code::Timeout => "The request took too long",
        };
        let unusual = form.as_ref().and_then(|form| form.status);
        let usual = || StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let status = unusual.unwrap_or_else(usual);
        let named = form.as_ref().and_then(|form| form.named);
        let (word, title) = named.unwrap_or((code.as_str(), title));
        Self { detail: detail.into(), form, ..Self::new(status, code, word, title) }
    }

    /// The code in the problem document, if the response has that and not a body of its own.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let has_own = self.form.as_ref().is_some_and(|form| form.body.is_some());
        (!has_own).then_some(self.word)
    }

    /// The problem document (RFC 9457).
    fn document(&self, request_id: &HeaderValue) -> String {
        let mut document = serde_json::json!({
            "type": format!("urn:phalanx:problem:{}", self.word),
            "title": self.title,
            "status": self.status.as_u16(),
            "code": self.word,
            "request_id": request_id.to_str().unwrap_or_default(),
        });
        if !self.detail.is_empty() {
            document["detail"] = self.detail.as_ref().into();
        }
        if let Some(form) = &self.form {
            if let Some((kind, title)) = form.problem {
                (document["type"], document["title"]) = (kind.into(), title.into());
            }
            for (member, value) in &form.members {
                document[member] = value.clone();
            }
        }
        document.to_string()
    }

    /// The whole response as bytes, after which the connection is closed: for a request that never became an exchange.
    pub(crate) fn message(&self, request_id: &HeaderValue) -> Bytes {
        let document = self.document(request_id);
        let id = request_id.to_str().unwrap_or_default();
        let date = httpdate::fmt_http_date(SystemTime::now());
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\nx-request-id: {id}\r\nconnection: close\r\n\
             content-length: {}\r\ndate: {date}\r\n\r\n",
            self.status,
            document.len(),
        );
        Bytes::from(head + &document)
    }

    /// What it says, for people.
    pub(crate) fn text(&self) -> &str {
        if self.detail.is_empty() { self.title } else { &self.detail }
    }

    /// The response of an exchange.
    pub(crate) fn response(&self, request_id: &HeaderValue) -> Response<ResponseBody> {
        let body = self.form.as_ref().and_then(|form| form.body.clone());
        let (kind, body) = body.unwrap_or_else(|| (PROBLEM_JSON, Bytes::from(self.document(request_id))));
        let mut response = Response::new(ResponseBody::full(body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        self.mark(response.headers_mut(), request_id);
        response
    }

    /// Puts in what all responses have that the gateway makes.
    pub(crate) fn mark(&self, headers: &mut HeaderMap, request_id: &HeaderValue) {
        headers.insert(X_REQUEST_ID, request_id.clone());
        if self.close {
            headers.insert(header::CONNECTION, CLOSE);
        }
    }
}
