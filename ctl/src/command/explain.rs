//! `gwctl route explain`: which route takes a request, and why not the others.

use clap::Args;
use http::Method;
use model::api::{ExplainRequest, Explanation};

use crate::{
    cli::Global,
    client::Call,
    failure::Failure,
    output,
    table::{Table, plain},
};

/// The request to explain.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The method.
    method: String,
    /// The absolute URL.
    url: String,
    /// A header.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    header: Vec<String>,
}

impl Explain {
    /// Asks and prints.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let header = |text: &String| {
            let (name, value) =
                text.split_once(':').ok_or_else(|| Failure::usage(format!("{text:?} is not NAME: VALUE")))?;
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        };
        let headers: Vec<(String, String)> =
            self.header.iter().map(header).collect::<Result<_, Failure>>()?;
        let host = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, v)| v.clone());
        check_url(&self.url, host.is_some())?;
        let request = ExplainRequest { method: self.method, url: self.url, host, headers };
        let call = Call::new(Method::POST, "/v1/explain").json(&request)?;
        let explanation: Explanation = global.client()?.json(call).await?;
        output::print(global.output, &explanation, text)
    }
}

/// What a mistyped URL would be explained as is of no use to anybody.
fn check_url(url: &str, has_host: bool) -> Result<(), Failure> {
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let fits = match rest {
        Some(rest) => !rest.is_empty() && !rest.starts_with(['/', '?', ':']),
        None => url.starts_with('/') && has_host,
    };
    let hint = "write http://HOST/PATH, or /PATH with -H 'Host: HOST'";
    if fits { Ok(()) } else { Err(Failure::usage(format!("{url:?} is no URL with a host")).hint(hint)) }
}

fn text(explanation: &Explanation) -> String {
    let mut table = Table::new(&["ROUTE", "MATCH", "IF", "RESULT"]);
    for candidate in &explanation.candidates {
        let result = candidate.failed.clone().unwrap_or_else(|| "takes it".into());
        table.row([
            candidate.route.to_string(),
            candidate.index.to_string(),
            candidate.matcher.clone(),
            result,
        ]);
    }
    let verdict = match (&explanation.refused, &explanation.tcp_route, &explanation.route) {
        (Some(why), ..) => format!("refused: {why}"),
        (None, Some(tcp), _) => {
            format!("its connection goes through unread, by tcp-route {tcp}; without that, by its routes:")
        }
        (None, None, Some(route)) => {
            format!("{route} -> {}", explanation.action.as_deref().unwrap_or_default())
        }
        (None, None, None) => "no route takes it".into(),
    };
    let policies: Vec<&str> = explanation.policies.iter().map(model::Name::as_str).collect();
    let policies =
        if policies.is_empty() { String::new() } else { format!("policies: {}\n", policies.join(", ")) };
    format!(
        "{} {} at revision {}\n{}\n{policies}\n{}",
        plain(&explanation.host),
        plain(&explanation.path),
        explanation.revision,
        plain(&verdict),
        table.text(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host() {
        for (url, has_host) in [("http://a/b", false), ("https://a", false), ("/b", true)] {
            assert!(check_url(url, has_host).is_ok(), "{url}");
        }
        for (url, has_host) in [("/b", false), ("", true), ("http:///b", false), ("ht!tp://x", false)] {
            assert_eq!(check_url(url, has_host).unwrap_err().exit, crate::failure::USAGE, "{url}");
        }
    }
}
