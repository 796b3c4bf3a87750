//! Nodes as processes.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    process::ExitStatus,
};

use phalanx_tests::{
    Admin, Cluster, Member,
    links::{Carrier, Links},
};

use super::Nodes;

fn code(ended: ExitStatus) -> i32 {
    ended.code().unwrap_or(-1)
}

impl Nodes for Cluster {
    fn count(&self) -> usize {
        self.nodes.len()
    }

    fn member(&self, place: usize) -> Member {
        self.members().swap_remove(place)
    }

    fn admin(&self, place: usize) -> &Admin {
        &self.nodes[place].admin
    }

    fn data(&self, place: usize) -> &Path {
        &self.nodes[place].data
    }

    fn folder(&self, place: usize) -> &Path {
        &self.nodes[place].data
    }

    fn log(&self, place: usize) -> String {
        self.nodes[place].log_text()
    }

    fn peer(&self, place: usize) -> String {
        self.nodes[place].peer.to_string()
    }

    fn pid(&self, place: usize) -> Option<u32> {
        self.nodes[place].pid()
    }

    fn host(&self) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn links(&self) -> Option<&Links> {
        Some(self.links())
    }

    fn add(&mut self) -> usize {
        self.add();
        self.nodes.len() - 1
    }

    fn try_start(&mut self, place: usize) -> Result<(), i32> {
        self.nodes[place].try_start().map_err(code)
    }

    fn kill(&mut self, places: &[usize]) {
        places.iter().for_each(|place| self.nodes[*place].kill());
    }

    fn stop(&mut self, place: usize) -> i32 {
        code(self.nodes[place].stop())
    }

    fn ended(&mut self, place: usize) -> i32 {
        code(self.nodes[place].ended())
    }

    fn pause(&self, place: usize) {
        self.nodes[place].pause();
    }

    fn resume(&self, place: usize) {
        self.nodes[place].resume();
    }

    fn wipe(&mut self, place: usize) {
        std::fs::remove_dir_all(&self.nodes[place].data).expect("the folder can be removed");
    }

    fn build(&self, place: usize) -> String {
        self.nodes[place].program.display().to_string()
    }

    fn set_build(&mut self, place: usize, build: &str) {
        self.nodes[place].program = build.into();
    }

    fn set_variable(&mut self, place: usize, name: &str, value: &str) {
        self.nodes[place].environment.insert(name.to_owned(), value.to_owned());
    }

    fn cut_carrier(&self, carrier: Carrier, from: usize, to: usize) {
        self.links().cut_carrier(carrier, from, to);
    }

    fn heal(&self) {
        self.links().heal();
    }
}
