//! The config as people write it, in YAML or JSON: what is read strictly is stored, exported and read back as the same, and
//! what the checks let pass compiles.
#![cfg_attr(feature = "libfuzzer", no_main)]

use gateway::plan::Plan;
use model::{
    Config,
    document::{self, Document},
};

phalanx_fuzz::target!(|data| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let document = match Document::read(text) {
        Ok(document) => document,
        Err(violations) => return assert!(!violations.is_empty(), "refused, and nobody is told why"),
    };
    for ((kind, name), doc) in &document.objects {
        let value = serde_json::from_slice(doc).expect("what is stored is JSON");
        assert_eq!(document::canonical(&value), *doc, "{kind} {name} is not canonical");
        assert_eq!(
            document::read_object(*kind, "", &value).as_ref(),
            Ok(doc),
            "{kind} {name} is read otherwise"
        );
    }

    let mut config = Config::default();
    let change = document.change(&config, false);
    let mut violations = model::check::check(&config, &change);
    violations.extend(gateway::check(&config, &change));
    config.apply(&change);
    assert!(config.unreadable.is_empty(), "read strictly and not leniently: {:?}", config.unreadable);
    assert!(document.change(&config, true).ops.is_empty(), "applied, and something is left to be done");

    let exported = Document::export(&config);
    assert_eq!(Document::read(&exported.to_string()).as_ref(), Ok(&document), "as JSON");
    let yaml = serde_yaml_ng::to_string(&exported).expect("a document can be written as YAML");
    assert_eq!(Document::read(&yaml).as_ref(), Ok(&document), "as YAML:\n{yaml}");

    if violations.is_empty() {
        let plan = Plan::empty().install(&config);
        let plan = plan.unwrap_or_else(|error| panic!("checked, and does not compile: {error}"));
        assert!(plan.install(&Config::default()).is_ok(), "there is no way back to nothing");
    }
});
