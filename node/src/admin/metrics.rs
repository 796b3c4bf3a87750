//! What Prometheus reads: the registry's own, and what is looked up when it asks.

use std::sync::Arc;

use http::{Response, header};

use crate::{
    admin::{Answer, Asked},
    node::{Node, Phase},
};

/// The process as Linux sees it, under the names that Prometheus' own clients use; nothing where there is no /proc.
fn process() -> Vec<(&'static str, u64)> {
    let mut found = Vec::new();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib =
        resident.and_then(|text| text.trim().strip_suffix("kB")).and_then(|kib| kib.trim().parse().ok());
    found.extend(kib.map(|kib: u64| ("process_resident_memory_bytes", kib * 1_024)));
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        found.push(("process_open_fds", open.count() as u64));
    }
    found
}

/// `GET /metrics`: Prometheus, text format 0.0.4.
pub(super) async fn metrics(node: Arc<Node>, _: Asked) -> Answer {
    let mut text =
        prometheus::TextEncoder::new().encode_to_string(&node.registry.gather()).unwrap_or_default();
    if let Some(member) = &*node.member.read().await {
        let status = member.consensus.status();
        for (name, value) in [
            ("phalanx_raft_term", status.term),
            ("phalanx_raft_last_log_index", status.last_log_index.unwrap_or(0)),
            ("phalanx_raft_applied_index", status.applied_index.unwrap_or(0)),
            ("phalanx_raft_leader", u64::from(status.role == raft::Role::Leader)),
            ("phalanx_raft_quorum", u64::from(status.quorum)),
            ("phalanx_config_revision", member.consensus.config().borrow().revision.0),
            ("phalanx_config_installed_revision", node.installed.borrow().0),
        ] {
            text.push_str(&format!("# TYPE {name} gauge\n{name} {value}\n"));
        }
    }
    if let Some(age) = node.lease.age() {
        let (name, value) = ("phalanx_config_confirmed_age_seconds", age.as_secs_f64());
        text.push_str(&format!("# TYPE {name} gauge\n{name} {value}\n"));
    }
    for (name, value) in process() {
        text.push_str(&format!("# TYPE {name} gauge\n{name} {value}\n"));
    }
    text.push_str(&format!(
        "# TYPE phalanx_ready gauge\nphalanx_ready {}\n",
        u8::from(node.phase() == Phase::Ready)
    ));
    let mut response = Response::new(super::reply::whole(text));
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
