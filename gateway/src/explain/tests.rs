//! What an explanation says, and how much.

use model::{Config, Kind, Name, Revision, config::Stored};

use super::*;

fn plan(routes: &[(&str, &str)]) -> Plan {
    let mut config = Config::default();
    for (name, doc) in routes {
        let stored = Stored { created: Revision(1), changed: Revision(1), doc: doc.as_bytes().into() };
        config.insert(Kind::Route, Name::new(name).unwrap(), stored);
    }
    config.revision = Revision(9);
    Plan::empty().install(&config).unwrap()
}

fn ask(plan: &Plan, url: &str) -> Explanation {
    plan.explain(&ExplainRequest { method: "get".into(), url: url.into(), host: None, headers: Vec::new() })
}

#[test]
fn each_candidate_has_its_place_and_its_reason() {
    let plan = plan(&[
        (
            "beta",
            r#"{"hosts":["a.example"],"match":[{"path":{"prefix":"/o"},"headers":{"x-beta":{"exact":"1"}}}],"respond":{"status":200}}"#,
        ),
        ("orders", r#"{"hosts":["a.example"],"match":[{"path":{"prefix":"/o"}}],"respond":{"status":200}}"#),
        ("wild", r#"{"hosts":["*.example"],"respond":{"status":200}}"#),
        ("other", r#"{"hosts":["b.example"],"respond":{"status":200}}"#),
    ]);
    let told = ask(&plan, "http://A.example:80//o/%31?x=1");
    assert_eq!((&*told.host, &*told.path, told.revision), ("a.example", "/o/1", Revision(9)));
    assert_eq!(told.route.as_ref().map(Name::as_str), Some("orders"));
    assert_eq!(told.action.as_deref(), Some("respond with 200"));
    let shown: Vec<_> =
        told.candidates.iter().map(|c| (c.route.as_str(), &*c.matcher, c.failed.as_deref())).collect();
    assert_eq!(
        shown,
        [
            ("beta", "a.example prefix /o header x-beta \"1\"", Some("header x-beta: want \"1\", have none")),
            ("orders", "a.example prefix /o", None),
            ("wild", "*.example prefix /", Some("outranked by orders")),
        ]
    );
    assert!(ask(&plan, "http://a.example/%2f").refused.is_some());
    assert!(ask(&plan, "/x").refused.is_some());
}

#[test]
fn of_many_candidates_the_nearest_are_shown() {
    let docs: Vec<(String, String)> = (0..300)
        .map(|n| {
            (
                format!("r{n}"),
                format!(r#"{{"match":[{{"path":{{"prefix":"/p{n}"}}}}],"respond":{{"status":200}}}}"#),
            )
        })
        .collect();
    let routes: Vec<(&str, &str)> = docs.iter().map(|(name, doc)| (&**name, &**doc)).collect();
    let told = ask(&plan(&routes), "http://h/p250/x");
    assert_eq!(told.candidates.len(), 100);
    assert!(
        told.candidates
            .iter()
            .any(|candidate| candidate.route.as_str() == "r250" && candidate.failed.is_none())
    );
}
