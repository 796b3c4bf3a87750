//! Promise 11: what is restored is exactly what was kept, with a new epoch and a higher revision.

use serde_json::Value;

use super::Observed;
use crate::Admin;

/// What a cluster has and is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The whole config, without keys.
    pub config: Value,
    /// What is told of its keys.
    pub keys: Value,
    /// The cluster, as a node sees it.
    pub status: Value,
}

/// A cluster, and the one that was founded again from what it had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restored {
    /// What was kept.
    pub before: State,
    /// What was founded.
    pub after: State,
}

impl State {
    /// As this node has it.
    pub fn of(admin: &Admin) -> Self {
        let keys = admin.must("GET", "/v1/keys?limit=10000", &Value::Null);
        let config = admin.must("GET", "/v1/config", &Value::Null);
        Self { config, keys: keys["items"].clone(), status: admin.status() }
    }

    fn number(&self, field: &str) -> Option<u64> {
        self.status[field].as_u64()
    }

    fn ids(&self) -> impl Iterator<Item = u64> {
        let members = self.status["members"].as_array().into_iter().flatten();
        members.filter_map(|member| member["id"].as_u64())
    }
}

impl Restored {
    /// What is not as it was, or is not new.
    pub fn wrong(&self) -> Vec<String> {
        let (before, after) = (&self.before, &self.after);
        let mut wrong = Vec::new();
        if before.config != after.config {
            wrong.push(format!("the config was {}, and is {}", before.config, after.config));
        }
        if before.keys != after.keys {
            wrong.push(format!("the keys were {}, and are {}", before.keys, after.keys));
        }
        if before.status["cluster_id"] != after.status["cluster_id"] {
            wrong.push(format!("it is another cluster: {}", after.status["cluster_id"]));
        }
        let epoch = before.number("epoch").map(|epoch| epoch + 1);
        if epoch.is_none() || after.number("epoch") != epoch {
            wrong.push(format!("the epoch is {}, and should be {epoch:?}", after.status["epoch"]));
        }
        if after.number("revision") <= before.number("revision") {
            wrong.push(format!("the revision is {}", after.status["revision"]));
        }
        if after.ids().count() != 1 || before.ids().any(|id| after.ids().any(|new| new <= id)) {
            wrong.push(format!("its members are {}", after.status["members"]));
        }
        wrong
    }
}

/// What is wrong with what was restored.
pub(super) fn check(observed: &Observed) -> Vec<String> {
    observed.restored.iter().flat_map(Restored::wrong).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_differs_or_is_not_new_is_found() {
        let state = |ids: &[u64], epoch: u64, revision: u64| {
            let members: Vec<Value> = ids.iter().map(|id| json!({"id": id})).collect();
            let status = json!({"cluster_id": "c", "epoch": epoch, "revision": revision, "members": members});
            State { config: json!({"routes": {}}), keys: json!([]), status }
        };
        let found = |after: State| Restored { before: state(&[1, 2, 3], 1, 7), after }.wrong().len();
        assert_eq!(found(state(&[9], 2, 8)), 0);
        assert_eq!(found(state(&[3], 2, 8)), 1);
        assert_eq!(found(state(&[9, 10], 2, 8)), 1);
        assert_eq!(found(state(&[9], 1, 7)), 2);
        assert_eq!(found(State { config: json!({}), ..state(&[9], 2, 8) }), 1);
        assert_eq!(found(State { keys: json!([1]), ..state(&[9], 2, 8) }), 1);
    }
}
