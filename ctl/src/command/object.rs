//! `add`, `set`, `get`, `list` and `delete`, alike for every kind of object.

use clap::{Args, Subcommand};
use http::Method;
use model::{Kind, api};
use serde_json::{Map, Value, json};

use crate::{
    cli::Global,
    client::{Call, Client},
    command::{Wait, apply, lagging, read},
    failure::Failure,
    output,
    table::Table,
};

/// An object's spec, and other objects that must come with it.
pub(crate) type Built = (Value, Vec<(Kind, String, Value)>);

/// A kind of object that flags can describe.
pub(crate) trait Spec: Args {
    /// The kind.
    const KIND: Kind;

    /// What the flags say: the object's spec, and other objects that must come with it.
    fn build(&self, name: &str) -> Result<Built, Failure>;
}

/// What can be done with objects of a kind.
#[derive(Debug, Subcommand)]
pub(crate) enum Verbs<S: Args> {
    /// Create it; fails if it is there.
    Add(Put<S>),
    /// Create or replace it.
    Set(Put<S>),
    /// Show it.
    Get {
        /// Its name.
        name: String,
    },
    /// List them all.
    List,
    /// Delete it.
    Delete {
        /// Its name.
        name: String,
        /// Only if this revision was the last to change it.
        #[arg(long, value_name = "REVISION")]
        if_match: Option<u64>,
        #[command(flatten)]
        wait: Wait,
    },
}

/// An object to create or replace.
#[derive(Debug, Args)]
pub(crate) struct Put<S: Args> {
    /// Its name.
    pub(crate) name: String,
    /// Read its spec (YAML or JSON) from this file, or `-`, instead of flags.
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Only if this revision was the last to change it.
    #[arg(long, value_name = "REVISION")]
    if_match: Option<u64>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    pub(crate) spec: S,
}

impl<S: Spec> Verbs<S> {
    /// Does it.
    pub(crate) async fn run(self, global: &Global) -> Result<(), Failure> {
        let kind = S::KIND.plural();
        let client = global.client()?;
        match self {
            Self::Add(put) => put.run(global, &client, true).await,
            Self::Set(put) => put.run(global, &client, false).await,
            Self::Get { name } => {
                let call = Call::new(Method::GET, format!("/v1/{kind}/{}", name_in_path(&name)?));
                let object: api::Object = client.json(call).await?;
                output::print(global.output, &object, |object| {
                    let head = format!("# created at {}, changed at {}\n", object.created, object.changed);
                    head + &output::yaml(&object.spec).unwrap_or_default()
                })
            }
            Self::List => {
                let items = list(&client, S::KIND).await?;
                output::print(global.output, &items, |items| {
                    let mut table = Table::new(&["NAME", "CREATED", "CHANGED", "SPEC"]);
                    for item in items {
                        let spec: String = item.spec.to_string().chars().take(100).collect();
                        table.row([
                            item.name.to_string(),
                            item.created.to_string(),
                            item.changed.to_string(),
                            spec,
                        ]);
                    }
                    table.text()
                })
            }
            Self::Delete { name, if_match, wait } => {
                let path = wait.on(&format!("/v1/{kind}/{}", name_in_path(&name)?), global)?;
                let mut call = Call::new(Method::DELETE, path);
                if let Some(revision) = if_match {
                    call = call.header("if-match", format!("\"{revision}\""));
                }
                let applied: api::Applied = client.json(call).await?;
                report(global, &applied)
            }
        }
    }
}

impl<S: Spec> Put<S> {
    async fn run(self, global: &Global, client: &Client, add: bool) -> Result<(), Failure> {
        let name = name_in_path(&self.name)?;
        let (spec, others) = match &self.file {
            Some(file) => {
                let spec = serde_yaml_ng::from_str(&read(file)?);
                (spec.map_err(|error| Failure::refused(format!("{file}: {error}")))?, Vec::new())
            }
            None => self.spec.build(name)?,
        };
        if !others.is_empty() {
            if self.if_match.is_some() {
                return Err(Failure::usage("--if-match does not go with --to").hint("use --upstream NAME"));
            }
            let mut objects = others;
            objects.push((S::KIND, name.to_owned(), spec));
            let document = document(&objects).to_string();
            return apply::change(global, client, document, &self.wait, add).await;
        }
        let path = self.wait.on(&format!("/v1/{}/{name}", S::KIND.plural()), global)?;
        let mut call = Call::new(Method::PUT, path).json(&spec)?;
        if add {
            call = call.header("if-none-match", "*");
        }
        if let Some(revision) = self.if_match {
            call = call.header("if-match", format!("\"{revision}\""));
        }
        let applied: api::Applied = client.json(call).await?;
        report(global, &applied)
    }
}

/// The document of these objects.
pub(crate) fn document(objects: &[(Kind, String, Value)]) -> Value {
    let mut document = Map::from_iter([("version".to_owned(), json!(1))]);
    for (kind, name, spec) in objects {
        let map = document.entry(kind.plural()).or_insert_with(|| json!({}));
        map[name.as_str()] = spec.clone();
    }
    Value::Object(document)
}

/// Every object of a kind, page by page.
pub(crate) async fn list(client: &Client, kind: Kind) -> Result<Vec<api::Object>, Failure> {
    let mut items = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/{}?limit=1000{after}", kind.plural());
        let page: api::Objects = client.json(Call::new(Method::GET, path)).await?;
        items.extend(page.items);
        match page.next {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(items),
        }
    }
}

/// Prints what a write came to.
pub(crate) fn report(global: &Global, applied: &api::Applied) -> Result<(), Failure> {
    output::print(global.output, applied, |applied| {
        let mut text = String::new();
        for step in &applied.steps {
            text.push_str(&format!("{} {} {}\n", apply::word(step.verb), step.kind, step.name));
        }
        let what = if applied.changed { "Done at revision" } else { "Nothing to change at revision" };
        text + &format!("{what} {}\n", applied.revision)
    })?;
    lagging(&applied.lagging)
}

/// The name, where it is one (and so needs no escaping in a URL).
pub(crate) fn name_in_path(name: &str) -> Result<&str, Failure> {
    model::Name::new(name).map(|_| name).map_err(|error| Failure::usage(error.to_string()))
}
