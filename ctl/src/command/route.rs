//! `gwctl route`: what its flags say.

use clap::{Args, Subcommand};
use model::{
    Kind, Name, Route,
    route::{Match, PathMatch, PathRewrite, Redirect, Respond, ValueMatch},
};

use crate::{
    cli::Global,
    command::{
        explain::Explain,
        object::{Built, Spec, Verbs},
        upstream::targets,
    },
    failure::Failure,
};

/// What can be done with routes.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub(crate) enum Command {
    #[command(flatten)]
    Object(Verbs<RouteSpec>),
    /// Say which route takes a request, and why not the others.
    Explain(Explain),
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Object(verb) => verb.run(global).await,
            Self::Explain(explain) => explain.run(global).await,
        }
    }
}

/// A route in flags: one match, and exactly one of `--to`, `--upstream`, `--redirect` and `--respond`.
#[derive(Debug, Args)]
pub(crate) struct RouteSpec {
    /// A host it takes, as `api.example` or `*.example`; none takes all.
    #[arg(long)]
    host: Vec<String>,
    /// The path's first segments.
    #[arg(long, group = "paths", value_name = "PREFIX")]
    path: Option<String>,
    /// The whole path.
    #[arg(long, group = "paths", value_name = "PATH")]
    exact: Option<String>,
    /// A regular expression of the whole path.
    #[arg(long, group = "paths")]
    regex: Option<String>,
    /// The path with `{name}` for any one segment.
    #[arg(long, group = "paths")]
    template: Option<String>,
    /// A method it takes; none takes all.
    #[arg(long)]
    method: Vec<String>,
    /// A header and its value.
    #[arg(long, value_name = "NAME=VALUE")]
    header: Vec<String>,
    /// A query parameter and its value.
    #[arg(long, value_name = "NAME=VALUE")]
    query: Vec<String>,
    /// A policy of it.
    #[arg(long)]
    policy: Vec<String>,
    /// Forward to this target; several make a pool. Makes the upstream of the route's name with it.
    #[arg(long, group = "action", value_name = "URL")]
    to: Vec<String>,
    /// Forward to this upstream.
    #[arg(long, group = "action")]
    upstream: Option<String>,
    /// Redirect there: a URL or a path.
    #[arg(long, group = "action", value_name = "URL")]
    redirect: Option<String>,
    /// The redirect's status.
    #[arg(long, default_value_t = 302, requires = "redirect")]
    redirect_status: u16,
    /// Answer with this.
    #[arg(long, group = "action", value_name = "STATUS[:BODY]")]
    respond: Option<String>,
    /// Replace the matched prefix by this.
    #[arg(long, value_name = "PREFIX", conflicts_with = "rewrite_path")]
    rewrite_prefix: Option<String>,
    /// Replace the path by this.
    #[arg(long, value_name = "PATH")]
    rewrite_path: Option<String>,
    /// The Host that the upstream sees.
    #[arg(long, value_name = "HOST")]
    host_rewrite: Option<String>,
    /// Set a header of the request.
    #[arg(long, value_name = "NAME=VALUE")]
    set_request_header: Vec<String>,
    /// Set a header of the response.
    #[arg(long, value_name = "NAME=VALUE")]
    set_response_header: Vec<String>,
}

impl Spec for RouteSpec {
    const KIND: Kind = Kind::Route;

    fn build(&self, name: &str) -> Result<Built, Failure> {
        let mut route = Route { hosts: self.host.clone(), ..Route::default() };
        let matched = Match {
            path: (self.path.clone().map(PathMatch::Prefix))
                .or_else(|| self.exact.clone().map(PathMatch::Exact))
                .or_else(|| self.regex.clone().map(PathMatch::Regex))
                .or_else(|| self.template.clone().map(PathMatch::Template)),
            methods: self.method.clone(),
            headers: values(&self.header)?.map(|(k, v)| (k, ValueMatch::Exact(v))).collect(),
            query: values(&self.query)?.map(|(k, v)| (k, ValueMatch::Exact(v))).collect(),
        };
        if matched != Match::default() {
            route.matches.push(matched);
        }
        route.policies = self.policy.iter().map(|policy| named(policy)).collect::<Result<_, _>>()?;
        route.request.host.clone_from(&self.host_rewrite);
        route.request.path = (self.rewrite_prefix.clone().map(PathRewrite::Prefix))
            .or_else(|| self.rewrite_path.clone().map(PathRewrite::Full));
        route.request.headers.set = values(&self.set_request_header)?.collect();
        route.response.headers.set = values(&self.set_response_header)?.collect();
        let mut others = Vec::new();
        if !self.to.is_empty() {
            route.upstream = Some(named(name)?);
            others.push((Kind::Upstream, name.to_owned(), targets(&self.to)?));
        } else if let Some(upstream) = &self.upstream {
            route.upstream = Some(named(upstream)?);
        } else if let Some(url) = &self.redirect {
            route.redirect = Some(Box::new(redirect(url, self.redirect_status)?));
        } else if let Some(text) = &self.respond {
            let (status, body) = text.split_once(':').unwrap_or((text, ""));
            let status = status.parse().map_err(|_| Failure::usage(format!("{status:?} is no status")))?;
            let body = body.to_owned();
            route.respond = Some(Box::new(Respond { status, body, ..Respond::default() }));
        } else {
            return Err(Failure::usage("the route goes nowhere")
                .hint("give --to URL, --upstream NAME, --redirect URL, --respond STATUS or -f FILE"));
        }
        let spec = serde_json::to_value(&route).map_err(|error| Failure::refused(error.to_string()))?;
        Ok((spec, others))
    }
}

fn named(text: &str) -> Result<Name, Failure> {
    Name::new(text).map_err(|error| Failure::usage(error.to_string()))
}

fn values(pairs: &[String]) -> Result<impl Iterator<Item = (String, String)>, Failure> {
    let split = |pair: &String| {
        let (name, value) =
            pair.split_once('=').ok_or_else(|| Failure::usage(format!("{pair:?} is not NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    Ok(pairs.iter().map(split).collect::<Result<Vec<_>, Failure>>()?.into_iter())
}

fn redirect(url: &str, status: u16) -> Result<Redirect, Failure> {
    let bad = || {
        Failure::usage(format!("{url:?} is no URL to redirect to")).hint("write https://HOST/PATH or /PATH")
    };
    let mut redirect = Redirect { status, ..Redirect::default() };
    if url.starts_with('/') {
        redirect.path = Some(PathRewrite::Full(url.to_owned()));
        return Ok(redirect);
    }
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    let authority: http::uri::Authority =
        rest.split('/').next().unwrap_or_default().parse().map_err(|_| bad())?;
    redirect.scheme = Some(scheme.to_owned());
    redirect.host = Some(authority.host().to_owned());
    redirect.port = authority.port_u16();
    // Without a path the request's own stays.
    redirect.path = rest.find('/').map(|at| PathRewrite::Full(rest[at..].to_owned()));
    Ok(redirect)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::command::object::document;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: RouteSpec,
    }

    fn build(line: &str) -> Result<serde_json::Value, Failure> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let (spec, mut objects) = Line::try_parse_from(words).unwrap().spec.build("orders")?;
        objects.push((Kind::Route, "orders".into(), spec));
        Ok(document(&objects))
    }

    #[test]
    fn targets_make_route_and_upstream_in_one_document() {
        let got =
            build("--host api.example --path /orders --to http://10.0.1.11:8080 --to http://10.0.1.12:8080");
        let want = json!({
            "version": 1,
            "upstreams": {"orders": {"targets": [{"address": "10.0.1.11:8080"}, {"address": "10.0.1.12:8080"}]}},
            "routes": {"orders": {
                "hosts": ["api.example"], "match": [{"path": {"prefix": "/orders"}}], "upstream": "orders",
            }},
        });
        assert_eq!(got, Ok(want));
    }

    #[test]
    fn every_other_action() {
        let route = |line: &str| build(line).unwrap()["routes"]["orders"].clone();
        assert_eq!(route("--respond 404:gone"), json!({"respond": {"status": 404, "body": "gone"}}));
        assert_eq!(
            route("--redirect https://new.example:8443/x --redirect-status 301"),
            json!({"redirect": {"status": 301, "scheme": "https", "host": "new.example", "port": 8443,
                "path": {"full": "/x"}}})
        );
        assert_eq!(
            route("--upstream u --exact /a --header a=b --rewrite-path /c"),
            json!({"match": [{"path": {"exact": "/a"}, "headers": {"a": {"exact": "b"}}}], "upstream": "u",
                "request": {"path": {"full": "/c"}}})
        );
        assert_eq!(build("--path /a").unwrap_err().exit, crate::failure::USAGE);
    }
}
