//! The scenarios of `tests/scenarios`, on one node.

use std::path::Path;

use phalanx_tests::{
    alone,
    scenario::{Scenario, Stage},
};

#[test]
fn every_scenario_goes_as_it_is_written() {
    let _alone = alone();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let (stage, mut differences) = (Stage::default(), Vec::new());
    let scenarios = Scenario::read_all(&folder);
    assert!(!scenarios.is_empty(), "no scenario in {}", folder.display());
    for (file, scenario) in scenarios {
        let differing = scenario.map_or_else(|error| vec![error], |scenario| stage.play(&scenario));
        differences.extend(differing.into_iter().map(|differing| format!("{file}: {differing}")));
    }
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn what_differs_is_told_with_its_step() {
    let _alone = alone();
    let stage = Stage::default();
    let told = |text: &str| match Scenario::read(text) {
        Ok(scenario) => stage.play(&scenario),
        Err(error) => vec![error],
    };
    let config = r#"
about: A scenario that is wrong.
origins: {blue: {}}
config: {version: 1, upstreams: {o: {targets: [{address: <origin.blue>}]}}, routes: {all: {upstream: o}}}
"#;
    let steps = r#"
steps:
  - send: GET /fine
    expect: {status: 200, body: blue, seen: [{origin: blue, target: /fine}]}
  - send: GET /a
    expect: {status: 404, body: red, headers: {x-a: b}, problem: no_route, shares: {red: 1},
             seen: [{origin: blue, method: PUT, headers: {via: null}}]}
  - apply: {version: 1, routes: {all: {colour: blue}}}
"#;
    let differences = told(&format!("{config}{steps}"));
    let expected = [
        "the status is 200, not 404",
        "x-a is [], not [\"b\"]",
        "the body is \"blue\", not \"red\"",
        "the problem's type",
        "the problem's code",
        "the problem has no title",
        "a problem of content type None",
        "the method \"GET\", not \"PUT\"",
        "via is [\"1.1 phalanx\"], not []",
        "the shares are {\"blue\": 1}, not {\"red\": 1}",
    ];
    for expected in expected {
        let found =
            differences.iter().any(|told| told.starts_with("step 2 (GET /a): ") && told.contains(expected));
        assert!(found, "{expected} is not told: {differences:#?}");
    }
    assert!(
        differences.last().unwrap().starts_with("step 3 (apply): the config is refused: "),
        "{differences:#?}"
    );
    assert!(!differences.iter().any(|told| told.starts_with("step 1")), "{differences:#?}");
    assert!(told(&format!("{config}steps: [{{sned: GET /}}]"))[0].contains("unknown field `sned`"));
}
