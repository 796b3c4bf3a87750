//! gwctl from end to end: the real program against real nodes, as a person uses it.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use phalanx_tests::{Cluster, Origin, alone, http, until};
use serde_json::Value;

/// gwctl with a context file of its own.
struct Gwctl {
    program: PathBuf,
    contexts: PathBuf,
}

/// How it ended and what it said.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Gwctl {
    fn new(dir: &Path) -> Self {
        let beside = std::env::var_os("PHALANX_GWNODE").map(PathBuf::from);
        let beside = beside.unwrap_or_else(|| {
            let test = std::env::current_exe().expect("a test knows where it is");
            test.ancestors().nth(2).expect("it is in target/PROFILE/deps").join("gwnode")
        });
        Self { program: beside.with_file_name("gwctl"), contexts: dir.join("contexts.toml") }
    }

    fn run(&self, line: &str) -> Ran {
        self.feed(line, "")
    }

    /// Runs it with this on its standard input.
    fn feed(&self, line: &str, input: &str) -> Ran {
        let mut command = Command::new(&self.program);
        command.args(line.split_whitespace()).env("PHALANX_CONTEXT", &self.contexts);
        for name in ["PHALANX_ADDRESS", "PHALANX_TOKEN", "PHALANX_CA", "PHALANX_JOIN_TOKEN"] {
            command.env_remove(name);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("gwctl runs");
        child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("gwctl reads");
        let output = child.wait_with_output().expect("gwctl ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("gwctl says UTF-8");
        Ran {
            code: output.status.code().expect("no signal ended it"),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Runs what must be done; gives what it says.
    fn must(&self, line: &str) -> String {
        let ran = self.run(line);
        assert_eq!(ran.code, 0, "{line}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// Runs what must end with this code and say this of why.
    fn fails(&self, line: &str, code: i32, why: &str) {
        let ran = self.run(line);
        assert_eq!(ran.code, code, "{line}: {}{}", ran.out, ran.err);
        assert!(ran.err.contains(why), "{line}: {}", ran.err);
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.must(&format!("{line} -o json"))).expect("it is JSON")
    }
}

/// A cluster of one that the test formed, and gwctl with a context of it.
fn formed(dir: &Path) -> (Cluster, Gwctl) {
    let cluster = Cluster::form(1);
    let gwctl = Gwctl::new(dir);
    let text = |name: &str| Value::from(cluster.formed[name].as_str().expect("text")).to_string();
    let (token, ca) = (text("admin_token"), text("ca_certificate"));
    let file = format!(
        "current = \"test\"\n[contexts.test]\naddresses = [\"{}\"]\ntoken = {token}\nca = {ca}\n",
        cluster.nodes[0].admin_tls,
    );
    std::fs::write(&gwctl.contexts, file).expect("write the contexts");
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&gwctl.contexts, private).expect("make them private");
    (cluster, gwctl)
}

#[test]
fn a_route_is_added_explained_and_used() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (cluster, gwctl) = formed(dir.path());
    let (origin, proxy) = (Origin::start(), cluster.nodes[0].proxy);
    gwctl.must(&format!("route add orders --path /orders --to http://{} --wait all", origin.address));
    assert_eq!(http::get(proxy, "/orders/7", &[]).unwrap().status, 200);
    assert_eq!(http::get(proxy, "/other", &[]).unwrap().status, 404);
    let said = gwctl.must("route explain GET http://api.example/orders/7");
    assert!(said.contains("orders -> forward to orders"), "{said}");
    gwctl.fails("route explain GET /orders/7", 2, "no URL with a host");
    let again = format!("route add orders --path /x --to http://{}", origin.address);
    gwctl.fails(&again, 4, "there already");

    // A key is issued, opens what it is for, and opens nothing once it is revoked.
    let policy = "type: api-key\nin: {header: x-api-key}\n";
    assert_eq!(gwctl.feed("policy add keys -f -", policy).code, 0);
    gwctl.must("consumer add acme");
    gwctl.must("route add private --path /private --policy keys --upstream orders --wait all");
    assert_eq!(http::get(proxy, "/private", &[]).unwrap().status, 401);
    let issued = gwctl.json("key issue --consumer acme --ttl 1h --wait all");
    let (id, key) = (issued["id"].as_str().unwrap(), issued["key"].as_str().unwrap());
    assert_eq!(http::get(proxy, "/private", &[("x-api-key", key)]).unwrap().status, 200);
    assert!(!gwctl.must("key list").contains(key));
    gwctl.must(&format!("key revoke {id} --wait all"));
    assert_eq!(http::get(proxy, "/private", &[("x-api-key", key)]).unwrap().status, 401);
    gwctl.fails(&format!("key revoke {id}"), 3, "there is no key");
}

#[test]
fn documents_are_planned_applied_on_their_base_pruned_and_exported() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (_cluster, gwctl) = formed(dir.path());
    let document = "version: 1\nroutes:\n  a: {respond: {status: 200}}\n";
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, document).unwrap();
    let file = file.display();
    let plan = gwctl.json(&format!("plan -f {file}"));
    assert_eq!(plan["steps"][0]["verb"], "create");

    // What was planned is not done once another writer has come.
    gwctl.must("consumer add acme");
    let base = &plan["revision"];
    gwctl.fails(&format!("apply -f {file} --base {base}"), 4, "revision");
    gwctl.fails("route get a", 3, "there is no route a");
    let plan = gwctl.json(&format!("plan -f {file} --prune"));
    assert_eq!(plan["steps"].as_array().unwrap().len(), 2, "{plan}");
    let base = &plan["revision"];
    gwctl.must(&format!("apply -f {file} --prune --base {base} --wait all"));
    gwctl.fails("consumer get acme", 3, "there is no consumer acme");

    // What is exported is what is there.
    for format in ["yaml", "json"] {
        let exported = gwctl.must(&format!("export -o {format}"));
        let again = gwctl.feed("apply -f - --prune", &exported);
        assert!(again.code == 0 && again.out.contains("Nothing to change"), "{}{}", again.out, again.err);
    }
    let wrong = gwctl.feed("apply -f -", "version: 1\nroutes: {b: {upstream: none}}\n");
    assert!(wrong.code == 1 && wrong.err.contains("routes.b.upstream"), "{}", wrong.err);
}

#[test]
fn a_cluster_is_formed_joined_and_left_and_failures_have_their_codes() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (mut cluster, gwctl) = formed(dir.path());
    let made = gwctl.json("cluster token create --ttl 1h --uses 1");
    let (address, token) = (made["address"].as_str().unwrap(), made["token"].as_str().unwrap());
    let data = cluster.add().data.display().to_string();
    until("the second node answers", || {
        cluster.nodes[1].admin.ask("GET", "/healthz", &Value::Null).is_ok().then_some(())
    });
    gwctl.must(&format!("cluster join {address} --token {token} --data {data}"));
    let status = gwctl.json("cluster status");
    assert_eq!(status["members"].as_array().unwrap().len(), 2, "{status}");
    let id = cluster.nodes[1].admin.id();
    gwctl.fails("upstream add u --to 10.0.0.1:1 --wait 99", 1, "no member");

    // A node that was removed says so, and refuses what it can't do any more.
    gwctl.must(&format!("cluster remove {id}"));
    until("the removed node knows", || {
        let said = gwctl.must(&format!("--socket {data}/admin.sock cluster status"));
        said.contains("REMOVED").then_some(())
    });
    gwctl.fails(&format!("--socket {data}/admin.sock consumer add acme"), 5, "removed");

    gwctl.fails("route list --token wrong", 7, "token");
    gwctl.fails("--address 127.0.0.1:1 route list", 5, "no node can be reached");
    gwctl.fails("--context none route list", 3, "there is no context");
    gwctl.fails("apply -f /nonexistent", 2, "/nonexistent");
    gwctl.fails("upstream add u --to ftp://a", 2, "http or https");
    assert_eq!(gwctl.run("route").code, 2);
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&gwctl.contexts, open).unwrap();
    gwctl.fails("route list", 1, "chmod 600");
}
