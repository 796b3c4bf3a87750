//! Names, durations and documents as anybody may write them: read back as they were written, and nothing
//! panics.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

use std::time::Duration;

use model::{Name, document::Document, duration, id::NAME_BYTES_MAX};
use proptest::{collection, prelude::*};
use serde_json::{Map, Value};

/// Any JSON, and keys that mean something to a document among its keys.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        prop::sample::select(vec!["250ms", "a:80", "/orders", "GET", "api-key", "u"]).prop_map(Value::from),
    ];
    let known = prop::sample::select(vec![
        "version",
        "upstreams",
        "policies",
        "groups",
        "consumers",
        "routes",
        "keys",
        "targets",
        "address",
        "weight",
        "timeout",
        "response",
        "retry",
        "match",
        "path",
        "prefix",
        "headers",
        "upstream",
        "type",
        "hosts",
        "a",
    ]);
    let key = prop_oneof![3 => known.prop_map(str::to_owned), 1 => ".{0,8}"];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            collection::btree_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

proptest! {
    #[test]
    fn a_name_is_what_its_rule_says(text in prop_oneof![".{0,300}", "[a-z0-9._A-Z-]{0,300}"]) {
        let edge = |at: Option<char>| at.is_some_and(|at| at.is_ascii_lowercase() || at.is_ascii_digit());
        let good = text.len() <= NAME_BYTES_MAX
            && edge(text.chars().next())
            && edge(text.chars().next_back())
            && text.chars().all(|c| edge(Some(c)) || "-_.".contains(c));
        match Name::new(&text) {
            Ok(name) => {
                prop_assert!(good);
                prop_assert_eq!(name.as_str(), &text);
                let json = serde_json::to_string(&name).unwrap();
                prop_assert_eq!(serde_json::from_str::<Name>(&json).unwrap(), name);
            }
            Err(error) => {
                prop_assert!(!good);
                prop_assert!(error.to_string().chars().count() < 1_000, "what is wrong is told shortly");
            }
        }
    }

    #[test]
    fn a_duration_is_read_back(ms in any::<u64>()) {
        let written = Duration::from_millis(ms);
        prop_assert_eq!(duration::parse(&duration::format(written)), Ok(written));
    }

    #[test]
    fn what_is_read_is_written_in_its_shortest_form(text in prop_oneof![".{0,24}", "[0-9]{0,22}(ms|s|m|h|d|w|)"]) {
        if let Ok(read) = duration::parse(&text) {
            let written = duration::format(read);
            // Nothing is written in the shortest unit, whatever it was read in.
            prop_assert!(read.is_zero() || written.len() <= text.len(), "{} for {}", written, text);
            prop_assert_eq!(duration::parse(&written), Ok(read));
        }
    }

    #[test]
    fn any_json_is_a_document_or_told_what_is_wrong(value in json()) {
        let mut top = value.clone();
        if let Value::Object(top) = &mut top {
            top.insert("version".into(), 1.into());
        }
        for value in [value, top] {
            let text = value.to_string();
            match Document::read(&text) {
                Ok(document) => prop_assert!(document.objects.values().all(|doc| doc.len() <= text.len())),
                Err(violations) => prop_assert!(!violations.is_empty()),
            }
        }
    }

    #[test]
    fn any_yaml_is_a_document_or_told_what_is_wrong(
        lines in collection::vec("[ ]{0,6}(- )?([a-z]{1,6}|version|routes|\\*a|<<|&a [a-z]|!!map|\\? )?: ?(\\*a|&a|\\[|\\{|1|~|\"|'|\\|)?", 0..12),
        text in "(.|\n){0,80}",
    ) {
        for text in [lines.join("\n"), format!("version: 1\n{}", lines.join("\n")), text] {
            if let Err(violations) = Document::read(&text) {
                prop_assert!(!violations.is_empty());
            }
        }
    }

    #[test]
    fn nesting_without_end_is_refused(depth in 300..1_000_000_usize, json in any::<bool>()) {
        let text = if json {
            format!("{{\"version\":1,\"routes\":{}", "[".repeat(depth))
        } else {
            format!("version: 1\nroutes: {}", "[".repeat(depth))
        };
        prop_assert!(Document::read(&text).is_err());
    }
}

/// Aliases of aliases: each line doubles what the one before it stands for.
#[test]
fn a_small_text_stays_a_small_value() {
    for (levels, large) in [(1, false), (8, false), (20, true), (60, true)] {
        let mut text = String::from("version: 1\nx0: &x0 [a, b]\n");
        for level in 1..=levels {
            let below = level - 1;
            text.push_str(&format!("x{level}: &x{level} [*x{below}, *x{below}]\n"));
        }
        let violations = Document::read(&text).unwrap_err();
        // The YAML reader counts repetitions, and what is read counts its size: whichever is first.
        let refused = ["repetition", "aliases"].iter().any(|word| violations[0].message.contains(word));
        assert_eq!(refused, large, "{levels}: {violations:?}");
    }
}
