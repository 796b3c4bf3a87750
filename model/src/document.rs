//! Config as people write it, in YAML or JSON: one document of name-keyed maps, read strictly.
//!
//! What is stored is read leniently, by nodes of any version (see [`crate::config`]); what people write is read here, where
//! an unknown field or a wrong type is told with its path, and nothing is guessed.

mod strict;

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use serde::de::{DeserializeOwned, DeserializeSeed};
use serde_json::{Map, Value};

use self::strict::Strict;
use crate::{
    Certificate, Change, Config, Consumer, Group, Key, Kind, Name, Op, Policy, Route, TcpRoute, Upstream,
    Violation,
};

/// The version of the document's form.
const VERSION: u64 = 1;
/// The largest document, in bytes: one of some 200,000 routes.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 20;
/// The largest object, in bytes of canonical JSON.
pub const OBJECT_BYTES_MAX: usize = 64 << 10;
/// How deep brackets may be nested in YAML; twice what its reader takes.
const BRACKETS_DEPTH_MAX: usize = 256;
/// The kinds that a document may hold; keys and certificates, which are secrets, are put in and taken out one by one.
const KINDS: [Kind; 6] =
    [Kind::Upstream, Kind::Policy, Kind::Group, Kind::Consumer, Kind::Route, Kind::TcpRoute];

/// Objects by kind and name, each in canonical JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// In the order of [`Kind::ALL`], then by name.
    pub objects: BTreeMap<(Kind, Name), Arc<[u8]>>,
}

fn violation(path: impl Into<String>, message: impl Into<String>) -> Violation {
    Violation { path: path.into(), message: message.into() }
}

/// Reads one object of this kind strictly: unknown fields and wrong types are violations, each with its path
/// (beginning with `path`). The result is its canonical JSON.
pub fn read_object(kind: Kind, path: &str, value: &Value) -> Result<Arc<[u8]>, Vec<Violation>> {
    let violations = match kind {
        Kind::Upstream => strict::<Upstream>(path, value),
        Kind::Policy => strict::<Policy>(path, value),
        Kind::Group => strict::<Group>(path, value),
        Kind::Consumer => strict::<Consumer>(path, value),
        Kind::Route => strict::<Route>(path, value),
        Kind::Key => strict::<Key>(path, value),
        Kind::Certificate => strict::<Certificate>(path, value),
        Kind::TcpRoute => strict::<TcpRoute>(path, value),
    };
    if !violations.is_empty() {
        return Err(violations);
    }
    let doc = canonical(value);
    if doc.len() > OBJECT_BYTES_MAX {
        return Err(vec![violation(path, format!("is {} bytes, and may be {OBJECT_BYTES_MAX}", doc.len()))]);
    }
    Ok(doc)
}

fn strict<T: DeserializeOwned>(path: &str, value: &Value) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut unknown = |field: serde_ignored::Path<'_>| {
        violations.push(violation(join(path, &field.to_string()), "there is no such field"));
    };
    let reading = serde_ignored::Deserializer::new(value, &mut unknown);
    if let Err(error) = serde_path_to_error::deserialize::<_, T>(reading) {
        let at = join(path, &error.path().to_string());
        violations.push(violation(at, error.into_inner().to_string()));
    }
    violations
}

/// A path within an object behind the object's own: `.0.` of a list becomes `[0].`, `?` of an option goes.
fn join(path: &str, inner: &str) -> String {
    let mut joined = path.to_owned();
    let parts = inner.split(['.', '[']).map(|part| part.trim_end_matches(']'));
    for part in parts.filter(|part| !part.is_empty() && *part != "?") {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            joined.push_str(&format!("[{part}]"));
        } else {
            joined.push('.');
            joined.push_str(part);
        }
    }
    joined
}

/// The one way to write a JSON value: keys sorted, no white space.
pub fn canonical(value: &Value) -> Arc<[u8]> {
    let mut text = Vec::with_capacity(256);
    write(value, &mut text);
    text.into()
}

/// Sorts keys whatever order the map keeps, which depends on features that any crate may turn on.
fn write(value: &Value, to: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            to.push(b'{');
            for (at, (name, value)) in fields.into_iter().enumerate() {
                if at > 0 {
                    to.push(b',');
                }
                to.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
                to.push(b':');
                write(value, to);
            }
            to.push(b'}');
        }
        Value::Array(items) => {
            to.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    to.push(b',');
                }
                write(item, to);
            }
            to.push(b']');
        }
        plain => to.extend_from_slice(plain.to_string().as_bytes()),
    }
}

impl Document {
    /// Reads a whole document in YAML (of which JSON is a part), strictly, with every violation at once.
    pub fn read(text: &str) -> Result<Self, Vec<Violation>> {
        let top = parse(text).map_err(|error| vec![error])?;
        let Value::Object(top) = top else {
            return Err(vec![violation("", "the document must be a map: version, upstreams, routes, …")]);
        };
        let mut violations = Vec::new();
        let mut document = Self::default();
        match top.get("version") {
            Some(version) if version.as_u64() == Some(VERSION) => {}
            Some(other) => {
                violations.push(violation("version", format!("is {other}, and this version reads 1")))
            }
            None => violations.push(violation("version", "is missing: write version: 1")),
        }
        for (field, value) in &top {
            let kind = KINDS.into_iter().find(|kind| kind.plural() == field);
            match (kind, value) {
                (Some(kind), Value::Object(objects)) => document.read_kind(kind, objects, &mut violations),
                (Some(_), Value::Null) => {}
                (Some(_), _) => violations.push(violation(field, "must be a map from names to objects")),
                (None, _) if field == "version" => {}
                (None, _) if field == "keys" => {
                    let message = "keys are not part of a document: issue them with gwctl key issue";
                    violations.push(violation(field, message));
                }
                (None, _) if field == "certificates" => {
                    let message =
                        "certificates are not part of a document: put them in with gwctl certificate add";
                    violations.push(violation(field, message));
                }
                (None, _) => {
                    let known: Vec<_> = KINDS.iter().map(|kind| kind.plural()).collect();
                    let message =
                        format!("there is no such field: a document has version, {}", known.join(", "));
                    violations.push(violation(field, message));
                }
            }
        }
        if violations.is_empty() { Ok(document) } else { Err(violations) }
    }

    fn read_kind(&mut self, kind: Kind, objects: &Map<String, Value>, violations: &mut Vec<Violation>) {
        for (name, value) in objects {
            let path = format!("{}.{name}", kind.plural());
            // `acme:` with nothing behind it is an object with every field at its default.
            let empty = Value::Object(Map::new());
            let value = if value.is_null() { &empty } else { value };
            match (Name::new(name), read_object(kind, &path, value)) {
                (Ok(name), Ok(doc)) => drop(self.objects.insert((kind, name), doc)),
                (name, doc) => {
                    violations.extend(name.err().map(|error| violation(path, error.to_string())));
                    violations.extend(doc.err().into_iter().flatten());
                }
            }
        }
    }

    /// The document that [`Document::read`] reads back as these objects; credentials are never in it.
    pub fn export(config: &Config) -> Value {
        let mut top = Map::from_iter([("version".to_owned(), Value::from(VERSION))]);
        for kind in KINDS {
            let objects = config.names(kind).into_iter().filter_map(|name| {
                let stored = config.get(kind, &name)?;
                Some((name.to_string(), serde_json::from_slice(&stored.doc).ok()?))
            });
            let objects: Map<String, Value> = objects.collect();
            if !objects.is_empty() {
                top.insert(kind.plural().to_owned(), Value::Object(objects));
            }
        }
        Value::Object(top)
    }

    /// What must be done to `config` so that it holds this document; with `prune`, what is in `config` and not here
    /// is deleted, but never a key or certificate.
    pub fn change(&self, config: &Config, prune: bool) -> Change {
        let mut ops = Vec::new();
        for ((kind, name), doc) in &self.objects {
            if config.get(*kind, name).is_none_or(|stored| stored.doc != *doc) {
                ops.push(Op::Put { kind: *kind, name: name.clone(), doc: doc.clone() });
            }
        }
        // What refers goes before what is referred to.
        for kind in KINDS.into_iter().rev().filter(|_| prune) {
            let gone = config
                .names(kind)
                .into_iter()
                .filter(|name| !self.objects.contains_key(&(kind, name.clone())));
            ops.extend(gone.map(|name| Op::Delete { kind, name }));
        }
        Change { base: config.revision, ops }
    }
}

fn parse(text: &str) -> Result<Value, Violation> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(violation(
            "",
            format!("the document is {} bytes, and may be {DOCUMENT_BYTES_MAX}", text.len()),
        ));
    }
    let budget = Cell::new(4 * text.len() + (64 << 10));
    let strict = Strict(&budget);
    // Most documents that programs write are JSON, which is read several times faster as what it is.
    if text.trim_start().starts_with('{') {
        let mut json = serde_json::Deserializer::from_str(text);
        let read = strict.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
        return read.map_err(|error| violation("", format!("the document is no JSON: {error}")));
    }
    if is_deep(text) {
        return Err(violation("", format!("brackets are nested more than {BRACKETS_DEPTH_MAX} deep")));
    }
    strict
        .deserialize(serde_yaml_ng::Deserializer::from_str(text))
        .map_err(|error| violation("", format!("the document is no YAML: {error}")))
}

/// Whether brackets are nested deeper than any document's are. The YAML parser looks at every open bracket at each token,
/// so that a small text of brackets alone would keep it busy for hours. Brackets in strings are counted too: they would
/// have to be some hundreds, and not closed.
fn is_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    text.bytes().any(|byte| {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > BRACKETS_DEPTH_MAX
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "
version: 1
upstreams:
  orders: {targets: [{address: '10.0.1.11:8080'}], timeout: {connect: 1s}}
policies:
  keys: {type: api-key, in: {header: x-api-key}}
consumers:
  acme:
routes:
  orders:
    hosts: [api.example]
    match: [{path: {prefix: /orders}, methods: [GET]}]
    policies: [keys]
    upstream: orders
";

    fn paths(text: &str) -> Vec<String> {
        Document::read(text).unwrap_err().into_iter().map(|violation| violation.path).collect()
    }

    #[test]
    fn a_document_is_read_applied_exported_and_read_back() {
        let document = Document::read(GOOD).unwrap();
        assert_eq!(document.objects.len(), 4);
        let mut config = Config::default();
        config.apply(&document.change(&config, false));
        assert!(config.unreadable.is_empty());
        let exported = Document::export(&config);
        assert_eq!(Document::read(&exported.to_string()), Ok(document.clone()));
        assert!(document.change(&config, true).ops.is_empty());
        let smaller = Document::read("{\"version\": 1}").unwrap();
        assert_eq!(smaller.change(&config, false).ops.len(), 0);
        assert_eq!(smaller.change(&config, true).ops.len(), 4);
    }

    #[test]
    fn every_unknown_field_and_wrong_type_is_told_with_its_path() {
        let text = "
version: 1
colour: red
upstreams:
  a: {targets: [{address: x, wight: 1}], timeot: {}}
  b: {targets: 7}
  BAD: {targets: []}
routes:
  r: {match: [{path: {perfix: /a}}]}
keys: {}
";
        let mut paths = paths(text);
        paths.sort();
        let want = [
            "colour",
            "keys",
            "routes.r.match[0].path",
            "upstreams.BAD",
            "upstreams.a.targets[0].wight",
            "upstreams.a.timeot",
            "upstreams.b.targets",
        ];
        assert_eq!(paths, want);
    }

    #[test]
    fn what_is_no_document_is_told() {
        for text in [
            "",
            "[]",
            "7",
            "{",
            "version: 2",
            "routes: {}",
            "a: b: c",
            "version: 1\nversion: 1",
            "{\"version\":1,\"version\":1}",
        ] {
            assert!(Document::read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn canonical_json_has_one_form() {
        let one: Value = serde_json::from_str(r#"{"b": [1, {"d": null, "c": "x\n"}], "a": 1.5}"#).unwrap();
        assert_eq!(&*canonical(&one), br#"{"a":1.5,"b":[1,{"c":"x\n","d":null}]}"#);
    }

    #[test]
    fn aliases_can_not_make_a_small_text_large() {
        let list = "x,".repeat(10_000);
        let aliases = "*a,".repeat(10_000);
        let violations = Document::read(&format!("version: 1\na: &a [{list}]\nb: [{aliases}]")).unwrap_err();
        assert!(violations[0].message.contains("aliases"), "{violations:?}");
    }

    proptest! {
        /// What is stored is compared as bytes, so a number must be read as it was written.
        #[test]
        fn numbers_have_one_form(number in "-?[1-9][0-9]{0,30}(\\.[0-9]{1,30})?(e-?[0-9]{1,2})?") {
            let read = |text: &[u8]| canonical(&serde_json::from_slice(text).unwrap());
            let once = read(number.as_bytes());
            prop_assert_eq!(read(&once), once);
        }

        #[test]
        fn no_text_panics(text in ".{0,200}") {
            let _ = Document::read(&text);
            let _ = Document::read(&format!("version: 1\nroutes:\n  a: {text}"));
        }
    }
}
