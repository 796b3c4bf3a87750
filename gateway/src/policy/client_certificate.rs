//! Policy `client-certificate`: only clients get through that have shown a certificate of an authority that the listener
//! trusts, and of these maybe only some. Fails closed.

use std::{collections::BTreeSet, sync::Arc};

use http::{HeaderName, HeaderValue};
use model::{Code, Name};
use serde::Deserialize;

use super::{CONSUMER_HEADER, Context, Policy};
use crate::{
    exchange::{Exchange, Refusal, Verdict},
    tls::ClientCertificate,
    violations::Violations,
};

/// Its type in a config.
pub(crate) const KIND: &str = "client-certificate";

/// The most texts in a list.
const TEXTS_MAX: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// Whose certificates pass; without it, every one that the listener trusts.
    allow: Option<Allow>,
    /// What of the certificate is the name of the consumer who calls; without it, nobody is taken to call.
    consumer: Option<ConsumerBy>,
}

/// Certificates that pass: any that one of these is of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    /// Their subjects, whole.
    #[serde(default)]
    subjects: BTreeSet<String>,
    /// One of their alternative names, as `dns:a.example`, `uri:spiffe://a/b` or `email:a@b`; `dns:*.example` is any one
    /// label, `uri:spiffe://a/*` any rest.
    #[serde(default)]
    names: BTreeSet<String>,
    /// SHA-256 of them as DER, 64 hexadecimal digits.
    #[serde(default)]
    fingerprints: BTreeSet<String>,
}

/// What of a certificate is a consumer's name.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ConsumerBy {
    /// The common name of its subject.
    CommonName,
    /// Its first alternative name of DNS.
    DnsName,
    /// Its fingerprint.
    Fingerprint,
}

#[derive(Debug)]
struct Required {
    name: Name,
    allow: Option<Allow>,
    consumer: Option<ConsumerBy>,
}

pub(super) fn build(name: &Name, policy: &model::Policy, _: Context<'_>) -> super::Built {
    let mut spec: Spec = super::spec(name, policy)?;
    let mut violations = Violations::default();
    if let Some(allow) = &mut spec.allow {
        check(name, allow, &mut violations);
        allow.fingerprints = allow.fingerprints.iter().map(|text| text.to_ascii_lowercase()).collect();
    }
    if violations.len() > 0 {
        return Err(violations.into_vec());
    }
    Ok(Arc::new(Required { name: name.clone(), allow: spec.allow, consumer: spec.consumer }))
}

fn check(name: &Name, allow: &Allow, violations: &mut Violations) {
    let path = format!("policies.{name}.allow");
    let lists =
        [("subjects", &allow.subjects), ("names", &allow.names), ("fingerprints", &allow.fingerprints)];
    if lists.iter().all(|(_, list)| list.is_empty()) {
        violations.add(path.clone(), "lets nobody through: name subjects, names or fingerprints".to_owned());
    }
    for (place, list) in lists {
        if list.len() > TEXTS_MAX {
            violations
                .add(format!("{path}.{place}"), format!("has {}, and may have {TEXTS_MAX}", list.len()));
        }
    }
    for text in &allow.names {
        if !["dns:", "uri:", "email:"]
            .iter()
            .any(|kind| text.strip_prefix(kind).is_some_and(|rest| !rest.is_empty()))
        {
            let message = format!("{text:?} begins with none of dns:, uri: and email:");
            violations.add(format!("{path}.names"), message);
        }
    }
    for text in &allow.fingerprints {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            violations.add(format!("{path}.fingerprints"), format!("{text:?} is not 64 hexadecimal digits"));
        }
    }
}

impl Allow {
    fn is_one(&self, certificate: &ClientCertificate) -> bool {
        self.fingerprints.contains(&certificate.facts.fingerprint)
            || self.subjects.contains(&certificate.facts.subject)
            || certificate.names.iter().any(|name| self.names.iter().any(|pattern| fits(pattern, name)))
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    if let Some(behind) = pattern.strip_prefix("dns:*.") {
        let labels = name.strip_prefix("dns:").and_then(|host| host.split_once('.'));
        return labels.is_some_and(|(first, rest)| !first.is_empty() && rest.eq_ignore_ascii_case(behind));
    }
    match pattern.strip_suffix('*').filter(|pattern| pattern.starts_with("uri:")) {
        Some(beginning) => name.starts_with(beginning),
        None if pattern.starts_with("dns:") => pattern.eq_ignore_ascii_case(name),
        None => pattern == name,
    }
}

impl Policy for Required {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let refuse =
            |code, reason| Refusal::new(code, reason, "A client certificate is needed that may do that.");
        let certificate = exchange.certificate.ok_or_else(|| refuse(Code::Denied, "certificate_missing"))?;
        if certificate.facts.not_after_s <= exchange.now_s() {
            return Err(refuse(Code::Denied, "certificate_expired"));
        }
        if self.allow.as_ref().is_some_and(|allow| !allow.is_one(certificate)) {
            return Err(refuse(Code::Denied, "certificate_not_allowed"));
        }
        let Some(by) = self.consumer else { return Ok(Verdict::Pass) };
        let text = match by {
            ConsumerBy::CommonName => certificate.common_name.as_deref(),
            ConsumerBy::DnsName => certificate.names.iter().find_map(|name| name.strip_prefix("dns:")),
            ConsumerBy::Fingerprint => Some(&*certificate.facts.fingerprint),
        };
        let name = text.and_then(|text| Name::new(&text.to_ascii_lowercase()).ok());
        let consumers = &exchange.plan.config().consumers;
        let found = name.and_then(|name| Some((consumers.get(&name)?.spec.as_ref(), name)));
        let (consumer, name) = found.ok_or_else(|| refuse(Code::Denied, "consumer_unknown"))?;
        if consumer.disabled {
            return Err(refuse(Code::Denied, "consumer_disabled"));
        }
        let value =
            HeaderValue::from_str(name.as_str()).map_err(|_| refuse(Code::Denied, "consumer_name"))?;
        exchange.headers.insert(HeaderName::from_static(CONSUMER_HEADER), value);
        (exchange.consumer, exchange.groups) = (Some(name), &consumer.groups);
        Ok(Verdict::Pass)
    }
}

#[cfg(test)]
mod tests {
    use model::Kind;
    use rustls_pki_types::CertificateDer;

    use super::*;
    use crate::{
        plan::Plan,
        policy::test::{config, policy, run, run_in},
    };

    /// A certificate of this common name and these alternative names, the second a URI.
    fn certificate(common_name: &str, host: &str, uri: &str) -> &'static ClientCertificate {
        let mut params = rcgen::CertificateParams::new([host.to_owned()]).unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().unwrap()));
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let read = ClientCertificate::of(&CertificateDer::from(made.der().to_vec()), true).unwrap();
        // For as long as any exchange.
        Box::leak(Box::new(read))
    }

    #[test]
    fn only_those_that_are_allowed_get_through() {
        let shown = certificate("Acme", "api.acme.example", "spiffe://acme/api");
        let fingerprint = &shown.facts.fingerprint;
        for (allow, passes) in [
            (String::new(), true),
            (r#","allow":{"names":["dns:API.acme.example"]}"#.into(), true),
            (r#","allow":{"names":["dns:*.acme.example"]}"#.into(), true),
            (r#","allow":{"names":["dns:*.example"]}"#.into(), false),
            (r#","allow":{"names":["uri:spiffe://acme/*"]}"#.into(), true),
            (r#","allow":{"names":["uri:spiffe://acme"]}"#.into(), false),
            (format!(r#","allow":{{"subjects":["{}"]}}"#, shown.facts.subject), true),
            (r#","allow":{"subjects":["CN=Other"]}"#.into(), false),
            (format!(r#","allow":{{"fingerprints":["{}"]}}"#, fingerprint.to_uppercase()), true),
            (format!(r#","allow":{{"fingerprints":["{}"]}}"#, "0".repeat(64)), false),
        ] {
            let built = policy(&format!(r#"{{"type":"client-certificate"{allow}}}"#)).unwrap();
            let ran = run(&*built, |exchange| exchange.certificate = Some(shown));
            assert_eq!(ran.is_ok(), passes, "{allow}");
            let none = run(&*built, |_| ()).unwrap_err();
            assert_eq!((none.code, none.reason), (Code::Denied, "certificate_missing"));
        }
    }

    #[test]
    fn one_that_has_ended_since_is_refused() {
        let mut shown = certificate("acme", "a.example", "uri:a").clone();
        shown.facts.not_after_s = 1;
        let shown: &'static _ = Box::leak(Box::new(shown));
        let built = policy(r#"{"type":"client-certificate"}"#).unwrap();
        let refusal = run(&*built, |exchange| exchange.certificate = Some(shown)).unwrap_err();
        assert_eq!(refusal.reason, "certificate_expired");
    }

    #[test]
    fn it_says_who_calls() {
        let shown = certificate("Acme", "b.example", "uri:a");
        let plan = Plan::empty()
            .install(&config(&[
                (Kind::Group, "gold", "{}"),
                (Kind::Consumer, "acme", r#"{"groups":["gold"]}"#),
                (Kind::Consumer, "b.example", r#"{"disabled":true}"#),
            ]))
            .unwrap();
        let run = |by: &str| {
            let built = policy(&format!(r#"{{"type":"client-certificate","consumer":"{by}"}}"#)).unwrap();
            let mut who = None;
            let ran = run_in(
                &plan,
                &*built,
                |exchange| exchange.certificate = Some(shown),
                |exchange| {
                    who = exchange.consumer.clone().map(|name| (name.to_string(), exchange.groups.len()))
                },
            );
            ran.map(|()| who).map_err(|refusal| refusal.reason)
        };
        assert_eq!(run("common-name"), Ok(Some(("acme".to_owned(), 1))));
        assert_eq!(run("dns-name"), Err("consumer_disabled"));
        assert_eq!(run("fingerprint"), Err("consumer_unknown"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (doc, path) in [
            (r#"{"type":"client-certificate","allow":{}}"#, "policies.p.allow"),
            (r#"{"type":"client-certificate","allow":{"names":["a.example"]}}"#, "policies.p.allow.names"),
            (
                r#"{"type":"client-certificate","allow":{"fingerprints":["ab"]}}"#,
                "policies.p.allow.fingerprints",
            ),
            (r#"{"type":"client-certificate","consumer":"me"}"#, "policies.p.consumer"),
        ] {
            assert_eq!(policy(doc).unwrap_err()[0].path, path, "{doc}");
        }
    }
}
