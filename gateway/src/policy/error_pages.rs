//! Policy `error-pages`: what people and programs get to read where something went wrong.
//!
//! Of a request nothing is put into a page: what a stranger sends, and gets sent back as a page of this host, can be a script.

mod accept;
mod page;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use model::Name;
use serde::Deserialize;
use smallvec::SmallVec;

use self::page::{Facts, Page, PageSpec};
use super::{Context, Policy};
use crate::{
    after::{About, Layer},
    body::ResponseBody,
    exchange::{Exchange, Refusal, Verdict},
    vary,
    violations::Violations,
};

/// Its type in a config.
pub(crate) const KIND: &str = "error-pages";

/// The most pages of a policy.
const PAGES_MAX: usize = 64;
/// What a page's `{{code}}` is where the error is a target's.
const UPSTREAM: &str = "upstream";
/// What is said of a body that is no longer there.
const OF_BODY: [HeaderName; 10] = [
    header::ACCEPT_RANGES,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_RANGE,
    header::ETAG,
    header::LAST_MODIFIED,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// Whose errors.
    #[serde(default)]
    of: Of,
    /// By status (`404`) or class (`5xx`).
    pages: BTreeMap<String, PageSpec>,
}

/// Whose errors have pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Of {
    /// Those of the gateway itself.
    #[default]
    Gateway,
    /// Those of targets too.
    All,
}

#[derive(Debug)]
struct ErrorPages {
    name: Name,
    pages: Arc<Pages>,
}

#[derive(Debug)]
struct Pages {
    of: Of,
    by_status: BTreeMap<u16, Page>,
    /// Of 4xx and 5xx.
    by_class: [Option<Page>; 2],
}

pub(super) fn build(name: &Name, policy: &model::Policy, _: Context<'_>) -> super::Built {
    let spec: Spec = super::spec(name, policy)?;
    let path = format!("policies.{name}.pages");
    let mut violations = Violations::default();
    if spec.pages.is_empty() || spec.pages.len() > PAGES_MAX {
        violations.add(path.clone(), format!("must have 1 to {PAGES_MAX}"));
    }
    let mut pages = Pages { of: spec.of, by_status: BTreeMap::new(), by_class: [None, None] };
    for (of, page) in spec.pages {
        let place = format!("{path}.{of}");
        let page = page.compile(&place, &mut violations);
        match (&of[..], of.parse::<u16>()) {
            ("4xx", _) => pages.by_class[0] = page,
            ("5xx", _) => pages.by_class[1] = page,
            (_, Ok(status @ 400..600)) => drop(page.map(|page| pages.by_status.insert(status, page))),
            _ => violations.add(place, "is no status of an error: write 404, 4xx or the like".to_owned()),
        }
    }
    if violations.len() > 0 {
        return Err(violations.into_vec());
    }
    Ok(Arc::new(ErrorPages { name: name.clone(), pages: Arc::new(pages) }))
}

impl Policy for ErrorPages {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let accept = exchange.headers.get_all(header::ACCEPT).iter().cloned().collect();
        exchange.after.layers.push(Box::new(Reader { pages: self.pages.clone(), accept }));
        Ok(Verdict::Pass)
    }
}

impl Pages {
    fn of(&self, status: StatusCode) -> Option<&Page> {
        let class = match status.as_u16() {
            400..500 => 0,
            500..600 => 1,
            _ => return None,
        };
        self.by_status.get(&status.as_u16()).or(self.by_class[class].as_ref())
    }
}

/// Who reads a page.
#[derive(Debug)]
struct Reader {
    pages: Arc<Pages>,
    accept: SmallVec<[HeaderValue; 1]>,
}

impl Layer for Reader {
    fn respond(self: Box<Self>, response: &mut Response<ResponseBody>, about: &About<'_>) {
        let Some(page) = self.pages.of(response.status()) else { return };
        if about.problem.is_none() && (self.pages.of == Of::Gateway || is_given(response)) {
            return;
        }
        vary::on(response.headers_mut(), &header::ACCEPT);
        // The gateway's own document stands for a page in JSON.
        let have = |format| page.has(format) || (format == page::Format::Json && about.problem.is_some());
        let Some(format) = accept::choose(&self.accept, have) else { return };
        let facts = Facts {
            status: response.status(),
            code: about.problem.unwrap_or(UPSTREAM),
            request_id: about.id.to_str().unwrap_or_default(),
        };
        let Some(text) = page.text(format, &facts) else { return };
        replace(response, format, text);
    }
}

/// Whether the config gives its body.
fn is_given(response: &Response<ResponseBody>) -> bool {
    response.body().is_full() && !http_body::Body::is_end_stream(response.body())
}

fn replace(response: &mut Response<ResponseBody>, format: page::Format, text: String) {
    let headers: &mut HeaderMap = response.headers_mut();
    OF_BODY.iter().for_each(|name| drop(headers.remove(name)));
    headers.insert(header::CONTENT_TYPE, format.content_type());
    *response.body_mut() = ResponseBody::full(Bytes::from(text));
}

#[cfg(test)]
mod tests;
