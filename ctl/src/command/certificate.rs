//! `gwctl certificate`: what its flags say, and which certificates end when.

use clap::{Args, Subcommand};
use model::Kind;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    command::{
        object::{Built, Spec, Verbs, list},
        read,
    },
    failure::Failure,
    output,
    table::Table,
};

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a process")]
pub(crate) enum Command {
    #[command(flatten)]
    Object(Verbs<CertificateSpec>),
    /// Show for which hosts they are and when they end, the first first.
    Expiry,
}

impl Command {
    /// Does it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Object(verb) => verb.run(global).await,
            Self::Expiry => {
                let mut items = list(&global.client()?, Kind::Certificate).await?;
                items.sort_by_key(|item| item.spec["leaf"]["not_after_s"].as_u64());
                output::print(global.output, &items, |items| {
                    let mut table = Table::new(&["NAME", "ENDS", "DEFAULT", "HOSTS", "SUBJECT"]);
                    for item in items {
                        let leaf = &item.spec["leaf"];
                        let hosts = match &item.spec["hosts"] {
                            Value::Null => &leaf["hosts"],
                            own => own,
                        };
                        let hosts: Vec<&str> =
                            hosts.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                        table.row([
                            item.name.to_string(),
                            leaf["not_after_s"].as_u64().map(day).unwrap_or_default(),
                            if item.spec["default"] == true { "yes".to_owned() } else { String::new() },
                            hosts.join(","),
                            leaf["subject"].as_str().unwrap_or_default().to_owned(),
                        ]);
                    }
                    table.text()
                })
            }
        }
    }
}

/// A moment's day in UTC, as `2026-11-28`; from so many seconds since the Unix epoch.
fn day(seconds: u64) -> String {
    // Years from March, in eras of 400 (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (year * 365 + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + later)
}

/// A certificate in flags.
#[derive(Debug, Args)]
pub(crate) struct CertificateSpec {
    /// The certificate and those that lead to its root, PEM.
    #[arg(long, value_name = "FILE")]
    chain: Option<String>,
    /// Its private key, PEM, not encrypted.
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// A host that it is for, as `api.example` or `*.example`, in place of those that it names.
    #[arg(long)]
    host: Vec<String>,
    /// For clients that name no host, or none that a certificate is for.
    #[arg(long)]
    default: bool,
    /// The oldest version of TLS that is spoken.
    #[arg(long, value_name = "1.2|1.3")]
    min_version: Option<String>,
    /// Ask clients for a certificate that these authorities have signed, PEM.
    #[arg(long, value_name = "FILE")]
    client_ca: Option<String>,
    /// Let clients without one in, so that routes can ask for it by policy.
    #[arg(long, requires = "client_ca")]
    client_optional: bool,
    /// Tell targets a client's whole certificate, in Client-Cert.
    #[arg(long, requires = "client_ca")]
    forward_certificate: bool,
}

impl Spec for CertificateSpec {
    const KIND: Kind = Kind::Certificate;

    fn build(&self, _name: &str) -> Result<Built, Failure> {
        let (Some(chain), Some(key)) = (&self.chain, &self.key) else {
            return Err(Failure::usage("--chain and --key are both needed"));
        };
        let mut spec = json!({"chain": read(chain)?, "key": read(key)?});
        if !self.host.is_empty() {
            spec["hosts"] = json!(self.host);
        }
        if self.default {
            spec["default"] = json!(true);
        }
        if let Some(version) = &self.min_version {
            spec["min_version"] = json!(version);
        }
        if let Some(ca) = &self.client_ca {
            let mode = if self.client_optional { "optional" } else { "required" };
            spec["client"] = json!({"ca": read(ca)?, "mode": mode});
            if self.forward_certificate {
                spec["client"]["forward_certificate"] = json!(true);
            }
        }
        Ok((spec, Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_798_675_199, "2026-12-30"),
            (4_102_444_800, "2100-01-01"),
        ] {
            assert_eq!(day(seconds), text);
        }
    }
}
