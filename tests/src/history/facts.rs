//! What an answer of the admin API tells a client.

use serde_json::Value as Json;

use super::{Asked, Told, Value, Values};
use crate::http::Answer;

/// The number that a route answers with.
fn value(spec: &Json) -> Value {
    spec["respond"]["body"].as_str().and_then(|body| body.parse().ok())
}

/// What `answer` says to `asked` by a client that knows routes with this prefix alone.
pub(crate) fn told(asked: &Asked, answer: &Answer, prefix: &str) -> Told {
    let said = answer.json();
    let text = || format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body));
    let revision = |field: &str| said[field].as_u64();
    match (asked, answer.status, said["code"].as_str()) {
        (Asked::Read(route), 200, _) => {
            Told::Saw(Values::from([(route.clone(), value(&said["spec"]))]), revision("changed"))
        }
        (Asked::Read(route), 404, Some("not_found")) => {
            Told::Saw(Values::from([(route.clone(), None)]), None)
        }
        (Asked::ReadAll, 200, _) if said["next"].is_null() && revision("revision").is_some() => {
            let items = said["items"].as_array().into_iter().flatten();
            let ours = items.filter_map(|item| {
                let name = item["name"].as_str().filter(|name| name.starts_with(prefix))?;
                Some((name.to_owned(), value(&item["spec"])))
            });
            Told::Saw(ours.collect(), revision("revision"))
        }
        (Asked::Write { values, .. }, 200, _) => match (said["changed"].as_bool(), revision("revision")) {
            (Some(true), Some(revision)) => Told::Made(revision),
            // Somebody else deleted it first.
            (Some(false), Some(_)) if values.values().all(Option::is_none) => Told::Absent,
            _ => Told::Odd(text()),
        },
        (Asked::Write { values, .. }, 404, Some("not_found")) if values.values().all(Option::is_none) => {
            Told::Absent
        }
        (Asked::Write { .. }, 409 | 412, Some("conflict")) => Told::Unmet,
        (_, 503, Some("no_quorum" | "draining" | "not_formed" | "removed")) => Told::Refused(text()),
        (Asked::Read(_) | Asked::ReadAll, 500.., _) => Told::Refused(text()),
        (Asked::Write { .. }, 500.., _) => Told::Unknown(text()),
        _ => Told::Odd(text()),
    }
}
