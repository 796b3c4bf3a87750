//! `gwctl cluster status` and `members`.

use http::Method;
use model::api::ClusterStatus;

use crate::{
    cli::Global,
    client::Call,
    command::token::in_words,
    failure::Failure,
    output,
    table::{Table, plain},
};

/// Asks and prints; with `summary`, the cluster as a whole first.
pub(crate) async fn run(global: &Global, with_summary: bool) -> Result<(), Failure> {
    let status: ClusterStatus = global.client()?.json(Call::new(Method::GET, "/v1/cluster")).await?;
    if !with_summary {
        return output::print(global.output, &status.members, |_| members(&status));
    }
    output::print(global.output, &status, |status| {
        let leader = status.leader.map_or("none".to_owned(), |leader| leader.to_string());
        format!(
            "{}\ncluster {} epoch {} leader {leader} term {} revision {}\n\n{}",
            summary(status),
            plain(status.cluster_id.as_deref().unwrap_or("-")),
            status.epoch,
            status.term,
            status.revision,
            members(status),
        )
    })
}

/// The cluster in a line.
pub(crate) fn summary(status: &ClusterStatus) -> String {
    if status.removed {
        let id = status.node_id.map_or("?".to_owned(), |id| id.to_string());
        return format!("Node {id}, which answers, was REMOVED from the cluster; this is what it last heard");
    }
    let healthy = status.members.iter().filter(|member| member.health == "healthy").count();
    let all = status.members.len();
    let failures = if status.tolerates == 1 { "failure" } else { "failures" };
    let quorum = if status.quorum { "" } else { ", NO QUORUM" };
    format!("Cluster {healthy}/{all} healthy, tolerates {} {failures}{quorum}", status.tolerates)
}

fn members(status: &ClusterStatus) -> String {
    let mut table = Table::new(&[
        "ID",
        "NAME",
        "ROLE",
        "HEALTH",
        "PHASE",
        "CONTACT",
        "APPLIED",
        "INSTALLED",
        "LAG",
        "VERSION",
        "CERTIFICATE",
        "PEER",
        "ADMIN",
    ]);
    for member in &status.members {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        table.row([
            member.id.to_string(),
            member.name.clone(),
            member.role.clone(),
            member.health.clone(),
            member.phase.clone(),
            member.last_contact_ms.map(|ms| format!("{ms}ms")).unwrap_or_default(),
            number(member.applied.map(|revision| revision.0)),
            number(member.installed.map(|revision| revision.0)),
            number(member.lag),
            member.version.clone(),
            member.certificate_expires_at_ms.map(in_words).unwrap_or_default(),
            member.address.clone(),
            member.admin.clone(),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts() {
        let member = |health: &str| serde_json::json!({"id": 1, "name": "n", "address": "a:1", "admin": "a:2", "role": "voter", "health": health});
        let status: ClusterStatus = serde_json::from_value(serde_json::json!({
            "node_id": 1, "quorum": true, "tolerates": 1, "revision": 7,
            "members": [member("healthy"), member("healthy"), member("down")],
        }))
        .unwrap();
        assert_eq!(summary(&status), "Cluster 2/3 healthy, tolerates 1 failure");
        assert_eq!(members(&status).lines().count(), 4);
    }
}
