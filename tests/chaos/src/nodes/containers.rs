//! Nodes in containers.

use std::{net::IpAddr, path::Path};

use phalanx_tests::{
    Admin, Member,
    links::{Carrier, Links},
    until,
};
use serde_json::Value;

use super::Nodes;
use crate::compose::{Compose, NodeOptions};

/// Where a container has its data folder.
const FOLDER: &str = "/data";

impl Nodes for Compose {
    fn count(&self) -> usize {
        self.count()
    }

    fn member(&self, place: usize) -> Member {
        self.member(place).clone()
    }

    fn admin(&self, place: usize) -> &Admin {
        &self.member(place).admin
    }

    fn data(&self, place: usize) -> &Path {
        self.data(place)
    }

    fn folder(&self, _place: usize) -> &Path {
        Path::new(FOLDER)
    }

    fn log(&self, place: usize) -> String {
        self.logs(place)
    }

    fn peer(&self, place: usize) -> String {
        self.peer(place).to_owned()
    }

    fn pid(&self, place: usize) -> Option<u32> {
        self.pid(place)
    }

    fn host(&self) -> IpAddr {
        self.host()
    }

    fn links(&self) -> Option<&Links> {
        self.links()
    }

    fn add(&mut self) -> usize {
        let place = self.add_node(NodeOptions { is_alone: true, ..NodeOptions::default() });
        until("a node answers on its socket", || self.answers(place).then_some(()));
        place
    }

    fn try_start(&mut self, place: usize) -> Result<(), i32> {
        Self::start(self, place);
        self.started(place)
    }

    fn start_all(&mut self, places: &[usize]) {
        Self::start_all(self, places);
        for place in places {
            let started = self.started(*place);
            assert!(started.is_ok(), "the node ended: {started:?}\n{}", self.logs(*place));
        }
    }

    fn kill(&mut self, places: &[usize]) {
        let running: Vec<usize> = places.iter().copied().filter(|place| self.pid(*place).is_some()).collect();
        if !running.is_empty() {
            self.kill_all(&running);
        }
    }

    fn stop(&mut self, place: usize) -> i32 {
        Self::stop(self, place)
    }

    fn ended(&mut self, place: usize) -> i32 {
        Self::ended(self, place)
    }

    fn pause(&self, place: usize) {
        self.freeze(place);
    }

    fn resume(&self, place: usize) {
        self.thaw(place);
    }

    fn wipe(&mut self, place: usize) {
        self.empty(place);
        self.change(place, |options| options.is_alone = true);
    }

    fn build(&self, place: usize) -> String {
        self.image(place).to_owned()
    }

    fn set_build(&mut self, place: usize, build: &str) {
        self.change(place, |options| options.image = Some(build.to_owned()));
    }

    fn set_variable(&mut self, place: usize, name: &str, value: &str) {
        self.change(place, |options| {
            options.environment.insert(name.to_owned(), value.to_owned());
        });
    }

    fn cut_carrier(&self, carrier: Carrier, from: usize, to: usize) {
        self.cut_carrier(carrier, from, to);
    }

    fn heal(&self) {
        self.heal();
    }
}

impl Compose {
    /// Waits until a node answers on its socket or has ended, and gives the code with which it did.
    fn started(&self, place: usize) -> Result<(), i32> {
        until("a node answers on its socket or ends", || match self.exit_code(place) {
            Some(code) => Some(Err(code)),
            None => self.answers(place).then_some(Ok(())),
        })
    }

    /// Whether the node at this place answers on its socket.
    fn answers(&self, place: usize) -> bool {
        self.member(place).admin.ask("GET", "/healthz", &Value::Null).is_ok()
    }
}
