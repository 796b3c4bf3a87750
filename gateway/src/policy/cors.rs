//! Policy `cors`: which pages of other origins may read responses, as the Fetch standard has it (section 3.2, "CORS protocol").
//!
//! It answers preflights by itself, before anybody is asked who he is: a browser sends none of the user's credentials with one.

mod origin;

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use model::{Code, Name};
use serde::Deserialize;

use self::origin::{OriginSpec, Origins};
use super::{Context, Policy};
use crate::{
    after::{About, Layer},
    body::ResponseBody,
    exchange::{Exchange, Refusal, Reply, Verdict},
    router, vary,
    violations::Violations,
};

/// Its type in a config.
pub(crate) const KIND: &str = "cors";

/// The most names in one of its lists.
const NAMES_MAX: usize = 64;
/// The longest time that a browser may be told to keep a preflight's answer. Those that keep them longest do so for a day.
const MAX_AGE_MAX: Duration = Duration::from_secs(86_400);
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// What responses tell of who may read them. Those of targets are taken away: the policy decides.
const TOLD: [HeaderName; 6] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// Who may read.
    origins: Vec<OriginSpec>,
    /// Methods that pages may use besides GET, HEAD and POST, which need no permission; or `*`.
    #[serde(default)]
    methods: Vec<String>,
    /// Headers that pages may send besides those that need no permission; or `*`.
    #[serde(default)]
    headers: Vec<String>,
    /// Headers that pages may read besides those that need no permission; or `*`.
    #[serde(default)]
    expose: Vec<String>,
    /// Whether browsers may send cookies and other credentials along.
    #[serde(default)]
    credentials: bool,
    /// How long browsers may keep the answer to a preflight.
    #[serde(default = "max_age_default", with = "model::duration")]
    max_age: Duration,
    /// What becomes of requests from other origins.
    #[serde(default)]
    foreign: Foreign,
}

/// What a browser takes it for if it is told nothing.
fn max_age_default() -> Duration {
    Duration::from_secs(5)
}

/// What becomes of requests from origins that may not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Foreign {
    /// They are served, and the browser keeps the answer from the page.
    #[default]
    Pass,
    /// They are refused.
    Refuse,
}

#[derive(Debug)]
struct Cors {
    name: Name,
    foreign: Foreign,
    told: Arc<Told>,
}

/// What browsers are told.
#[derive(Debug)]
struct Told {
    origins: Origins,
    methods: Names,
    headers: Names,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

/// What a page may use.
#[derive(Debug)]
enum Names {
    None,
    These(HeaderValue),
    /// Whatever it asks for: with credentials `*` is a name like any other (Fetch standard, section 3.2.5).
    Asked,
}

pub(super) fn build(name: &Name, policy: &model::Policy, _: Context<'_>) -> super::Built {
    let spec: Spec = super::spec(name, policy)?;
    let path = format!("policies.{name}");
    let mut violations = Violations::default();
    let origins = Origins::compile(&spec.origins, &format!("{path}.origins"), &mut violations);
    if origins.any && spec.credentials {
        let message = "would let every page on the web act for whoever visits it: name the origins that may have credentials";
        violations.add(format!("{path}.credentials"), message.to_owned());
    }
    if spec.max_age > MAX_AGE_MAX {
        violations.add(format!("{path}.max_age"), "must be 1d or less".to_owned());
    }
    let is_method = |text: &str| Method::from_bytes(text.as_bytes()).is_ok();
    let is_header = |text: &str| HeaderName::from_bytes(text.as_bytes()).is_ok();
    let mut names = |field: &str, names: &[String], what: &str, is_one: &dyn Fn(&str) -> bool| {
        let place = format!("{path}.{field}");
        if names.len() > NAMES_MAX {
            violations.add(place.clone(), format!("has more than {NAMES_MAX}"));
        }
        for (index, text) in names.iter().enumerate().filter(|(_, text)| !is_one(text)) {
            violations.add(format!("{place}[{index}]"), format!("{text:?} is no {what}"));
        }
        HeaderValue::try_from(names.join(", ")).ok().filter(|value| !value.is_empty())
    };
    let methods = names("methods", &spec.methods, "method", &is_method);
    let headers = names("headers", &spec.headers, "header name", &is_header);
    let expose = names("expose", &spec.expose, "header name", &is_header);
    let any = |names: &[String]| spec.credentials && names.iter().any(|name| name == "*");
    if any(&spec.expose) {
        let message = "\"*\" means nothing with credentials: name the headers that pages may read";
        violations.add(format!("{path}.expose"), message.to_owned());
    }
    if violations.len() > 0 {
        return Err(violations.into_vec());
    }
    let told = Told {
        origins,
        methods: Names::of(methods, any(&spec.methods)),
        headers: Names::of(headers, any(&spec.headers)),
        expose,
        credentials: spec.credentials,
        max_age: HeaderValue::from(spec.max_age.as_secs()),
    };
    Ok(Arc::new(Cors { name: name.clone(), foreign: spec.foreign, told: Arc::new(told) }))
}

impl Names {
    fn of(names: Option<HeaderValue>, asked: bool) -> Self {
        match names {
            _ if asked => Self::Asked,
            Some(names) => Self::These(names),
            None => Self::None,
        }
    }
}

impl Policy for Cors {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let origin = exchange.headers.get(header::ORIGIN);
        let allowed = origin.filter(|origin| self.told.origins.contain(origin)).cloned();
        let is_foreign = allowed.is_none() && origin.is_some_and(|origin| !is_of_host(origin, exchange.host));
        let asks = origin.is_some() && *exchange.method == Method::OPTIONS;
        let preflight = asks.then(|| Preflight::read(exchange.headers)).flatten();
        let is_preflight = preflight.is_some();
        let granted = Granted { told: self.told.clone(), origin: allowed, preflight };
        exchange.after.layers.push(Box::new(granted));
        if is_foreign && self.foreign == Foreign::Refuse {
            let told = "Requests from this origin are not allowed.";
            return Err(Refusal::new(Code::Denied, "origin_denied", told));
        }
        if is_preflight {
            return Ok(Verdict::Answer(Box::new(Reply::new(StatusCode::NO_CONTENT))));
        }
        Ok(Verdict::Pass)
    }
}

/// Whether a page is of the host that it calls: browsers say the origin of such requests too where they are no plain reads.
fn is_of_host(origin: &HeaderValue, host: &str) -> bool {
    let authority = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    authority.and_then(router::host).is_some_and(|of| of == host)
}

/// What a browser asks for before it sends a page's request.
#[derive(Debug)]
struct Preflight {
    method: HeaderValue,
    headers: Option<HeaderValue>,
}

impl Preflight {
    fn read(request: &HeaderMap) -> Option<Self> {
        let method = request.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.clone();
        Some(Self { method, headers: request.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned() })
    }
}

/// What a response is to tell.
#[derive(Debug)]
struct Granted {
    told: Arc<Told>,
    /// The request's origin, if it may read.
    origin: Option<HeaderValue>,
    preflight: Option<Preflight>,
}

impl Layer for Granted {
    fn respond(self: Box<Self>, response: &mut Response<ResponseBody>, _: &About<'_>) {
        let headers = response.headers_mut();
        for name in TOLD {
            headers.remove(name);
        }
        let Self { told, origin, preflight } = *self;
        if told.origins.any {
            // Said to everyone, so that caches may hand it to everyone (Fetch standard, section 3.2.6).
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
        } else {
            vary::on(headers, &header::ORIGIN);
            let Some(origin) = origin else { return };
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        }
        if told.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        match preflight {
            Some(preflight) => told.allow(&preflight, headers),
            None => {
                let expose = told.expose.clone().map(|names| (header::ACCESS_CONTROL_EXPOSE_HEADERS, names));
                headers.extend(expose.map(|(name, names)| (Some(name), names)));
            }
        }
    }
}

impl Told {
    /// Tells what the page may do that a browser asks for.
    fn allow(&self, preflight: &Preflight, response: &mut HeaderMap) {
        let answers = [
            (
                &self.methods,
                Some(&preflight.method),
                header::ACCESS_CONTROL_ALLOW_METHODS,
                header::ACCESS_CONTROL_REQUEST_METHOD,
            ),
            (
                &self.headers,
                preflight.headers.as_ref(),
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                header::ACCESS_CONTROL_REQUEST_HEADERS,
            ),
        ];
        for (names, asked, name, depends_on) in answers {
            match names {
                Names::None => {}
                Names::These(names) => drop(response.insert(name, names.clone())),
                Names::Asked => {
                    vary::on(response, &depends_on);
                    if let Some(asked) = asked.filter(|asked| is_list_of_tokens(asked)) {
                        response.insert(name, asked.clone());
                    }
                }
            }
        }
        response.insert(header::ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
    }
}

/// Whether it is what a browser may ask for, and nothing that others would read differently.
fn is_list_of_tokens(value: &HeaderValue) -> bool {
    let mut tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    tokens.all(|token| HeaderName::from_bytes(token).is_ok())
}

#[cfg(test)]
mod tests;
