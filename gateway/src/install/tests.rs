//! One Plan after another: what is kept, and what is refused.

use model::{Kind, Revision, config::Stored};

use super::*;

fn put(config: &mut Config, kind: Kind, name: &str, doc: &str) {
    config.revision = config.revision.next();
    let stored = Stored { created: Revision(1), changed: config.revision, doc: doc.as_bytes().into() };
    config.insert(kind, Name::new(name).unwrap(), stored);
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

#[test]
fn what_did_not_change_is_the_same_object() {
    let mut config = Config::default();
    put(&mut config, Kind::Upstream, "u", r#"{"targets":[{"address":"10.0.0.1:1"}]}"#);
    put(&mut config, Kind::Policy, "p", r#"{"type":"ip","deny":["10.0.0.0/8"]}"#);
    put(&mut config, Kind::Route, "r", r#"{"upstream":"u","policies":["p"]}"#);
    put(&mut config, Kind::Route, "s", r#"{"upstream":"u","hosts":["s"]}"#);
    let old = Plan::empty().install(&config).unwrap();
    put(&mut config, Kind::Upstream, "u", r#"{"targets":[{"address":"10.0.0.2:1"}]}"#);
    put(&mut config, Kind::Policy, "p", r#"{"type":"ip","deny":["11.0.0.0/8"]}"#);
    put(&mut config, Kind::Route, "s", r#"{"upstream":"u","hosts":["t"]}"#);
    let new = old.install(&config).unwrap();
    assert_eq!(new.revision(), config.revision);
    assert!(Arc::ptr_eq(&old.routes[&name("r")], &new.routes[&name("r")]));
    assert!(!Arc::ptr_eq(&old.routes[&name("s")], &new.routes[&name("s")]));
    assert_eq!(&*new.upstream(&name("u")).unwrap().endpoints.all()[0].label, "10.0.0.2:1");
    let policy = |plan: &Plan| format!("{:?}", plan.policies(&plan.routes[&name("r")]).collect::<Vec<_>>());
    assert_ne!(policy(&old), policy(&new));
}

#[test]
fn a_config_that_does_not_compile_leaves_the_plan() {
    let mut config = Config::default();
    put(&mut config, Kind::Upstream, "u", r#"{"targets":[{"address":"10.0.0.1:1"}]}"#);
    put(&mut config, Kind::Route, "r", r#"{"upstream":"u"}"#);
    let plan = Plan::empty().install(&config).unwrap();
    let mut dangling = config.clone();
    dangling.remove(Kind::Upstream, &name("u"));
    assert_eq!(plan.install(&dangling).unwrap_err().violations[0].path, "routes.r");
    let mut newer = config.clone();
    put(&mut newer, Kind::Route, "n", r#"{"upstream":{"by":"magic"}}"#);
    let error = plan.install(&newer).unwrap_err();
    assert!(
        error.to_string().starts_with("compile revision 3: routes.n: was written by a newer version"),
        "{error}"
    );
    let mut unknown = config.clone();
    put(&mut unknown, Kind::Policy, "p", r#"{"type":"nope"}"#);
    assert_eq!(plan.install(&unknown).unwrap_err().violations[0].path, "policies.p.type");
    assert_eq!(plan.routes.len(), 1);
}

#[test]
fn a_policy_of_another_type_is_run_in_its_new_place() {
    let mut config = Config::default();
    put(&mut config, Kind::Policy, "a", r#"{"type":"api-key"}"#);
    put(&mut config, Kind::Policy, "b", r#"{"type":"ip","deny":["::/0"]}"#);
    put(&mut config, Kind::Route, "r", r#"{"policies":["a","b"],"respond":{"status":200}}"#);
    let plan = Plan::empty().install(&config).unwrap();
    let order =
        |plan: &Plan| plan.routes[&name("r")].policies.iter().map(Name::to_string).collect::<Vec<_>>();
    assert_eq!(order(&plan), ["b", "a"]);
    put(&mut config, Kind::Policy, "a", r#"{"type":"ip","deny":["::/0"]}"#);
    put(&mut config, Kind::Policy, "b", r#"{"type":"api-key"}"#);
    assert_eq!(order(&plan.install(&config).unwrap()), ["a", "b"]);
}
