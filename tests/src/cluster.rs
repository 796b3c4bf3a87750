//! Nodes as processes of their own.

use std::{
    fs::File,
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    http::{self, Answer},
    until,
};

/// Where `gwnode` is: `$PHALANX_GWNODE`, or beside the tests, built now if it is not there.
fn gwnode() -> PathBuf {
    if let Some(path) = std::env::var_os("PHALANX_GWNODE") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a test knows where it is");
    let path = test.ancestors().nth(2).expect("it is in target/PROFILE/deps").join("gwnode");
    // Always asked, so that no test runs against an old build; with nothing to do it takes a moment.
    let release = path.parent().is_some_and(|profile| profile.ends_with("release"));
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--quiet", "--workspace", "--bins"]).args(release.then_some("--release"));
    build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    assert!(build.status().expect("cargo runs").success(), "gwnode does not build");
    path
}

fn free_port() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = tcp.local_addr().expect("it is bound");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// A node. Killed when dropped.
pub struct Node {
    /// Where it serves clients.
    pub proxy: SocketAddr,
    /// Where it serves other nodes.
    pub peer: SocketAddr,
    admin: SocketAddr,
    /// Its data folder.
    pub data: PathBuf,
    program: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// A node that is not started yet, with its data in this folder.
    pub fn new(program: &Path, data: PathBuf) -> Self {
        let (proxy, peer, admin) = (free_port(), free_port(), free_port());
        Self { proxy, peer, admin, data, program: program.to_owned(), child: None }
    }

    fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.log()).expect("the log can be written");
        Command::new(&self.program)
            .args(["run", "--promote-after", "200ms", "--workers", "1", "--grace", "5s", "--data"])
            .arg(&self.data)
            .args(["--proxy", &self.proxy.to_string(), "--peer", &self.peer.to_string()])
            .args(["--admin", &self.admin.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("gwnode starts")
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// What it has written to its log.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Starts it, and waits until it answers on its socket.
    pub fn start(&mut self) {
        self.child = Some(self.spawn());
        until("a node answers on its socket", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            assert!(ended.is_none(), "the node ended: {ended:?}\n{}", self.log_text());
            self.ask("GET", "/healthz", &Value::Null).ok()
        });
    }

    /// Starts it, and waits until it ends by itself.
    pub fn start_in_vain(&mut self) -> ExitStatus {
        self.spawn().wait().expect("it can be waited for")
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Tells it to stop with SIGTERM, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the node runs");
        let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        assert!(sent.is_ok_and(|sent| sent.success()));
        child.wait().expect("it can be waited for")
    }

    /// Asks it something on its socket.
    pub fn ask(&self, method: &str, target: &str, body: &Value) -> io::Result<Answer> {
        self.ask_with(method, target, &[], body)
    }

    /// Asks it something on its socket, with these headers.
    pub fn ask_with(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> io::Result<Answer> {
        http::local(&self.data.join("admin.sock"), method, target, headers, body)
    }

    /// Asks it something that must be done; gives the answer's JSON.
    pub fn must(&self, method: &str, target: &str, body: &Value) -> Value {
        let answer = self.ask(method, target, body).expect("the node answers");
        let text = String::from_utf8_lossy(&answer.body);
        assert!((200..300).contains(&answer.status), "{method} {target}: {} {text}", answer.status);
        answer.json()
    }

    /// The cluster as it sees it.
    pub fn status(&self) -> Value {
        self.ask("GET", "/v1/cluster", &Value::Null).map(|answer| answer.json()).unwrap_or_default()
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.status()["node_id"].as_u64().expect("it is in a cluster")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log_text();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- the end of {}\n{}", self.log().display(), last.join("\n"));
        }
    }
}

/// Several nodes in one cluster.
pub struct Cluster {
    /// The nodes, in the order in which they joined.
    pub nodes: Vec<Node>,
    program: PathBuf,
    dir: TempDir,
}

impl Cluster {
    /// Forms a cluster of so many nodes, and waits until all vote.
    pub fn form(count: usize) -> Self {
        let (program, dir) = (gwnode(), TempDir::new().expect("a temporary folder"));
        let mut cluster = Self { nodes: Vec::new(), program, dir };
        cluster.add().must("POST", "/v1/cluster/init", &json!({}));
        for _ in 1..count {
            cluster.join();
        }
        cluster
    }

    /// Starts one more node, which is in no cluster yet.
    pub fn add(&mut self) -> &mut Node {
        let data = self.dir.path().join(format!("node{}", self.nodes.len() + 1));
        let mut node = Node::new(&self.program, data);
        node.start();
        self.nodes.push(node);
        self.nodes.last_mut().expect("it was just put there")
    }

    /// A join token for one node, made by the first node that runs.
    pub fn token(&self) -> String {
        let made = self.nodes[0].must("POST", "/v1/cluster/tokens", &json!({}));
        made["token"].as_str().expect("a token").to_owned()
    }

    /// Has one more node join, and waits until it votes. Gives its id.
    pub fn join(&mut self) -> u64 {
        let (token, address) = (self.token(), self.nodes[0].peer.to_string());
        let joined =
            self.add().must("POST", "/v1/cluster/join", &json!({"address": address, "token": token}));
        let id = joined["node_id"].as_u64().expect("an id");
        until("the new node votes, and all see that it is healthy", || {
            let seen = |node: &Node| {
                let status = node.status();
                let members = status["members"].as_array()?;
                let it = members.iter().find(|member| member["id"] == id)?;
                (it["role"] == "voter" && it["health"] == "healthy").then_some(())
            };
            self.nodes.iter().map(seen).collect::<Option<Vec<()>>>()
        });
        id
    }

    /// The place of the leader among the nodes, once there is one among these.
    pub fn leader_among(&self, places: &[usize]) -> usize {
        until("there is a leader", || {
            places.iter().copied().find(|place| {
                let status = self.nodes[*place].status();
                status["leader"].is_u64() && status["leader"] == status["node_id"]
            })
        })
    }

    /// The place of the leader.
    pub fn leader(&self) -> usize {
        self.leader_among(&(0..self.nodes.len()).collect::<Vec<_>>())
    }
}
