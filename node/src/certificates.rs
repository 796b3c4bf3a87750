//! Warns of certificates that end soon.

use std::{sync::Arc, time::Duration};

use gateway::Facts;
use model::Config;

use crate::{identity, node::Node};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(12 * 3_600);
/// How long before a certificate ends it is warned of, in seconds.
const SOON_S: u64 = 14 * 86_400;
/// The most certificates that are named at a look.
const NAMED_MAX: usize = 20;

/// Looks now and then, and once a cluster's config is there, until the node stops.
pub(crate) async fn watch(node: Arc<Node>) {
    let stop = node.stopping().clone();
    let mut wait = Duration::from_secs(10);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = INTERVAL;
        let config = match &*node.member.read().await {
            Some(member) => member.consensus.config().borrow().clone(),
            None => continue,
        };
        for (name, days_left) in ending(&config, identity::now_ms() / 1_000).into_iter().take(NAMED_MAX) {
            if days_left < 0 {
                tracing::warn!(certificate = %name, "a certificate is not good any more: clients refuse it");
            } else {
                tracing::warn!(certificate = %name, days_left, "a certificate ends soon");
            }
        }
    }
}

/// The certificates that end soon or have ended, and in how many days.
fn ending(config: &Config, now_s: u64) -> Vec<(model::Name, i64)> {
    let days = |end_s: u64| {
        let left_s = i64::try_from(end_s).unwrap_or(i64::MAX) - i64::try_from(now_s).unwrap_or(i64::MAX);
        left_s.div_euclid(86_400)
    };
    let facts = config.certificates.iter().filter_map(|(name, entry)| {
        let facts = Facts::of_chain(&entry.spec.chain).ok()?;
        (facts.not_after_s < now_s + SOON_S).then(|| (name.clone(), days(facts.not_after_s)))
    });
    facts.collect()
}

#[cfg(test)]
mod tests {
    use model::{Change, Kind, Name, Op, document};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_ends_soon_is_found() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let spec = json!({"chain": made.cert.pem(), "key": made.signing_key.serialize_pem()});
        let mut config = Config::default();
        let name = Name::new("a").unwrap();
        let op = Op::Put { kind: Kind::Certificate, name: name.clone(), doc: document::canonical(&spec) };
        config.apply(&Change { base: config.revision, ops: vec![op] });
        let end_s = Facts::of_chain(&made.cert.pem()).unwrap().not_after_s;
        assert_eq!(ending(&config, end_s - 15 * 86_400), []);
        assert_eq!(ending(&config, end_s - 86_400 - 1), [(name.clone(), 1)]);
        assert_eq!(ending(&config, end_s + 1), [(name, -1)]);
    }
}
