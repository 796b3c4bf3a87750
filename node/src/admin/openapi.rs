//! What the admin API can do: one table, from which requests are dispatched and the OpenAPI document is made.

use std::{pin::Pin, sync::Arc};

use http::{Method, StatusCode};
use model::cluster::Role;
use serde_json::{Value, json};

use crate::{
    admin::{
        Answer, Asked, backup, cluster, health, healthz, limits, metrics::metrics, objects, readyz, reply,
        tokens, usage,
    },
    node::Node,
};

type Handled = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One thing that the API can do.
pub(super) struct Operation {
    pub(super) method: Method,
    /// With placeholders, as `/v1/cluster/members/{id}`.
    pub(super) path: &'static str,
    /// Who may; none needs no token.
    pub(super) role: Option<Role>,
    /// On the node's own socket alone.
    pub(super) local: bool,
    summary: &'static str,
    pub(super) handle: fn(Arc<Node>, Asked) -> Handled,
}

impl Operation {
    /// The largest body, in bytes. What strangers may ask takes next to none.
    pub(super) fn body_bytes_max(&self) -> usize {
        match (&self.method, self.path) {
            // A document of 100,000 routes.
            (_, "/v1/apply") => 64 << 20,
            (&Method::POST | &Method::PUT, _) => 1 << 20,
            _ => 4 << 10,
        }
    }

    /// Whether it is done only on the revision that `If-Match` names: the config's, or the object's.
    fn takes_revision(&self) -> bool {
        matches!(
            (&self.method, self.path),
            (_, "/v1/apply") | (&Method::PUT | &Method::DELETE, "/v1/{kind}/{name}")
        )
    }

    /// What stands for the placeholders where this path is the operation's.
    pub(super) fn arguments(&self, path: &str) -> Option<Vec<String>> {
        let mut arguments = Vec::new();
        let (mut have, mut want) = (path.split('/'), self.path.split('/'));
        loop {
            match (have.next(), want.next()) {
                (None, None) => return Some(arguments),
                (Some(have), Some(want)) if want.starts_with('{') && !have.is_empty() => {
                    arguments.push(have.to_owned())
                }
                (Some(have), Some(want)) if have == want => {}
                _ => return None,
            }
        }
    }
}

macro_rules! operations {
    ($($method:ident $path:literal $role:expr, $local:literal, $handler:path, $summary:literal;)*) => {
        &[$(Operation {
            method: Method::$method,
            path: $path,
            role: $role,
            local: $local,
            summary: $summary,
            handle: |node, asked| Box::pin($handler(node, asked)),
        }),*]
    };
}

const VIEWER: Option<Role> = Some(Role::Viewer);
const OPERATOR: Option<Role> = Some(Role::Operator);
const ADMIN: Option<Role> = Some(Role::Admin);

/// Everything that the API can do; the first that fits is taken.
pub(super) static OPERATIONS: &[Operation] = operations! {
    GET "/healthz" None, false, healthz, "The process runs";
    GET "/readyz" None, false, readyz, "A balancer may send clients here";
    GET "/openapi.json" None, false, document, "This document";
    GET "/metrics" VIEWER, false, metrics, "Metrics in Prometheus' text format";
    GET "/v1/cluster" VIEWER, false, cluster::status, "The cluster as this node sees it";
    GET "/v1/cluster/backup" ADMIN, false, backup::backup, "Everything that the cluster agreed on, its secrets too, for gwnode restore";
    POST "/v1/cluster/init" ADMIN, true, cluster::init, "Form a cluster of this node";
    POST "/v1/cluster/join" ADMIN, true, cluster::join, "Make this node a member of a cluster";
    POST "/v1/cluster/leave" ADMIN, false, cluster::leave, "Take this node out of its cluster";
    POST "/v1/cluster/transfer" ADMIN, false, cluster::transfer, "Move the leadership";
    DELETE "/v1/cluster/members/{id}" ADMIN, false, cluster::remove, "Take a member out for good";
    GET "/v1/cluster/tokens" ADMIN, false, tokens::list_join, "Join tokens, without their secrets";
    POST "/v1/cluster/tokens" ADMIN, false, tokens::make_join, "Make a join token";
    DELETE "/v1/cluster/tokens/{id}" ADMIN, false, tokens::delete_join, "Delete a join token";
    GET "/v1/tokens" ADMIN, false, tokens::list_admin, "Admin tokens, without their secrets";
    POST "/v1/tokens" ADMIN, false, tokens::make_admin, "Make an admin token";
    DELETE "/v1/tokens/{id}" ADMIN, false, tokens::delete_admin, "Delete an admin token";
    GET "/v1/config" VIEWER, false, objects::export, "The whole config as a document, without keys and certificates";
    POST "/v1/apply" OPERATOR, false, objects::apply, "Make the config hold a document, all of it or nothing";
    POST "/v1/explain" VIEWER, false, objects::explain, "Which route would take a request, and why not the others";
    POST "/v1/explain/tcp" VIEWER, false, objects::explain_tcp, "Which TCP route would take a connection, and why not the others";
    GET "/v1/health/targets" VIEWER, false, health::targets, "Which targets this node uses, and why not the others";
    GET "/v1/limits" VIEWER, false, limits::used, "The rate limits that are most used up, by node";
    GET "/v1/usage" VIEWER, false, usage::used, "What was used of quotas, by node";
    POST "/v1/keys" OPERATOR, false, objects::issue_key, "Issue a key; it is shown this once";
    GET "/v1/{kind}" VIEWER, false, objects::list, "Objects of a kind, by name, a page at a time; without secrets";
    GET "/v1/{kind}/{name}" VIEWER, false, objects::get, "One object";
    PUT "/v1/{kind}/{name}" OPERATOR, false, objects::put, "Make an object be this";
    DELETE "/v1/{kind}/{name}" OPERATOR, false, objects::delete, "Delete an object; for a key: revoke it";
};

/// `GET /openapi.json`
async fn document(_: Arc<Node>, _: Asked) -> Answer {
    reply::json(StatusCode::OK, &describe())
}

/// The OpenAPI 3.1 document.
pub(super) fn describe() -> Value {
    let mut paths = serde_json::Map::new();
    for operation in OPERATIONS {
        let placeholders =
            operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let mut parameters: Vec<Value> = placeholders
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        if operation.takes_revision() {
            parameters.push(json!({
                "name": "If-Match",
                "in": "header",
                "description": "The revision that it is made for; 412 if it is not the last one any more",
                "schema": {"type": "string", "examples": ["\"17\""]},
            }));
        }
        let problem = json!({
            "description": "It was not done, and why (RFC 9457)",
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        });
        let mut described = json!({
            "operationId": operation_id(operation),
            "summary": operation.summary,
            "parameters": parameters,
            "responses": {"2XX": {"description": "Done"}, "4XX": problem, "5XX": problem},
            "security": if operation.role.is_some() { json!([{"token": []}]) } else { json!([]) },
        });
        if let Some(role) = operation.role {
            described["x-phalanx-role"] = json!(role);
        }
        if operation.local {
            described["x-phalanx-socket-only"] = json!(true);
        }
        if matches!(operation.method, Method::POST | Method::PUT) {
            described["requestBody"] =
                json!({"content": {"application/json": {"schema": {"type": "object"}}}});
        }
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.as_str().to_lowercase()] = described;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Phalanx admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "code"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "code": {"type": "string"},
                    "request_id": {"type": "string"},
                    "violations": {"type": "array", "items": {
                        "type": "object",
                        "required": ["path", "message"],
                        "properties": {"path": {"type": "string"}, "message": {"type": "string"}},
                    }},
                },
            }},
        },
    })
}

fn operation_id(operation: &Operation) -> String {
    let words = operation.path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty() && *word != "v1");
    let words: Vec<&str> = words.collect();
    format!("{}_{}", operation.method.as_str().to_lowercase(), words.join("_"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_operation_once_and_no_other() {
        let document = describe();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                assert!(described.insert((method.to_uppercase(), path.clone())));
                assert!(!operation["summary"].as_str().unwrap().is_empty());
            }
        }
        let handled: BTreeSet<_> = OPERATIONS
            .iter()
            .map(|operation| (operation.method.to_string(), operation.path.to_owned()))
            .collect();
        assert_eq!(handled.len(), OPERATIONS.len());
        assert_eq!(described, handled);
    }

    #[test]
    fn the_document_says_what_is_done_on_a_revision() {
        let document = describe();
        let takes = |path: &str, method: &str| {
            let parameters = document["paths"][path][method]["parameters"].as_array().unwrap();
            parameters.iter().any(|parameter| parameter["name"] == "If-Match")
        };
        assert!(takes("/v1/apply", "post") && takes("/v1/{kind}/{name}", "put"));
        assert!(takes("/v1/{kind}/{name}", "delete") && !takes("/v1/{kind}/{name}", "get"));
    }

    #[test]
    fn a_path_gives_its_arguments() {
        let of = |path: &str| {
            let found =
                OPERATIONS.iter().find_map(|operation| Some((operation.path, operation.arguments(path)?)));
            found.map(|(path, arguments)| (path, arguments.join(",")))
        };
        assert_eq!(of("/v1/cluster/members/7"), Some(("/v1/cluster/members/{id}", "7".to_owned())));
        assert_eq!(of("/v1/routes"), Some(("/v1/{kind}", "routes".to_owned())));
        assert_eq!(of("/v1/routes/a"), Some(("/v1/{kind}/{name}", "routes,a".to_owned())));
        assert_eq!(of("/v1/cluster"), Some(("/v1/cluster", String::new())));
        assert_eq!(of("/v1/routes/a/b"), None);
        assert_eq!(of("/v1//a"), None);
    }
}
