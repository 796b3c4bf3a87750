//! The layer rule of docs/architecture.md: which crate may use which, asserted over what cargo says.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// For each crate of the workspace, the crates of the workspace that it may use.
const LAYERS: [(&str, &[&str]); 9] = [
    ("model", &[]),
    ("limits", &[]),
    ("gateway", &["limits", "model"]),
    ("cluster-proto", &["model"]),
    ("raft", &["cluster-proto", "model"]),
    ("ctl", &["model"]),
    ("node", &["cluster-proto", "gateway", "limits", "model", "raft"]),
    ("tests", &["limits"]),
    ("chaos", &["tests"]),
];

/// Libraries that belong to some crates alone.
const OWNED: [(&str, &[&str]); 7] = [
    ("openraft", &["raft"]),
    ("sled", &["raft"]),
    ("bincode", &["raft"]),
    ("chitchat", &["node"]),
    ("tonic", &["cluster-proto", "node", "raft"]),
    ("prost", &["cluster-proto", "raft"]),
    ("tokio", &["ctl", "gateway", "node", "raft"]),
];

type Uses = BTreeMap<String, BTreeSet<String>>;

/// Every use that the rule does not allow.
fn broken(uses: &Uses) -> Vec<String> {
    let mut broken = Vec::new();
    for (krate, used) in uses {
        let Some((_, may)) = LAYERS.iter().find(|(name, _)| name == krate) else {
            broken.push(format!("{krate} has no layer: give it one here and in docs/architecture.md"));
            continue;
        };
        for other in used {
            let ours = LAYERS.iter().any(|(name, _)| name == other);
            if ours && !may.contains(&other.as_str()) {
                broken.push(format!("{krate} uses {other}, which is not below it"));
            }
            let owners = OWNED.iter().find(|(name, _)| name == other).map(|(_, owners)| *owners);
            if owners.is_some_and(|owners| !owners.contains(&krate.as_str())) {
                broken.push(format!("{krate} uses {other}, which belongs to others"));
            }
        }
    }
    broken
}

#[test]
fn every_crate_keeps_to_its_layer() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let normal = |kind: DependencyKind| kind == DependencyKind::Normal;
    let uses: Uses = metadata
        .packages
        .iter()
        .map(|package| {
            let used = package
                .dependencies
                .iter()
                .filter(|used| normal(used.kind))
                .map(|used| used.name.to_string());
            (package.name.to_string(), used.collect())
        })
        .collect();
    assert_eq!(uses.len(), LAYERS.len());
    assert_eq!(broken(&uses), Vec::<String>::new());
}

#[test]
fn a_use_out_of_layer_is_found() {
    let uses =
        |krate: &str, other: &str| Uses::from([(krate.to_owned(), BTreeSet::from([other.to_owned()]))]);
    assert_eq!(broken(&uses("gateway", "model")).len(), 0);
    for (krate, other) in
        [("gateway", "raft"), ("model", "gateway"), ("node", "sled"), ("ctl", "tonic"), ("new", "model")]
    {
        assert_eq!(broken(&uses(krate, other)).len(), 1, "{krate} -> {other}");
    }
}
