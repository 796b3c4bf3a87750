//! What of a request is kept to send it again, on what that is done, and when.

use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Method, Request, StatusCode, header};
use model::upstream::{Backoff, Condition, Retry};

use super::replay::Replay;
use crate::{chance, upload::RequestBody};

/// What can go wrong with an attempt, of which an upstream names some.
#[derive(Debug)]
pub(crate) struct Conditions {
    connect: bool,
    reset: bool,
    timeout: bool,
    /// Empty for nearly everyone, whose answers are then looked at no further.
    statuses: Box<[Condition]>,
}

impl Conditions {
    /// Those named, or else the usual ones.
    pub(crate) fn of(named: &[Condition], usual: &[Condition]) -> Self {
        let on = if named.is_empty() { usual } else { named };
        let is_status = |condition: &Condition| {
            matches!(condition, Condition::GatewayError | Condition::ServerError | Condition::Status(_))
        };
        Self {
            connect: on.contains(&Condition::Connect),
            reset: on.contains(&Condition::Reset),
            timeout: on.contains(&Condition::Timeout),
            statuses: on.iter().copied().filter(is_status).collect(),
        }
    }

    /// Whether an attempt that came to nothing for this reason is among them.
    pub(crate) fn has_failure(&self, why: Why) -> bool {
        match why {
            Why::Connect => self.connect,
            Why::Reset | Why::Nonsense => self.reset,
            Why::Timeout => self.timeout,
            Why::Status | Why::Client | Why::Overflow => false,
        }
    }

    /// Whether an answer of this status is.
    pub(crate) fn has_status(&self, status: StatusCode) -> bool {
        self.statuses.iter().any(|condition| condition.is_status(status.as_u16()))
    }
}

/// An upstream's rule of what is tried again, ready to be asked.
#[derive(Debug)]
pub(crate) struct Rule {
    on: Conditions,
    /// Empty is the idempotent ones.
    methods: Box<[Method]>,
}

impl Rule {
    pub(crate) fn of(retry: &Retry) -> Self {
        Self {
            on: Conditions::of(&retry.on, &[Condition::Connect, Condition::Reset]),
            methods: retry.methods.iter().filter_map(|method| method.parse().ok()).collect(),
        }
    }

    /// Whether a request of this method may be sent twice.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        if self.methods.is_empty() { method.is_idempotent() } else { self.methods.contains(method) }
    }

    /// Whether an attempt that came to nothing for this reason is made again.
    pub(crate) fn takes_failure(&self, why: Why) -> bool {
        // Who answers nonsense has had the request, and may answer the next one so that it looks like sense.
        why != Why::Nonsense && self.on.has_failure(why)
    }

    /// Whether a request that is answered so is sent again.
    pub(crate) fn takes_answer(&self, status: StatusCode) -> bool {
        self.on.has_status(status)
    }
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// No connection could be had.
    Connect,
    /// The connection broke before an answer.
    Reset,
    /// There was no answer in time.
    Timeout,
    /// It was answered with a status that says so.
    Status,
    /// What came was no answer that could be passed on.
    Nonsense,
    /// The client broke off, or what it sends is framed badly.
    Client,
    /// The upstream has as much to do as it may.
    Overflow,
}

impl Why {
    /// The same for people.
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::Connect => "no connection could be had",
            Self::Reset => "the connection broke before the answer",
            Self::Timeout => "there was no answer in time",
            Self::Status | Self::Nonsense => "what it answered can't be passed on",
            Self::Client => "the client broke off",
            Self::Overflow => "it has as much to do as it may",
        }
    }

    /// Whether the target is at fault.
    pub(crate) fn is_to_blame(self) -> bool {
        !matches!(self, Self::Client | Self::Overflow)
    }
}

/// What there is of the body of a request that may be sent again.
pub(crate) enum Kept {
    /// It has none.
    Empty,
    /// What has come of it.
    Body(Rc<Replay>),
}

impl Kept {
    /// The request with its body from the beginning; none if that is not there any more.
    pub(crate) fn again(&self, mut request: Box<Request<RequestBody>>) -> Option<Box<Request<RequestBody>>> {
        *request.body_mut() = match self {
            Self::Empty => RequestBody::Empty,
            Self::Body(replay) => replay.clone().again()?,
        };
        Some(request)
    }

    /// The request with a body of its own, beside those that have it already; none unless all of the body has come and is kept.
    pub(crate) fn beside(&self, mut request: Box<Request<RequestBody>>) -> Option<Box<Request<RequestBody>>> {
        *request.body_mut() = match self {
            Self::Empty => RequestBody::Empty,
            Self::Body(replay) => replay.clone().beside()?,
        };
        Some(request)
    }

    /// Whether the body is there from its beginning.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Body(replay) => replay.is_whole(),
        }
    }
}

/// The request without its body.
pub(crate) fn bare(request: &Request<RequestBody>) -> Box<Request<RequestBody>> {
    let mut bare = Box::new(Request::new(RequestBody::Empty));
    bare.method_mut().clone_from(request.method());
    bare.uri_mut().clone_from(request.uri());
    bare.headers_mut().clone_from(request.headers());
    bare
}

/// How long to wait before the retry of this number, from 0: by chance up to a bound that doubles.
pub(crate) fn wait(backoff: &Backoff, retry: u32) -> Duration {
    let most = backoff.base.saturating_mul(1 << retry.min(16)).min(backoff.max);
    let ns = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(chance::below(ns))
}

/// How long an answer asks to be left alone (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        Rule::of(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn unless_told_only_what_broke_is_tried_again_and_only_what_is_idempotent() {
        let usual = rule("{}");
        assert!(usual.takes_failure(Why::Connect) && usual.takes_failure(Why::Reset));
        assert!(!usual.takes_failure(Why::Timeout) && !usual.takes_answer(StatusCode::SERVICE_UNAVAILABLE));
        assert!(usual.takes(&Method::GET) && usual.takes(&Method::DELETE));
        assert!(!usual.takes(&Method::POST) && !usual.takes(&Method::PATCH));
    }

    #[test]
    fn what_is_named_is_all_there_is() {
        let told = rule(r#"{"on":["timeout","gateway_error",429],"methods":["POST"]}"#);
        assert!(told.takes_failure(Why::Timeout) && !told.takes_failure(Why::Connect));
        let taken =
            [429, 500, 502, 503, 504].map(|status| told.takes_answer(StatusCode::from_u16(status).unwrap()));
        assert_eq!(taken, [true, false, true, true, true]);
        assert!(told.takes(&Method::POST) && !told.takes(&Method::GET));
        for never in [Why::Client, Why::Overflow] {
            assert!(!told.takes_failure(never) && !never.is_to_blame());
        }
    }

    #[test]
    fn waits_are_by_chance_and_bounded() {
        let backoff = Backoff { base: Duration::from_millis(20), max: Duration::from_millis(50) };
        for (retry, most_ms) in [(0, 20), (1, 40), (2, 50), (40, 50)] {
            let waits: Vec<_> = (0..200).map(|_| wait(&backoff, retry)).collect();
            let most = Duration::from_millis(most_ms);
            assert!(waits.iter().all(|wait| *wait < most));
            assert!(waits.iter().any(|wait| *wait > most / 2) && waits.iter().any(|wait| *wait < most / 2));
        }
        assert_eq!(wait(&Backoff { base: Duration::ZERO, ..backoff }, 3), Duration::ZERO);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let told = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(told("120"), Some(120));
        assert_eq!(told("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(told("Sun, 06 Nov 1994 08:40:37 GMT"), Some(0));
        assert_eq!(told("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
