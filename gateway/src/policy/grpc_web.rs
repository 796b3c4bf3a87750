//! Policy `grpc-web`: has those call gRPC who can't, which browsers can't (grpc/doc/PROTOCOL-WEB.md). To the target it is gRPC; the
//! trailers of its answer become the last frame of the body.

mod body;

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Response, header};
use http_body::Body;
use model::Name;
use serde::Deserialize;

use self::body::Framed;
pub(crate) use self::body::FromBase64;
use super::{Context, Policy};
use crate::{
    after::{About, Layer},
    body::ResponseBody,
    exchange::{Exchange, Refusal, Verdict},
    grpc::GRPC_STATUS,
};

/// Its type in a config.
pub(crate) const KIND: &str = "grpc-web";

const GRPC: &str = "application/grpc";
const WEB: &str = "application/grpc-web";
const TEXT: &str = "application/grpc-web-text";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {}

#[derive(Debug)]
struct GrpcWeb {
    name: Name,
}

pub(super) fn build(name: &Name, policy: &model::Policy, _: Context<'_>) -> super::Built {
    let Spec {} = super::spec(name, policy)?;
    Ok(Arc::new(GrpcWeb { name: name.clone() }))
}

/// A content type of gRPC-Web.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kind<'t> {
    /// Whether bodies are base64.
    is_text: bool,
    /// What comes after: `+proto`, parameters, or nothing.
    rest: &'t str,
}

impl<'t> Kind<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let after = |prefix: &str| {
            let beginning = text.get(..prefix.len())?;
            let rest = &text[prefix.len()..];
            let ends = rest.is_empty() || rest.starts_with(['+', ';', ' ']);
            (beginning.eq_ignore_ascii_case(prefix) && ends).then_some(rest)
        };
        let text = after(TEXT).map(|rest| Self { is_text: true, rest });
        text.or_else(|| after(WEB).map(|rest| Self { is_text: false, rest }))
    }
}

impl Policy for GrpcWeb {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let kind = exchange.headers.get(header::CONTENT_TYPE).cloned();
        let kind = kind.as_ref().filter(|_| *exchange.method == Method::POST);
        let Some(kind) = kind.and_then(|kind| Kind::of(kind.to_str().ok()?)) else {
            return Ok(Verdict::Pass);
        };
        let is_text = wants_text(exchange.headers).unwrap_or(kind.is_text);
        if let Ok(grpc) = HeaderValue::try_from(format!("{GRPC}{}", kind.rest)) {
            exchange.headers.insert(header::CONTENT_TYPE, grpc);
        }
        if kind.is_text {
            exchange.headers.remove(header::CONTENT_LENGTH);
            exchange.after.from_base64 = true;
        }
        // Servers of gRPC refuse who does not say so.
        exchange.after.wants_trailers = true;
        exchange.after.layers.push(Box::new(Web { is_text }));
        Ok(Verdict::Pass)
    }
}

/// Whether the client says that it takes answers as text, or that it takes them as bytes.
fn wants_text(headers: &HeaderMap) -> Option<bool> {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(',')).filter_map(|kind| Kind::of(kind.trim()));
    kinds.next().map(|kind| kind.is_text)
}

/// Makes an answer one of gRPC-Web.
#[derive(Debug)]
struct Web {
    is_text: bool,
}

impl Layer for Web {
    fn respond(self: Box<Self>, response: &mut Response<ResponseBody>, _: &About<'_>) {
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        // What else it may be is no answer of gRPC, or the gateway's own, which is right as it is.
        let Some(rest) = kind.and_then(|kind| kind.strip_prefix(GRPC)) else { return };
        if !(rest.is_empty() || rest.starts_with(['+', ';'])) {
            return;
        }
        let kind = HeaderValue::try_from(format!("{}{rest}", if self.is_text { TEXT } else { WEB }));
        let headers = response.headers_mut();
        if let Ok(kind) = kind {
            headers.insert(header::CONTENT_TYPE, kind);
        }
        let is_head_alone = headers.contains_key(GRPC_STATUS) && response.body().is_end_stream();
        if !is_head_alone {
            response.headers_mut().remove(header::CONTENT_LENGTH);
            response.body_mut().wrap(|body| Framed::new(body, self.is_text));
        }
    }
}

#[cfg(test)]
mod tests;
