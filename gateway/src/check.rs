//! What the data plane would not be able to compile in a change, told before the change is proposed.

use model::{Change, Config, Kind, Name, Op, Violation};

use crate::{
    install,
    plan::{transport, upstream::TargetHost},
    policy, tls,
    violations::Violations,
};

/// Every violation that `change` would bring into `config` and that only the data plane knows: policy bodies, groups'
/// overrides of them, patterns, rewrites, header names, addresses. In time proportional to the change, but for policies,
/// for each of which the groups are looked at.
pub fn check(config: &Config, change: &Change) -> Vec<Violation> {
    let mut after = config.clone();
    // The base is the proposer's business; here only what the change would make counts.
    after.apply(&Change { base: after.revision, ops: change.ops.clone() });
    let mut violations = Violations::default();
    for op in &change.ops {
        let Op::Put { kind, name, .. } = op else { continue };
        if let Some(unreadable) = after.unreadable.get(&(*kind, name.clone())) {
            violations.add(format!("{}.{name}", kind.plural()), unreadable.error.clone());
            continue;
        }
        match kind {
            Kind::Upstream => check_upstream(&after, name, &mut violations),
            Kind::Policy => check_policy(&after, name, &mut violations),
            Kind::Group => check_group(&after, name, &mut violations),
            Kind::Route => {
                if let Some(entry) = after.routes.get(name)
                    && let Err(more) = install::compile_route(name, entry, &after)
                {
                    violations.extend(more);
                }
            }
            Kind::Key => {
                let digest = after.keys.get(name).map(|entry| install::digest(&entry.spec.digest));
                if digest == Some(None) {
                    violations.add(format!("keys.{name}.digest"), install::BAD_DIGEST.to_owned());
                }
            }
            Kind::Certificate => {
                if let Some(entry) = after.certificates.get(name)
                    && let Err(more) =
                        tls::certificate::compile(name, &entry.spec, &tls::tickets::Tickets::off())
                {
                    violations.extend(more);
                }
            }
            Kind::TcpRoute => {
                if let Some(entry) = after.tcp_routes.get(name) {
                    violations.extend(install::missing_upstreams(name, &entry.spec, &after));
                }
            }
            Kind::Consumer => {}
        }
    }
    let mut violations = violations.into_vec();
    violations.sort();
    violations.dedup();
    violations
}

fn check_upstream(after: &Config, name: &Name, violations: &mut Violations) {
    let Some(entry) = after.upstreams.get(name) else { return };
    for (index, target) in entry.spec.targets.iter().enumerate() {
        if TargetHost::parse(&target.address).is_none() {
            let path = format!("upstreams.{name}.targets[{index}].address");
            violations.add(path, TargetHost::wrong(&target.address));
        }
    }
    let certificate = |name: &Name| {
        let entry = after.certificates.get(name)?;
        let served = tls::certificate::compile(name, &entry.spec, &tls::tickets::Tickets::off());
        served.ok().map(|served| served.key)
    };
    violations.extend(transport::check(name, &entry.spec, certificate));
}

fn check_policy(after: &Config, name: &Name, violations: &mut Violations) {
    let Some(entry) = after.policies.get(name) else { return };
    if let Err(more) = policy::build(name, &entry.spec, policy::Context::default()) {
        return violations.extend(more);
    }
    for (group, spec) in &after.groups {
        if spec.spec.policies.contains_key(name) {
            check_override(after, group, name, violations);
        }
    }
}

fn check_group(after: &Config, name: &Name, violations: &mut Violations) {
    let Some(entry) = after.groups.get(name) else { return };
    for policy in entry.spec.policies.keys() {
        check_override(after, name, policy, violations);
    }
}

fn check_override(after: &Config, group: &Name, policy: &Name, violations: &mut Violations) {
    let path = format!("groups.{group}.policies.{policy}");
    let Some(entry) = after.policies.get(policy) else {
        return violations.add(path, format!("there is no policy {policy}"));
    };
    let fields = after.groups.get(group).and_then(|entry| entry.spec.policies.get(policy));
    let Some(fields) = fields else { return };
    // What is wrong with the policy itself is told at the policy.
    if policy::build(policy, &entry.spec, policy::Context::default()).is_ok()
        && let Err(more) = policy::overridden(policy, &entry.spec, group, fields, None)
    {
        violations.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(kind: Kind, name: &str, doc: &str) -> Op {
        Op::Put { kind, name: Name::new(name).unwrap(), doc: doc.as_bytes().into() }
    }

    #[test]
    fn every_violation_is_told_at_once_with_its_path() {
        let ops = vec![
            put(Kind::Upstream, "u", r#"{"targets":[{"address":"nope"}]}"#),
            put(Kind::Policy, "keys", r#"{"type":"api-key","in":{"header":"a b"}}"#),
            put(Kind::Policy, "limit", r#"{"type":"nope"}"#),
            put(Kind::Policy, "more", r#"{"type":"api-key","inn":1}"#),
            put(Kind::Policy, "good", r#"{"type":"api-key"}"#),
            put(Kind::Group, "gold", r#"{"policies":{"good":{"hide":false}}}"#),
            put(Kind::Route, "r", r#"{"match":[{"path":{"regex":"("}}],"upstream":"u"}"#),
            put(Kind::Key, "k", r#"{"consumer":"c","digest":"xyz","hint":"abcd","issued_at_s":1}"#),
        ];
        let violations = check(&Config::default(), &Change { base: Default::default(), ops });
        let paths: Vec<&str> = violations.iter().map(|violation| &*violation.path).collect();
        assert_eq!(
            paths,
            [
                "groups.gold.policies.good.hide",
                "keys.k.digest",
                "policies.keys.in.header",
                "policies.limit.type",
                "policies.more.inn",
                "routes.r.match[0].path.regex",
                "upstreams.u.targets[0].address"
            ]
        );
    }

    #[test]
    fn a_good_change_has_none() {
        let ops = vec![
            put(Kind::Upstream, "u", r#"{"targets":[{"address":"10.0.0.1:80"}]}"#),
            put(Kind::Policy, "keys", r#"{"type":"api-key","in":"bearer","allow":{"groups":["gold"]}}"#),
            put(Kind::Route, "r", r#"{"policies":["keys"],"upstream":"u"}"#),
        ];
        assert_eq!(check(&Config::default(), &Change { base: Default::default(), ops }), []);
    }
}
