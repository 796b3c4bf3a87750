//! What differs between what came and what was expected.

use std::collections::BTreeMap;

use super::{Expect, Seen, Share, Values, actor::Request};
use crate::http::Answer;

/// Stands for any value.
const ANY: &str = "*";

/// What differs in an answer; `secret` are texts that no problem document may hold.
pub(super) fn answer(expect: &Expect, answer: &Answer, secret: &[String]) -> Vec<String> {
    let mut differences = Vec::new();
    if let Some(status) = expect.status
        && answer.status != status
    {
        differences.push(format!("the status is {}, not {status}", answer.status));
    }
    headers("the answer", &expect.headers, &answer.headers, &mut differences);
    let body = answer.decoded().unwrap_or_else(|error| {
        differences.push(format!("the body can't be decoded: {error}"));
        Vec::new()
    });
    let body = String::from_utf8_lossy(&body);
    if let Some(wanted) = &expect.body
        && *wanted != body
    {
        differences.push(format!("the body is {body:?}, not {wanted:?}"));
    }
    if let Some(code) = &expect.problem {
        problem(code, answer, &mut differences);
    }
    if answer.header("content-type") == Some("application/problem+json") {
        let leaked = secret.iter().filter(|secret| body.contains(secret.as_str()));
        differences.extend(leaked.map(|secret| format!("the problem document tells {secret:?}: {body}")));
    }
    differences
}

/// A problem document (RFC 9457) as the gateway makes them.
fn problem(code: &str, answer: &Answer, differences: &mut Vec<String>) {
    let document = answer.json();
    let kind = match code {
        "exhausted" => "https://iana.org/assignments/http-problem-types#quota-exceeded".to_owned(),
        code => format!("urn:phalanx:problem:{code}"),
    };
    let wanted: [(&str, serde_json::Value); 4] = [
        ("type", kind.into()),
        ("code", code.into()),
        ("status", answer.status.into()),
        ("request_id", answer.header("x-request-id").into()),
    ];
    for (field, wanted) in wanted {
        if document[field] != wanted {
            differences.push(format!("the problem's {field} is {}, not {wanted}", document[field]));
        }
    }
    if document["title"].as_str().is_none_or(str::is_empty) {
        differences.push("the problem has no title".to_owned());
    }
    if answer.header("content-type") != Some("application/problem+json") {
        differences.push(format!("a problem of content type {:?}", answer.header("content-type")));
    }
}

/// What differs in what the origins have seen of one request.
pub(super) fn seen(wanted: &[Seen], seen: &[Request]) -> Vec<String> {
    let mut differences = Vec::new();
    let by: Vec<&str> = seen.iter().map(|request| request.origin.as_str()).collect();
    let wanted_by: Vec<&str> = wanted.iter().map(|wanted| wanted.origin.as_str()).collect();
    if by != wanted_by {
        differences.push(format!("it was seen by {by:?}, not {wanted_by:?}"));
        return differences;
    }
    for (wanted, request) in wanted.iter().zip(seen) {
        for (what, wanted, have) in [
            ("method", &wanted.method, &request.method),
            ("target", &wanted.target, &request.target),
            ("body", &wanted.body, &request.body),
        ] {
            if let Some(wanted) = wanted
                && wanted != have
            {
                differences.push(format!("{} saw the {what} {have:?}, not {wanted:?}", request.origin));
            }
        }
        let place = format!("what {} saw", request.origin);
        headers(&place, &wanted.headers, &request.headers, &mut differences);
    }
    differences
}

/// What differs in how many requests each origin has seen.
pub(super) fn shares(wanted: &BTreeMap<String, Share>, seen: &[Request]) -> Vec<String> {
    let mut counts = BTreeMap::new();
    for request in seen {
        *counts.entry(request.origin.clone()).or_insert(0) += 1;
    }
    let count = |name: &String| counts.get(name).copied().unwrap_or(0);
    let same = wanted.iter().all(|(name, share)| share.has(count(name)))
        && counts.keys().all(|name| wanted.contains_key(name));
    if same { Vec::new() } else { vec![format!("the shares are {counts:?}, not {wanted:?}")] }
}

fn headers(
    place: &str,
    wanted: &BTreeMap<String, Option<Values>>,
    have: &[(String, String)],
    differences: &mut Vec<String>,
) {
    for (name, wanted) in wanted {
        let lower = name.to_ascii_lowercase();
        let have: Vec<&String> =
            have.iter().filter(|(known, _)| *known == lower).map(|(_, value)| value).collect();
        let wanted = wanted.as_ref().map(Values::as_slice).unwrap_or_default();
        let same = have.len() == wanted.len()
            && wanted.iter().zip(&have).all(|(wanted, have)| wanted == *have || wanted == ANY);
        if !same {
            differences.push(format!("{place}: {name} is {have:?}, not {wanted:?}"));
        }
    }
}
