//! The cluster of `docker-compose.cluster.yml`: three nodes and two origins in containers of a project of their own.

use std::{net::SocketAddr, process::Command};

use serde_json::Value;

use crate::{
    docker::{self, Told, docker, must},
    member::{is_whole, leads},
    until,
};

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// The containers. With their networks and volumes they are removed when dropped.
pub struct Containers {
    project: String,
    nodes: Vec<String>,
}

impl Containers {
    /// Starts them, and waits until three nodes have found together.
    ///
    /// `$PHALANX_IMAGE` is the image, `$PHALANX_PROJECT` what the project is called: `docker/test` sets them.
    pub fn up() -> Self {
        let project = std::env::var("PHALANX_PROJECT");
        let project = project.unwrap_or_else(|_| format!("phalanx-test-{}", std::process::id()));
        let mut containers = Self { project, nodes: Vec::new() };
        must(containers.compose().args(["up", "-d"]));
        let id = |name: &&str| must(containers.compose().args(["ps", "-q", name]));
        containers.nodes = NODES.iter().map(id).collect();
        containers.wait_until_whole();
        containers
    }

    fn compose(&self) -> Command {
        let mut command = docker::compose(&self.project, &[]);
        // Any that are free.
        for node in ["NODE1", "NODE2", "NODE3"] {
            command.env(format!("{node}_PROXY_PORT"), "0").env(format!("{node}_ADMIN_PORT"), "0");
        }
        command
    }

    /// Where the node at this place serves clients. It is another port after a restart.
    pub fn proxy(&self, place: usize) -> SocketAddr {
        let port = docker(&["port", &self.nodes[place], "8080/tcp"]);
        port.parse().unwrap_or_else(|error| panic!("{port:?}: {error}"))
    }

    /// Asks the node at this place by the `gwctl` in its container.
    pub fn gwctl(&self, place: usize, words: &[&str]) -> Told {
        docker::gwctl(&self.nodes[place], words)
    }

    /// The cluster as the node at this place sees it; null if it does not answer.
    pub fn status(&self, place: usize) -> Value {
        let told = self.gwctl(place, &["-o", "json", "cluster", "status"]);
        serde_json::from_str(&told.out).unwrap_or_default()
    }

    /// Waits until each node sees three healthy voters, and docker healthy containers.
    pub fn wait_until_whole(&self) {
        until("each node sees three healthy voters", || {
            (0..NODES.len()).all(|place| is_whole(&self.status(place), NODES.len())).then_some(())
        });
        until("docker finds the nodes healthy", || {
            let well = |id: &String| docker(&["inspect", "-f", "{{.State.Health.Status}}", id]) == "healthy";
            self.nodes.iter().all(well).then_some(())
        });
    }

    /// The place of the leader, once there is one among these.
    pub fn leader_among(&self, places: &[usize]) -> usize {
        until("there is a leader", || places.iter().copied().find(|place| leads(&self.status(*place))))
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&self, place: usize) {
        docker(&["kill", "-s", "KILL", &self.nodes[place]]);
    }

    /// Starts a node that was killed.
    pub fn start(&self, place: usize) {
        docker(&["start", &self.nodes[place]]);
    }

    /// Freezes a node: it neither runs nor closes what it has open.
    pub fn freeze(&self, place: usize) {
        docker(&["pause", &self.nodes[place]]);
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self, place: usize) {
        docker(&["unpause", &self.nodes[place]]);
    }

    /// Takes a node off the network of the nodes. Clients and origins still reach it.
    pub fn cut_off(&self, place: usize) {
        docker(&["network", "disconnect", &self.peers(), &self.nodes[place]]);
    }

    /// Puts a node that was cut off back, where it may get another IP address.
    pub fn heal(&self, place: usize) {
        let alias = format!("{}.peers", NODES[place]);
        docker(&["network", "connect", "--alias", &alias, &self.peers(), &self.nodes[place]]);
    }

    fn peers(&self) -> String {
        format!("{}_peers", self.project)
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.compose().args(["logs", "--no-color", "--tail", "60"]).output();
            let logs = logs.map(|output| output.stdout).unwrap_or_default();
            eprintln!("--- the end of the containers' logs\n{}", String::from_utf8_lossy(&logs));
        }
        let removed = self.compose().args(["down", "--volumes", "--timeout", "1"]).output();
        if !removed.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("the project {} is left over: {removed:?}", self.project);
        }
    }
}
