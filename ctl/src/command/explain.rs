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
        let request = ExplainRequest { method: self.method, url: self.url, host, headers };
        let call = Call::new(Method::POST, "/v1/explain").json(&request)?;
        let explanation: Explanation = global.client()?.json(call).await?;
        output::print(global.output, &explanation, text)
    }
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
    let verdict = match (&explanation.refused, &explanation.route) {
        (Some(why), _) => format!("refused: {why}"),
        (None, Some(route)) => format!("{route} -> {}", explanation.action.as_deref().unwrap_or_default()),
        (None, None) => "no route takes it".into(),
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
