//! A node as its clients see it, be it a process or a container.

use std::net::SocketAddr;

use serde_json::Value;

use crate::{Admin, Cluster};

/// A node that can be asked and sent requests.
#[derive(Clone)]
pub struct Member {
    /// What people call it.
    pub name: String,
    /// Its admin API.
    pub admin: Admin,
    /// Where it serves clients.
    pub proxy: SocketAddr,
}

/// Whether a node whose status is this sees so many voters, all healthy, and a leader among them.
pub fn is_whole(status: &Value, voters: usize) -> bool {
    let healthy = |member: &Value| {
        (member["role"] == "leader" || member["role"] == "voter") && member["health"] == "healthy"
    };
    let members = status["members"].as_array();
    status["quorum"] == true
        && members.is_some_and(|members| members.len() == voters && members.iter().all(healthy))
}

/// The revision that the node whose status this is has installed, by what it says of itself; none where it is no member.
pub fn installed(status: &Value) -> Option<u64> {
    let itself = status["members"].as_array()?.iter().find(|member| member["id"] == status["node_id"]);
    itself.and_then(|member| member["installed"].as_u64())
}

/// Whether the node whose status this is says that it leads.
pub fn leads(status: &Value) -> bool {
    status["leader"].is_u64() && status["leader"] == status["node_id"]
}

impl Cluster {
    /// Its nodes as their clients see them, in the order in which they joined.
    pub fn members(&self) -> Vec<Member> {
        let member = |(place, node): (usize, &crate::Node)| Member {
            name: format!("node{}", place + 1),
            admin: node.admin.clone(),
            proxy: node.proxy,
        };
        self.nodes.iter().enumerate().map(member).collect()
    }
}
