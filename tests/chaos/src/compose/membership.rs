//! Nodes come and go.

use std::fs;

use phalanx_tests::Member;
use serde_json::{Value, json};

use super::{Compose, NodeOptions};

impl Compose {
    /// Starts one more node, which joins by itself, or is alone; gives its place.
    pub fn add_node(&mut self, options: NodeOptions) -> usize {
        let (join, place) = ((!options.is_alone).then(|| self.way_in(&[])), self.nodes.len());
        self.project.plan(self.ways, options, join);
        self.relay(place);
        let id = self.project.create_node(place);
        self.take(place, id);
        self.connect_new(place);
        self.start(place);
        place
    }

    /// Removes a node from the cluster for good, by another that runs. Its container is left as it is.
    pub fn remove(&mut self, place: usize) {
        let id = self.member(place).admin.id();
        self.remove_id(id, &[place]);
        self.nodes[place].is_out = true;
    }

    /// Removes the member with this id from the cluster for good, by a node that runs and is not at these places.
    pub fn remove_id(&self, id: u64, not_by: &[usize]) {
        self.one_that_runs(not_by).admin.must("DELETE", &format!("/v1/cluster/members/{id}"), &Value::Null);
    }

    /// Empties the folder of a node that has ended. Once started it joins as a new one, as soon as the old one has
    /// been removed: two can't have one address.
    pub fn wipe(&mut self, place: usize) {
        self.empty(place);
        self.nodes[place].is_out = false;
        self.project.plans[place].join = Some(self.way_in(&[place]));
        self.change(place, |_| {});
    }

    /// Empties the folder of a node that has ended.
    pub fn empty(&self, place: usize) {
        self.ended(place);
        let data = self.data(place);
        empty(data).unwrap_or_else(|error| panic!("empty {}: {error}", data.display()));
    }

    /// Puts a fresh join token where nodes look for it; gives where a member is that is not at these places.
    fn way_in(&self, not: &[usize]) -> String {
        let made = self.one_that_runs(not).admin.must("POST", "/v1/cluster/tokens", &json!({}));
        let (file, new) = (self.project.dir.join("shared/join-token"), self.project.dir.join("shared/new"));
        let token = made["token"].as_str().expect("a token");
        fs::write(&new, token).and_then(|()| fs::rename(&new, &file)).expect("the folder is ours");
        let name = &self.one_that_runs(not).name;
        let plan = self.project.plans.iter().find(|plan| plan.name == *name).expect("it was planned");
        plan.advertise.clone()
    }

    fn one_that_runs(&self, not: &[usize]) -> &Member {
        let fit = |(place, node): &(usize, &super::Node)| !node.is_out && !not.contains(place);
        let mut others = self.nodes.iter().enumerate().filter(fit).map(|(_, node)| &node.member);
        others.find(|member| member.admin.is_ready()).expect("another node of the cluster runs")
    }
}

/// Removes what is in the folder, which may be a mount, and leaves the folder.
fn empty(folder: &std::path::Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let remove = if entry.file_type()?.is_dir() { fs::remove_dir_all } else { fs::remove_file };
        remove(entry.path())?;
    }
    Ok(())
}
