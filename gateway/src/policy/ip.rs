//! Policy `ip`: lets through, or refuses, by the client's address.

use std::sync::Arc;

use model::{Code, Name};
use serde::Deserialize;

use super::{Context, Policy};
use crate::{
    cidr::Cidr,
    exchange::{Exchange, Refusal, Verdict},
    violations::Violations,
};

/// Its type in a config.
pub(crate) const KIND: &str = "ip";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    /// Ranges to let through; empty lets through every address that is not denied.
    #[serde(default)]
    allow: Vec<String>,
    /// Ranges to refuse, whatever `allow` says.
    #[serde(default)]
    deny: Vec<String>,
}

#[derive(Debug)]
struct Ip {
    name: Name,
    allow: Box<[Cidr]>,
    deny: Box<[Cidr]>,
}

pub(super) fn build(name: &Name, policy: &model::Policy, _: Context<'_>) -> super::Built {
    let spec: Spec = super::spec(name, policy)?;
    let mut violations = Violations::default();
    if spec.allow.is_empty() && spec.deny.is_empty() {
        violations.add(format!("policies.{name}"), "needs allow or deny, or both".to_owned());
    }
    let mut ranges = |field: &str, texts: &[String]| {
        let mut ranges = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match text.parse::<Cidr>() {
                Ok(range) => ranges.push(range),
                Err(error) => violations.add(format!("policies.{name}.{field}[{index}]"), error.to_string()),
            }
        }
        ranges.into_boxed_slice()
    };
    let (allow, deny) = (ranges("allow", &spec.allow), ranges("deny", &spec.deny));
    if violations.len() > 0 {
        Err(violations.into_vec())
    } else {
        Ok(Arc::new(Ip { name: name.clone(), allow, deny }))
    }
}

impl Policy for Ip {
    fn name(&self) -> &Name {
        &self.name
    }

    fn request(&self, exchange: &mut Exchange<'_>) -> Result<Verdict, Refusal> {
        let within = |ranges: &[Cidr]| ranges.iter().any(|range| range.contains(exchange.client));
        if within(&self.deny) || !self.allow.is_empty() && !within(&self.allow) {
            return Err(Refusal::new(
                Code::Denied,
                "address_denied",
                "Requests from this address are not allowed.",
            ));
        }
        Ok(Verdict::Pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test::{policy, run};

    #[test]
    fn deny_goes_over_allow() {
        let built = policy(r#"{"type":"ip","allow":["127.0.0.0/8"],"deny":["127.0.0.2"]}"#).unwrap();
        let from = |address: &str| {
            run(&*built, |exchange| exchange.client = address.parse().unwrap())
                .map_err(|refusal| refusal.code)
        };
        assert_eq!(from("127.0.0.1"), Ok(()));
        assert_eq!(from("::ffff:127.0.0.1"), Ok(()));
        assert_eq!(from("127.0.0.2"), Err(Code::Denied));
        assert_eq!(from("10.0.0.1"), Err(Code::Denied));
    }

    #[test]
    fn a_bad_range_names_its_place() {
        let bad = policy(r#"{"type":"ip","allow":["::/0","x"],"deny":["1.2.3.4/33"]}"#).unwrap_err();
        let paths: Vec<&str> = bad.iter().map(|violation| &*violation.path).collect();
        assert_eq!(paths, ["policies.p.allow[1]", "policies.p.deny[0]"]);
        assert_eq!(policy(r#"{"type":"ip"}"#).unwrap_err()[0].path, "policies.p");
    }
}
