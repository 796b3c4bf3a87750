//! The admin API of a node, on its socket.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    Origin,
    http::{self, Answer},
};

/// The admin API of a node, whether or not it runs.
#[derive(Clone)]
pub struct Admin {
    socket: PathBuf,
    /// For one answer.
    timeout: Duration,
}

impl Admin {
    /// Of the node with this data folder.
    pub fn at(data: &Path) -> Self {
        Self { socket: data.join("admin.sock"), timeout: http::TIMEOUT }
    }

    /// Where its socket is.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The same for one who waits no longer than this for an answer.
    pub fn within(&self, timeout: Duration) -> Self {
        Self { socket: self.socket.clone(), timeout }
    }

    /// Asks something.
    pub fn ask(&self, method: &str, target: &str, body: &Value) -> io::Result<Answer> {
        self.ask_with(method, target, &[], body)
    }

    /// Asks something, with these headers.
    pub fn ask_with(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> io::Result<Answer> {
        http::local(&self.socket, self.timeout, method, target, headers, body)
    }

    /// Asks something that must be done; gives the answer's JSON.
    pub fn must(&self, method: &str, target: &str, body: &Value) -> Value {
        let answer = self.ask(method, target, body).expect("the node answers");
        let text = String::from_utf8_lossy(&answer.body);
        assert!((200..300).contains(&answer.status), "{method} {target}: {} {text}", answer.status);
        answer.json()
    }

    /// The cluster as the node sees it; null while it can't be asked.
    pub fn status(&self) -> Value {
        self.ask("GET", "/v1/cluster", &Value::Null).map(|answer| answer.json()).unwrap_or_default()
    }

    /// The node's id.
    pub fn id(&self) -> u64 {
        self.status()["node_id"].as_u64().expect("it is in a cluster")
    }

    /// Whether a balancer may send clients to the node.
    pub fn is_ready(&self) -> bool {
        self.ask("GET", "/readyz", &Value::Null).is_ok_and(|answer| answer.status == 200)
    }

    /// Tries, for as long as this, to make a route for `/name` of that name; gives the answer.
    pub fn put_route(&self, name: &str, timeout: &str) -> Answer {
        let spec = json!({"match": [{"path": {"exact": format!("/{name}")}}], "respond": {"status": 200}});
        self.ask("PUT", &format!("/v1/routes/{name}?timeout={timeout}"), &spec).expect("the node answers")
    }

    /// Routes everything to this origin, and waits until all nodes do.
    pub fn route_to(&self, origin: &Origin) {
        let document = json!({
            "version": 1,
            "upstreams": {"origin": {"targets": [{"address": origin.address.to_string()}]}},
            "routes": {"all": {"upstream": "origin"}},
        });
        let applied = self.must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
        assert_eq!(applied["lagging"], Value::Null, "{applied}");
    }

    /// Whether the node has a route of this name now.
    pub fn has_route(&self, name: &str) -> bool {
        let answer = self.ask("GET", &format!("/v1/routes/{name}"), &Value::Null);
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// The cluster's revision and routes by name: all that was acknowledged before is seen.
    pub fn routes(&self) -> (u64, BTreeMap<String, Value>) {
        let list = self.must("GET", "/v1/routes?limit=10000&consistency=linearizable", &Value::Null);
        assert_eq!(list["next"], Value::Null, "more routes than a page takes");
        let route = |item: &Value| Some((item["name"].as_str()?.to_owned(), item["spec"].clone()));
        let routes = list["items"].as_array().into_iter().flatten().filter_map(route).collect();
        (list["revision"].as_u64().expect("a revision"), routes)
    }
}
