//! What a refusal looks like, as a config says.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Deserialize;

use crate::{
    exchange::{Form, Refusal, Verdict},
    plan::changes,
    state::Figures,
    violations::Violations,
};

/// The longest text of a refusal, in bytes.
const TEXT_BYTES_MAX: usize = 16_384;
/// What a refusal's body is, unless said.
const TEXT: &str = "text/plain; charset=utf-8";

/// What a refusal looks like.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RefusalSpec {
    /// 400 to 599.
    status: Option<u16>,
    /// The problem document's detail.
    #[serde(default)]
    detail: String,
    /// A body in the problem document's place.
    body: Option<String>,
    /// What the body is.
    content_type: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// What a refusal looks like.
#[derive(Debug)]
pub(super) struct Refused {
    detail: Cow<'static, str>,
    form: Form,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Refuses, or, where a policy only watches, notes that it would.
pub(super) fn refuse(
    figures: &Figures,
    only_watches: bool,
    refusal: impl FnOnce() -> Refusal,
) -> Result<Verdict, Refusal> {
    if only_watches {
        figures.would_refuse();
        return Ok(Verdict::Pass);
    }
    figures.refuse();
    Err(refusal())
}

impl Refused {
    /// The refusal with this look.
    pub(super) fn dress(&self, mut refusal: Refusal) -> Refusal {
        refusal.headers.extend(self.headers.iter().cloned());
        if !self.detail.is_empty() {
            refusal.detail = self.detail.clone();
        }
        let form = refusal.form.get_or_insert_default();
        form.status = self.form.status;
        form.body.clone_from(&self.form.body);
        refusal
    }
}

impl RefusalSpec {
    /// The same, or what is wrong with it, at this path.
    pub(super) fn compile(self, path: &str, violations: &mut Violations) -> Option<Refused> {
        let before = violations.len();
        let mut wrong =
            |field: &str, message: &str| violations.add(format!("{path}.{field}"), message.to_owned());
        let status = self.status.map(|status| {
            let status = StatusCode::from_u16(status).ok().filter(|_| (400..600).contains(&status));
            status.ok_or_else(|| wrong("status", "must be 400 to 599"))
        });
        let status = status.and_then(Result::ok);
        if self.body.is_some() && !self.detail.is_empty() {
            wrong("detail", "is of the problem document, which body takes the place of");
        }
        for (field, text) in [("detail", Some(&self.detail)), ("body", self.body.as_ref())] {
            if text.is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
                wrong(field, "is longer than 16,384 bytes");
            }
        }
        if self.content_type.is_some() && self.body.is_none() {
            wrong("content_type", "is for a body");
        }
        let kind = HeaderValue::from_str(self.content_type.as_deref().unwrap_or(TEXT));
        if kind.is_err() {
            wrong("content_type", "is no header value");
        }
        let body = kind.ok().zip(self.body.map(Bytes::from));
        let mut headers = Vec::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let place = format!("{path}.headers.{name}");
            match changes::header(name, value, place.clone(), violations) {
                Some((name, _)) if [header::CONTENT_TYPE, header::RETRY_AFTER].contains(&name) => {
                    violations.add(place, "is the policy's own to set".to_owned());
                }
                one => headers.extend(one),
            }
        }
        let form = Form { status, body, ..Form::default() };
        (violations.len() == before).then(|| Refused { detail: self.detail.into(), form, headers })
    }
}
