//! `gwnode demo`: three nodes on loopback, each a process of its own, two origins, a few routes and a key to try.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use http::Method;
use model::{
    Name,
    api::{
        Applied, ApplyRequest, ClusterStatus, Formed, InitRequest, JoinRequest, Joined, KeyIssued, KeyRequest,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{local, origin};

const NODES: u16 = 3;
/// Node n serves clients on this port plus n.
const PROXY: u16 = 8080;
/// Its admin API.
const ADMIN: u16 = 9080;
/// Other nodes.
const PEER: u16 = 7080;
/// The origins, on this port and the next.
const ORIGIN: u16 = 7091;
/// For anything in the demo to come about.
const PATIENCE: Duration = Duration::from_secs(60);

const DOCUMENT: &str = r#"
version: 1
upstreams:
  demo:
    targets: [{address: "127.0.0.1:7091"}, {address: "127.0.0.1:7092"}]
policies:
  keys: {type: api-key, in: {header: x-api-key}}
consumers:
  alice: {}
routes:
  demo:
    match: [{path: {prefix: /}}]
    upstream: demo
    response: {headers: {set: {x-demo: phalanx}}}
  orders:
    match: [{path: {template: "/orders/{id}"}, methods: [GET]}]
    request: {headers: {add: {x-route: orders}}}
    upstream: demo
  private:
    match: [{path: {prefix: /private}}]
    policies: [keys]
    upstream: demo
  hello:
    match: [{path: {exact: /hello}}]
    respond: {status: 200, headers: {content-type: text/plain}, body: "hello from the gateway\n"}
  docs:
    match: [{path: {exact: /docs}}]
    redirect: {status: 302, path: {full: /hello}}
"#;

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A node of the demo. Killed if the demo ends without stopping it.
struct Node {
    number: u16,
    data: PathBuf,
    child: Child,
}

impl Drop for Node {
    fn drop(&mut self) {
        // Of one that has ended already there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the demo until Ctrl-C.
pub(crate) async fn run(dir: Option<PathBuf>) -> anyhow::Result<()> {
    let mut ports: Vec<u16> = (1..=NODES).flat_map(|n| [PROXY + n, ADMIN + n, PEER + n]).collect();
    ports.extend([ORIGIN, ORIGIN + 1]);
    for port in ports {
        // Let go at once: it only tells early what would be found out late.
        TcpListener::bind(at(port))
            .with_context(|| format!("the demo needs port {port} on 127.0.0.1, and something else has it"))?;
    }
    let temporary = dir.is_none();
    let dir =
        dir.unwrap_or_else(|| std::env::temp_dir().join(format!("phalanx-demo-{}", std::process::id())));
    std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let mut origins = tokio::task::JoinSet::new();
    for (n, name) in [(0, "origin-1"), (1, "origin-2")] {
        origins.spawn(origin::serve(name.to_owned(), origin::bind(at(ORIGIN + n)).await?));
    }
    println!("Starting three nodes; their data and logs are in {}", dir.display());
    let nodes: Vec<Node> = (1..=NODES).map(|number| start(number, &dir)).collect::<anyhow::Result<_>>()?;
    let ended = tokio::select! {
        ended = play(&nodes, &dir) => ended,
        () = crate::node::signal() => Ok(()),
    };
    println!("\nStopping.");
    let stopped = stop(nodes).await;
    if temporary && ended.is_ok() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    ended.and(stopped)
}

fn start(number: u16, dir: &Path) -> anyhow::Result<Node> {
    let data = dir.join(format!("node{number}"));
    let log = std::fs::File::create(dir.join(format!("node{number}.log"))).context("make a node's log")?;
    let child = Command::new(std::env::current_exe().context("find this program")?)
        .arg("run")
        .args(["--name", &format!("node{number}"), "--promote-after", "1s", "--workers", "1"])
        .args(["--proxy", &at(PROXY + number).to_string(), "--admin", &at(ADMIN + number).to_string()])
        .args(["--peer", &at(PEER + number).to_string()])
        .arg("--data")
        .arg(&data)
        .env_remove("PHALANX_SETTINGS")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        // A Ctrl-C in the terminal is for the demo, which stops its nodes in their order.
        .process_group(0)
        .spawn()
        .context("start a node")?;
    Ok(Node { number, data, child })
}

/// Asks again until it is answered, for as long as the demo has patience.
async fn insist<T: DeserializeOwned>(
    node: &Node,
    method: Method,
    path: &str,
    body: &impl serde::Serialize,
) -> anyhow::Result<T> {
    let until = Instant::now() + PATIENCE;
    loop {
        let error = match local::ask(&node.data, method.clone(), path, body).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if Instant::now() > until {
            let log = node.data.with_extension("log");
            return Err(error.context(format!("node{}: {path}; its log is {}", node.number, log.display())));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn play(nodes: &[Node], dir: &Path) -> anyhow::Result<()> {
    let [first, others @ ..] = nodes else { bail!("the demo has no nodes") };
    let nothing = serde_json::Map::new();
    let known: Result<ClusterStatus, _> = local::ask(&first.data, Method::GET, "/v1/cluster", &nothing).await;
    let again = known.is_ok() || first.data.join("identity.json").exists();
    let file = dir.join("context.json");
    if !again {
        let formed: Formed =
            insist(first, Method::POST, "/v1/cluster/init", &InitRequest { advertise: None }).await?;
        let known =
            Known { addresses: admins(), token: formed.admin_token.clone(), ca: formed.ca_certificate };
        let text = serde_json::to_vec(&known).context("write down the admin token")?;
        write_private(&file, &text).with_context(|| format!("write {}", file.display()))?;
        for node in others {
            let request = JoinRequest {
                address: formed.join_address.clone(),
                token: formed.join_token.clone(),
                advertise: None,
            };
            let _: Joined = insist(node, Method::POST, "/v1/cluster/join", &request).await?;
        }
    }
    let what = || format!("read {}, which the demo's first run in this directory wrote", file.display());
    let known = std::fs::read(&file).with_context(what)?;
    write_context(serde_json::from_slice(&known).with_context(what)?)?;
    let until = Instant::now() + PATIENCE;
    let status = loop {
        let status: ClusterStatus = insist(first, Method::GET, "/v1/cluster", &nothing).await?;
        if status.tolerates >= 1 {
            break status;
        }
        if Instant::now() > until {
            bail!("the nodes do not find together; see the logs in {}", dir.display());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let apply = ApplyRequest { document: DOCUMENT.to_owned(), prune: false, dry_run: false };
    let _: Applied = insist(first, Method::POST, "/v1/apply?wait=all", &apply).await?;
    let consumer = Name::new("alice").context("a name")?;
    let request = KeyRequest { consumer, label: "demo".to_owned(), ttl: Some("1d".to_owned()) };
    let issued: KeyIssued = insist(first, Method::POST, "/v1/keys?wait=all", &request).await?;
    let leader = status.members.iter().position(|member| Some(member.id) == status.leader).unwrap_or(0);
    explain(nodes, leader, &issued.key)?;
    std::future::pending().await
}

fn explain(nodes: &[Node], leader: usize, key: &str) -> anyhow::Result<()> {
    let gwctl = std::env::current_exe().context("find this program")?.with_file_name("gwctl");
    let gwctl = match gwctl.exists() {
        true => gwctl.display().to_string(),
        false => "cargo run -q --release --bin gwctl --".to_owned(),
    };
    println!("\nA cluster of three, which tolerates one failure:");
    for (at_index, node) in nodes.iter().enumerate() {
        println!(
            "  node{n}   http://127.0.0.1:{proxy}   admin 127.0.0.1:{admin}   process {pid}{leads}",
            n = node.number,
            proxy = PROXY + node.number,
            admin = ADMIN + node.number,
            pid = node.child.id(),
            leads = if at_index == leader { "   leader" } else { "" },
        );
    }
    println!(
        "\nTry:\n  curl -i http://127.0.0.1:8081/orders/7\n  \
         curl -i -H 'x-api-key: {key}' http://127.0.0.1:8082/private\n  \
         {gwctl} cluster status\n  \
         kill -9 {pid}   # the leader; then: curl -i http://127.0.0.1:{left}/hello\n\n\
         Ctrl-C ends it.",
        pid = nodes.get(leader).map_or(0, |node| node.child.id()),
        left = if leader == 1 { PROXY + 3 } else { PROXY + 2 },
    );
    std::io::stdout().flush().context("print")
}

async fn stop(mut nodes: Vec<Node>) -> anyhow::Result<()> {
    for node in &mut nodes {
        if node.child.try_wait().context("look after a node")?.is_none() {
            let pid = node.child.id().to_string();
            Command::new("kill").args(["-TERM", &pid]).status().context("tell a node to stop")?;
        }
    }
    let until = Instant::now() + Duration::from_secs(15);
    for node in &mut nodes {
        while node.child.try_wait().context("wait for a node")?.is_none() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// What gwctl keeps its contexts in, as far as the demo must know it.
#[derive(Default, Deserialize)]
struct Contexts {
    #[serde(default)]
    contexts: BTreeMap<String, Known>,
}

#[derive(Serialize, Deserialize)]
struct Known {
    addresses: Vec<String>,
    token: String,
    ca: String,
}

/// Adds the context `demo` to gwctl's and makes it the current one, so that plain `gwctl cluster status` works.
fn write_context(known: Known) -> anyhow::Result<()> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let path = set("PHALANX_CONTEXT")
        .or_else(|| set("XDG_CONFIG_HOME").map(|dir| dir.join("phalanx/contexts.toml")))
        .or_else(|| set("HOME").map(|dir| dir.join(".config/phalanx/contexts.toml")));
    let Some(path) = path else { return Ok(()) };
    let what = || format!("write gwctl's contexts {}", path.display());
    let mut contexts: Contexts = match std::fs::read_to_string(&path) {
        Ok(text) => toml::from_str(&text).with_context(what)?,
        Err(_) => Contexts::default(),
    };
    contexts.contexts.insert("demo".to_owned(), known);
    // JSON's strings and lists are TOML's as well.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = "current = \"demo\"\n".to_owned();
    for (name, context) in &contexts.contexts {
        text.push_str(&format!(
            "\n[contexts.{}]\naddresses = {}\ntoken = {}\nca = {}\n",
            quoted(name),
            serde_json::Value::from(context.addresses.clone()),
            quoted(&context.token),
            quoted(&context.ca),
        ));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(what)?;
    }
    write_private(&path, text.as_bytes()).with_context(what)
}

/// Replaces a file in one step, readable by its owner alone.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, path)
}

/// The nodes' admin APIs.
fn admins() -> Vec<String> {
    (1..=NODES).map(|number| at(ADMIN + number).to_string()).collect()
}
