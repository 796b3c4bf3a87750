//! The JSON of the admin API: every body that it or its clients read is written and read back as the same, objects are stored
//! in one form, and any request can be explained.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::{fmt::Debug, sync::OnceLock};

use gateway::{path::normalise, plan::Plan};
use model::{
    Config, Kind, Violation, api, cluster,
    document::{self, Document},
    duration,
};
use serde::{Serialize, de::DeserializeOwned};

/// A config with matches of every sort.
const CONFIG: &str = include_str!("../corpus/document/every-match.yaml");

phalanx_fuzz::target!(|data| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(length) = duration::parse(text)
    {
        assert_eq!(duration::parse(&duration::format(length)), Ok(length), "{text:?}");
    }
    let Ok(value) = serde_json::from_slice(data) else { return };
    for kind in Kind::ALL {
        if let Ok(doc) = document::read_object(kind, "", &value) {
            let read = serde_json::from_slice(&doc).expect("what is stored is JSON");
            assert_eq!(document::read_object(kind, "", &read), Ok(doc), "a {kind} is not stored in one form");
        }
    }
    bodies(data);
    if let Ok(request) = serde_json::from_slice(data) {
        explains(&request);
    }
});

/// Reads, writes and reads as each of these.
macro_rules! same {
    ($data:expr; $($body:ty),* $(,)?) => { $(same::<$body>($data);)* };
}

fn bodies(data: &[u8]) {
    same!(data;
        api::Object, api::Objects, api::ApplyRequest, api::Applied, api::Step, api::KeyRequest, api::KeyIssued,
        api::ExplainRequest, api::Explanation, api::InitRequest, api::Formed, api::JoinRequest, api::Joined,
        api::JoinTokenRequest, api::JoinTokenMade, api::AdminTokenRequest, api::AdminTokenMade, api::TokenListed,
        api::TransferRequest, api::ClusterStatus, api::MemberStatus, api::Problem, Violation, model::Upstream,
        model::Policy, model::Group, model::Consumer, model::Route, model::Key, cluster::Founding, cluster::Node,
    );
}

fn same<T: DeserializeOwned + Serialize + PartialEq + Debug>(data: &[u8]) {
    let Ok(body) = serde_json::from_slice::<T>(data) else { return };
    let written = serde_json::to_string(&body).expect("what was read can be written");
    let read: T = serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"));
    assert_eq!(read, body, "{written}");
}

fn explains(request: &api::ExplainRequest) {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    let plan = PLAN.get_or_init(|| {
        let document = Document::read(CONFIG).expect("the config can be read");
        let mut config = Config::default();
        config.apply(&document.change(&config, false));
        Plan::empty().install(&config).expect("the config compiles")
    });
    let told = plan.explain(request);
    assert_eq!(told.revision, plan.revision());
    if told.refused.is_some() {
        return assert!(told.route.is_none() && told.candidates.is_empty(), "refused and routed: {told:?}");
    }
    assert_eq!(normalise(&told.path).as_deref(), Ok(&*told.path), "it was matched by another path");
    let takes = |candidate: &&api::Candidate| candidate.failed.is_none();
    let winner = told.candidates.iter().find(takes).map(|candidate| &candidate.route);
    assert_eq!(winner, told.route.as_ref(), "the router and the explanation differ: {told:?}");
}
