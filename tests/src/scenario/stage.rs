//! One node, on which scenarios are played one after another.

use std::sync::PoisonError;

use serde_json::{Value, json};

use super::{Scenario, Step, actor, check};
use crate::{Cluster, http};

/// A cluster of one node.
pub struct Stage {
    cluster: Cluster,
}

impl Default for Stage {
    fn default() -> Self {
        Self { cluster: Cluster::form(1) }
    }
}

impl Stage {
    /// Plays a scenario; gives everything that differed, by step.
    pub fn play(&self, scenario: &Scenario) -> Vec<String> {
        let mut keys = Vec::new();
        let differences = self.play_with(scenario, &mut keys).unwrap_or_else(|error| vec![error]);
        for id in keys {
            self.cluster.admin(0).must("DELETE", &format!("/v1/keys/{id}"), &Value::Null);
        }
        differences
    }

    fn play_with(&self, scenario: &Scenario, keys: &mut Vec<String>) -> Result<Vec<String>, String> {
        let log = actor::Log::default();
        let origins = scenario.origins.iter().map(|(name, behaviour)| {
            (format!("<origin.{name}>"), actor::start(name, behaviour, &log).to_string())
        });
        let mut words: Vec<(String, String)> = origins.collect();
        let secret: Vec<String> = words.iter().map(|(_, address)| address.clone()).collect();
        self.apply(&scenario.with(&words)?.config, true)?;
        for (name, consumer) in &scenario.keys {
            let key = self.cluster.admin(0).must("POST", "/v1/keys?wait=all", &json!({"consumer": consumer}));
            let text = |field: &str| key[field].as_str().unwrap_or_default().to_owned();
            words.push((format!("<key.{name}>"), text("key")));
            keys.push(text("id"));
        }
        let mut differences = Vec::new();
        for (at, step) in scenario.with(&words)?.steps.iter().enumerate() {
            let (what, differing) = match (&step.send, &step.apply) {
                (Some(send), None) => (&send[..], self.send(send, step, &log, &secret)),
                (None, Some(document)) => ("apply", self.apply(document, false).err().into_iter().collect()),
                _ => ("?", vec!["a step has either send or apply".to_owned()]),
            };
            let place = format!("step {} ({what})", at + 1);
            differences.extend(differing.into_iter().map(|differing| format!("{place}: {differing}")));
        }
        Ok(differences)
    }

    /// Makes the config hold this document, and nothing else where `prune` says so.
    fn apply(&self, document: &Value, prune: bool) -> Result<(), String> {
        let body = json!({"document": document.to_string(), "prune": prune});
        let answer = self.cluster.admin(0).ask("POST", "/v1/apply?wait=all", &body);
        let answer = answer.map_err(|error| error.to_string())?;
        let applied = answer.json();
        match (answer.status, &applied["lagging"]) {
            (200, Value::Null) => Ok(()),
            (200, _) => Err(format!("the config is not installed in time: {applied}")),
            _ => Err(format!("the config is refused: {applied}")),
        }
    }

    fn send(&self, send: &str, step: &Step, log: &actor::Log, secret: &[String]) -> Vec<String> {
        let Some((method, target)) = send.split_once(' ') else {
            return vec!["send is METHOD TARGET".to_owned()];
        };
        let mut headers = vec![("host", step.host.as_str())];
        for (name, values) in &step.headers {
            headers.extend(values.as_slice().iter().map(|value| (name.as_str(), value.as_str())));
        }
        let (mut differences, mut seen) = (Vec::new(), Vec::new());
        for _ in 0..step.times {
            let answer = http::connect(self.cluster.nodes[0].proxy).and_then(|mut stream| {
                http::exchange(&mut stream, method, target, &headers, step.body.as_bytes())
            });
            match answer {
                Ok(answer) => differences.extend(check::answer(&step.expect, &answer, secret)),
                Err(error) => differences.push(format!("there is no answer: {error}")),
            }
            let requests = std::mem::take(&mut *log.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(wanted) = &step.expect.seen {
                differences.extend(check::seen(wanted, &requests));
            }
            seen.extend(requests);
        }
        if let Some(wanted) = &step.expect.shares {
            differences.extend(check::shares(wanted, &seen));
        }
        differences
    }
}
