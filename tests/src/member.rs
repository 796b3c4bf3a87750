//! A node as its clients see it, be it a process or a container.

use std::net::SocketAddr;

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
