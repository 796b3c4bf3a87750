//! Nodes in one cluster.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Admin, Origin,
    invariant::{Restored, State},
    links::Links,
    member::leads,
    node::Node,
    until,
};

/// Where `gwnode` is, with `gwctl` beside it: `$PHALANX_GWNODE`, or beside the tests, built now if it is not
/// there.
fn gwnode() -> PathBuf {
    if let Some(path) = std::env::var_os("PHALANX_GWNODE") {
        return path.into();
    }
    let program = std::env::current_exe().expect("a program knows where it is");
    let folder = program.parent().expect("it is in a folder");
    // Tests are in target/PROFILE/deps, other programs one above.
    let profile = if folder.ends_with("deps") { folder.parent() } else { Some(folder) };
    let path = profile.expect("it is in target/PROFILE").join("gwnode");
    // Always asked, so that nothing runs against an old build; with nothing to do it takes a moment.
    let release = path.parent().is_some_and(|profile| profile.ends_with("release"));
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--workspace", "--bins"]).args(release.then_some("--release"));
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    assert!(build.status().expect("cargo runs").success(), "gwnode does not build");
    path
}

/// Runs the gwctl beside this gwnode with these contexts; gives what it says.
fn run_gwctl(gwnode: &Path, contexts: &Path, arguments: &[&str]) -> String {
    let program = gwnode.with_file_name("gwctl");
    let ran = Command::new(program).args(arguments).env("PHALANX_CONTEXT", contexts).output();
    let ran = ran.expect("gwctl runs");
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.status.success(), "{arguments:?}: {said}{}", String::from_utf8_lossy(&ran.stderr));
    said
}

/// Keeps a backup of the cluster of this node, which is left in peace, and founds it again as one of one node, which ends; gives
/// what it was and what it came to be.
pub fn kept_and_restored(admin: &Admin) -> Restored {
    let dir = TempDir::new().expect("a temporary folder");
    let (file, socket) = (dir.path().join("backup"), admin.socket().display().to_string());
    let words = ["--socket", &socket, "cluster", "backup", &file.display().to_string()];
    let before = until("nothing changes meanwhile", || {
        let before = State::of(admin);
        let _ = std::fs::remove_file(&file);
        run_gwctl(&gwnode(), &dir.path().join("contexts.toml"), &words);
        (State::of(admin).config == before.config).then_some(before)
    });
    let restored = Cluster::restored(&file);
    until("the restored node leads", || restored.admin(0).is_ready().then_some(()));
    Restored { before, after: State::of(restored.admin(0)) }
}

/// Several nodes in one cluster.
pub struct Cluster {
    /// The nodes, in the order in which they joined.
    pub nodes: Vec<Node>,
    /// What the first one said when it formed the cluster: the CA's certificate and the first admin token
    /// among it.
    pub formed: Value,
    links: Option<Links>,
    /// Data folders that were given, in the order in which nodes get them.
    folders: Vec<PathBuf>,
    program: PathBuf,
    dir: TempDir,
}

impl Cluster {
    /// Forms a cluster of so many nodes, and waits until all vote.
    pub fn form(count: usize) -> Self {
        Self::form_by(count, None, Vec::new())
    }

    /// Forms a cluster whose nodes can be isolated: they reach each other through relays alone.
    pub fn form_linked(count: usize) -> Self {
        Self::form_by(count, Some(Links::new(0)), Vec::new())
    }

    /// The same with the nodes' data in these folders, if there are any. What bad weather does comes from this seed.
    pub fn form_linked_in(count: usize, folders: Vec<PathBuf>, seed: u64) -> Self {
        Self::form_by(count, Some(Links::new(seed)), folders)
    }

    fn form_by(count: usize, links: Option<Links>, folders: Vec<PathBuf>) -> Self {
        let (program, dir) = (gwnode(), TempDir::new().expect("a temporary folder"));
        let mut cluster = Self { nodes: Vec::new(), formed: Value::Null, links, folders, program, dir };
        cluster.formed = cluster.add().admin.must("POST", "/v1/cluster/init", &json!({}));
        for _ in 1..count {
            cluster.join();
        }
        cluster
    }

    /// Founds a cluster of one node again from a backup, or from the data folder of a member.
    pub fn restored(source: &Path) -> Self {
        let (program, dir) = (gwnode(), TempDir::new().expect("a temporary folder"));
        let mut node = Node::new(&program, dir.path().join("node1"), None);
        let restored = node.restore(source);
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        node.start();
        let (nodes, folders) = (vec![node], Vec::new());
        Self { nodes, formed: Value::Null, links: None, folders, program, dir }
    }

    /// Starts one more node, which is in no cluster yet.
    pub fn add(&mut self) -> &mut Node {
        let own = || self.dir.path().join(format!("node{}", self.nodes.len() + 1));
        let data = self.folders.get(self.nodes.len()).cloned().unwrap_or_else(own);
        let mut node = Node::new(&self.program, data, self.links.as_ref());
        node.start();
        self.nodes.push(node);
        self.nodes.last_mut().expect("it was just put there")
    }

    /// The ways between the nodes. The cluster must have been formed with links.
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("the cluster was formed with links")
    }

    /// Cuts the node at this place off from all others; clients and this test still reach it.
    pub fn isolate(&self, place: usize) {
        for other in self.others(place) {
            self.cut(place, other);
            self.cut(other, place);
        }
    }

    /// Cuts the way from the node at one place to that at another; the way back stays.
    pub fn cut(&self, from: usize, to: usize) {
        self.links().cut(from, to);
    }

    /// Lets all nodes reach each other again.
    pub fn heal(&self) {
        self.links().heal();
    }

    /// A join token for one node, made by the first node that runs.
    pub fn token(&self) -> String {
        let made = self.nodes[0].admin.must("POST", "/v1/cluster/tokens", &json!({}));
        made["token"].as_str().expect("a token").to_owned()
    }

    /// Has one more node join, and waits until it votes. Gives its id.
    pub fn join(&mut self) -> u64 {
        let (token, address) = (self.token(), self.nodes[0].peer.to_string());
        let joined =
            self.add().admin.must("POST", "/v1/cluster/join", &json!({"address": address, "token": token}));
        let id = joined["node_id"].as_u64().expect("an id");
        until("the new node votes, and all see that it is healthy", || {
            let seen = |node: &Node| {
                let status = node.admin.status();
                let members = status["members"].as_array()?;
                let it = members.iter().find(|member| member["id"] == id)?;
                (it["role"] == "voter" && it["health"] == "healthy").then_some(())
            };
            self.nodes.iter().map(seen).collect::<Option<Vec<()>>>()
        });
        id
    }

    /// Routes everything to this origin, through the node at this place, and waits until all nodes do.
    pub fn route_to(&self, origin: &Origin, place: usize) {
        self.nodes[place].admin.route_to(origin);
    }

    /// The admin API of the node at this place.
    pub fn admin(&self, place: usize) -> &Admin {
        &self.nodes[place].admin
    }

    /// All places but this one.
    pub fn others(&self, place: usize) -> Vec<usize> {
        (0..self.nodes.len()).filter(|other| *other != place).collect()
    }

    /// Where the nodes at these places serve clients.
    pub fn proxies(&self, places: &[usize]) -> Vec<SocketAddr> {
        places.iter().map(|place| self.nodes[*place].proxy).collect()
    }

    /// Runs gwctl; gives what it says.
    pub fn gwctl(&self, arguments: &[&str]) -> String {
        run_gwctl(&self.program, &self.dir.path().join("contexts.toml"), arguments)
    }

    /// The place of the leader among the nodes, once there is one among these.
    pub fn leader_among(&self, places: &[usize]) -> usize {
        until("there is a leader", || {
            places.iter().copied().find(|place| leads(&self.nodes[*place].admin.status()))
        })
    }

    /// The newest term that a node knows of.
    pub fn term(&self) -> u64 {
        let terms = self.nodes.iter().filter_map(|node| node.admin.status()["term"].as_u64());
        terms.max().expect("a node is in the cluster")
    }

    /// The place of the leader.
    pub fn leader(&self) -> usize {
        self.leader_among(&(0..self.nodes.len()).collect::<Vec<_>>())
    }
}
