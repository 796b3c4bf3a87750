//! Scenarios as data: a config, requests, and what is expected of each. `scenarios/README.md` says how one is
//! written.

mod actor;
mod check;
mod stage;

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::Value;

pub use self::stage::Stage;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, in a sentence.
    pub about: String,
    #[serde(default)]
    origins: BTreeMap<String, Behaviour>,
    #[serde(default)]
    keys: BTreeMap<String, String>,
    config: Value,
    steps: Vec<Step>,
    #[serde(skip)]
    text: String,
}

/// What an origin does.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Behaviour {
    #[serde(rename = "is")]
    manner: Manner,
    /// Of its answer; 200 as if not given.
    status: Option<u16>,
    headers: BTreeMap<String, Values>,
    /// Of its answer; its name as if not given.
    body: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Manner {
    /// It answers.
    #[default]
    Alive,
    /// Nobody listens at its address.
    Dead,
    /// It takes requests and never answers.
    Silent,
    /// It takes requests and hangs up.
    Broken,
}

/// One value or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

impl Values {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Many(values) => values,
        }
    }
}

/// Either a request to send or a document to apply.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    apply: Option<Value>,
    send: Option<String>,
    #[serde(default = "Step::host_default")]
    host: String,
    #[serde(default)]
    headers: BTreeMap<String, Values>,
    #[serde(default)]
    body: String,
    #[serde(default = "Step::times_default")]
    times: usize,
    #[serde(default)]
    expect: Expect,
}

impl Step {
    fn host_default() -> String {
        "localhost".to_owned()
    }

    fn times_default() -> usize {
        1
    }
}

/// What is expected of a request; what is not given may be anything.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Expect {
    status: Option<u16>,
    headers: BTreeMap<String, Option<Values>>,
    body: Option<String>,
    /// The code of a problem document.
    problem: Option<String>,
    /// What origins have seen of the request, attempt by attempt.
    seen: Option<Vec<Seen>>,
    /// How many of the requests each origin has seen.
    shares: Option<BTreeMap<String, Share>>,
}

/// How many of several requests an origin has seen.
#[derive(Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Share {
    Exactly(usize),
    /// So many at least, and so many at most.
    Between([usize; 2]),
}

impl Share {
    fn has(self, count: usize) -> bool {
        match self {
            Self::Exactly(wanted) => count == wanted,
            Self::Between([least, most]) => (least..=most).contains(&count),
        }
    }
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exactly(wanted) => write!(f, "{wanted}"),
            Self::Between([least, most]) => write!(f, "{least} to {most}"),
        }
    }
}

/// What an origin has seen of a request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    origin: String,
    method: Option<String>,
    target: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Option<Values>>,
    body: Option<String>,
}

impl Scenario {
    /// Reads one; an error says where it is.
    pub fn read(text: &str) -> Result<Self, String> {
        let read: Self = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_owned(), ..read })
    }

    /// The same with these words in place of what stands for them.
    fn with(&self, words: &[(String, String)]) -> Result<Self, String> {
        let put_in = |text: String, (name, word): &(String, String)| text.replace(name, word);
        Self::read(&words.iter().fold(self.text.clone(), put_in))
    }

    /// Every scenario in this folder, by the names of the files.
    pub fn read_all(folder: &Path) -> Vec<(String, Result<Self, String>)> {
        let entries = std::fs::read_dir(folder).expect("the folder of scenarios");
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
        files.sort();
        let read = |file: &Path| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(file).map_err(|error| error.to_string());
            (name, text.and_then(|text| Self::read(&text)))
        };
        files.iter().map(|file| read(file)).collect()
    }
}
