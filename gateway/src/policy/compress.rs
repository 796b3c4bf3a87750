//! Policy `compress`: response bodies are compressed on their way, for clients that take that.
//!
//! Bodies stream through an encoder of bounded memory. Whenever the target has no more for now, the client gets what there is, so that
//! events and long answers arrive as they are made.

mod accept;
mod body;
mod encoding;
mod types;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::Body;
use model::Name;
use serde::Deserialize;

use self::{accept::Accepted, body::Encoded, encoding::Levels, types::Types};
use super::{Context, Policy};
use crate::{
    after::{About, Layer},
    body::ResponseBody,
    exchange::{Exchange, Refusal, Verdict},
    vary,
    violations::Violations,
};

pub(crate) use encoding::{ENCODINGS, Encoding, Memory};

/// Its type in a config.
pub(crate) const KIND: &str = "compress";

/// Digests of the body as it was (RFC 9530; `Digest` and `Content-MD5` are older), which is not what the client gets.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// What clients may have; of those that one takes as gladly, the first.
    #[serde(default = "encodings_default")]
    encodings: Vec<Encoding>,
    /// How hard each tries.
    #[serde(default)]
    levels: Levels,
    /// Media types of what is compressed.
    types: Option<Vec<String>>,
    /// Bodies that are known to be smaller are left as they are, in bytes.
    #[serde(default = "min_size_default", with = "model::size")]
    min_size: u64,
}

fn encodings_default() -> Vec<Encoding> {
    vec![Encoding::Zstd, Encoding::Br, Encoding::Gzip]
}

fn min_size_default() -> u64 {
    1024
}

#[derive(Debug)]
struct Compress {
    name: Name,
    how: Arc<How>,
}

/// What is compressed, and how.
#[derive(Debug)]
struct How {
    encodings: Vec<Encoding>,
    levels: Levels,
    types: Types,
    min_size: u64,
}

pub(super) fn build(name: &Name, policy: &model::Policy, _: Context<'_>) -> super::Built {
    let spec: Spec = super::spec(name, policy)?;
    let path = format!("policies.{name}");
    let mut violations = Violations::default();
    if spec.encodings.is_empty() {
        violations.add(format!("{path}.encodings"), "name zstd, br or gzip, or several".to_owned());
    }
    for (index, encoding) in spec.encodings.iter().enumerate() {
        if spec.encodings[..index].contains(encoding) {
            violations
                .add(format!("{path}.encodings[{index}]"), format!("{} is there twice", encoding.word()));
        }
    }
    spec.levels.check(&format!("{path}.levels"), &mut violations);
    let types = match &spec.types {
        Some(types) => Types::compile(types, &format!("{path}.types"), &mut violations),
        None => Types::usual(),
    };
    if violations.len() > 0 {
        return Err(violations.into_vec());
    }
    let Spec { encodings, levels, min_size, .. } = spec;
    let how = Arc::new(How { encodings, levels, types, min_size });
    Ok(Arc::new(Compress { name: name.clone(), how }))
}

impl Policy for Compress {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let offer = Offer {
            how: self.how.clone(),
            accepted: accept::accepted(exchange.headers, &self.how.encodings),
            is_head: *exchange.method == Method::HEAD,
            knows_weak: knows_weak(exchange.headers),
        };
        exchange.after.layers.push(Box::new(offer));
        Ok(Verdict::Pass)
    }
}

/// Whether the client has a response whose ETag is weak: it may be one that was compressed here.
fn knows_weak(request: &HeaderMap) -> bool {
    request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .any(|tags| tags.as_bytes().windows(3).any(|at| at == b"W/\""))
}

/// What an exchange's client takes.
#[derive(Debug)]
struct Offer {
    how: Arc<How>,
    accepted: Accepted,
    is_head: bool,
    knows_weak: bool,
}

impl Layer for Offer {
    fn respond(self: Box<Self>, response: &mut Response<ResponseBody>, about: &About<'_>) {
        if response.status() == StatusCode::NOT_MODIFIED && self.knows_weak {
            return weaken(response.headers_mut());
        }
        if !self.how.takes(response) {
            return;
        }
        vary::on(response.headers_mut(), &header::ACCEPT_ENCODING);
        if self.is_head || response.body().is_end_stream() {
            return;
        }
        let levels = &self.how.levels;
        let share =
            |encoding: &Encoding| Some((*encoding, about.encoders.take(encoding.memory_bytes(levels))?));
        let Some((encoding, share)) = self.accepted.iter().find_map(share) else {
            if !self.accepted.is_empty() {
                about.metrics.compress_skipped.add(1);
            }
            return;
        };
        let length = response.body().size_hint().exact();
        let Ok(encoder) = encoding.encoder(levels, length) else { return };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.word()));
        headers.remove(header::CONTENT_LENGTH);
        // A part of what was asked for is a part of it as it was, and this is no longer that.
        headers.remove(header::ACCEPT_RANGES);
        DIGESTS.iter().for_each(|name| drop(headers.remove(name)));
        weaken(headers);
        let metrics = about.metrics.clone();
        response.body_mut().wrap(|body| Encoded::new(body, encoding, encoder, (share, metrics)));
    }
}

/// Makes a strong ETag weak: it is of the same meaning, not of the same bytes (RFC 9110, section 8.8.1).
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(header::ETAG).filter(|tag| tag.as_bytes().starts_with(b"\"")) else { return };
    let weak = [b"W/", tag.as_bytes()].concat();
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(weak)) {
        Ok(weak) => drop(headers.insert(header::ETAG, weak)),
        Err(_) => drop(headers.remove(header::ETAG)),
    }
}

impl How {
    /// Whether this response is one to be compressed, for whoever takes that.
    fn takes(&self, response: &Response<ResponseBody>) -> bool {
        let (status, headers) = (response.status(), response.headers());
        let has_content = !status.is_informational()
            && !matches!(
                status,
                StatusCode::NO_CONTENT
                    | StatusCode::RESET_CONTENT
                    | StatusCode::PARTIAL_CONTENT
                    | StatusCode::NOT_MODIFIED
            );
        has_content
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !headers.contains_key(header::CONTENT_RANGE)
            && headers.get(header::CONTENT_TYPE).is_some_and(|kind| self.types.take(kind))
            && length(response).is_none_or(|length| length >= self.min_size)
            && !says_no_transform(headers)
    }
}

/// The body's length, if it is known.
fn length(response: &Response<ResponseBody>) -> Option<u64> {
    match response.headers().get(header::CONTENT_LENGTH) {
        Some(length) => length.to_str().ok()?.parse().ok(),
        None => response.body().size_hint().exact(),
    }
}

/// RFC 9111, section 5.2.2.6.
fn says_no_transform(headers: &HeaderMap) -> bool {
    headers.get_all(header::CACHE_CONTROL).iter().any(|value| {
        let mut directives = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        directives.any(|directive| directive.eq_ignore_ascii_case(b"no-transform"))
    })
}

#[cfg(test)]
mod tests;
