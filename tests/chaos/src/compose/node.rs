//! What can be done to one node.

use std::{fs, path::Path, process::Command};

use phalanx_tests::{
    Member,
    docker::{self, Told, docker},
    until,
};

use super::{Compose, NodeOptions};

impl Compose {
    /// The node at this place as its clients see it.
    pub fn member(&self, place: usize) -> &Member {
        &self.nodes[place].member
    }

    /// Its data folder, as this machine sees it.
    pub fn data(&self, place: usize) -> &Path {
        &self.project.plans[place].data
    }

    /// Where other nodes reach it, as `HOST:PORT`.
    pub fn peer(&self, place: usize) -> &str {
        &self.project.plans[place].advertise
    }

    /// Its image.
    pub fn image(&self, place: usize) -> &str {
        self.project.image(place)
    }

    fn id(&self, place: usize) -> &str {
        &self.nodes[place].id
    }

    fn inspect(&self, place: usize, what: &str) -> String {
        docker(&["inspect", "-f", what, self.id(place)])
    }

    /// Ends a node with SIGKILL.
    pub fn kill(&self, place: usize) {
        self.kill_all(&[place]);
    }

    /// Ends nodes with SIGKILL, all at once.
    pub fn kill_all(&self, places: &[usize]) {
        let ids: Vec<&str> = places.iter().map(|place| self.id(*place)).collect();
        docker(&[&["kill", "-s", "KILL"], &ids[..]].concat());
        for place in places {
            self.ended(*place);
        }
    }

    /// Tells a node to stop with SIGTERM, and waits until it has; gives its exit code.
    pub fn stop(&self, place: usize) -> i32 {
        docker(&["stop", self.id(place)]);
        self.ended(place)
    }

    /// Waits until a node has ended; gives its exit code.
    pub fn ended(&self, place: usize) -> i32 {
        until("a node ends", || self.exit_code(place))
    }

    /// The exit code of a node that has ended; none if it runs.
    pub fn exit_code(&self, place: usize) -> Option<i32> {
        let state = self.inspect(place, "{{.State.Status}} {{.State.ExitCode}}");
        state.strip_prefix("exited ").and_then(|code| code.parse().ok())
    }

    /// Starts a node that has ended. What was cut stays cut.
    pub fn start(&self, place: usize) {
        self.start_all(&[place]);
    }

    /// Starts nodes that have ended.
    pub fn start_all(&self, places: &[usize]) {
        let ids: Vec<&str> = places.iter().map(|place| self.id(*place)).collect();
        docker(&[&["start"], &ids[..]].concat());
        for place in places {
            self.cut_again(*place);
        }
    }

    /// Freezes a node: it neither runs nor closes what it has open.
    pub fn freeze(&self, place: usize) {
        docker(&["pause", self.id(place)]);
    }

    /// Lets a frozen node go on.
    pub fn thaw(&self, place: usize) {
        docker(&["unpause", self.id(place)]);
    }

    /// Takes a node off the network of the nodes. Clients and origins still reach it.
    pub fn disconnect(&self, place: usize) {
        docker(&["network", "disconnect", &self.peers(), self.id(place)]);
    }

    /// Puts a node that was taken off the network back, at the same address.
    pub fn connect(&self, place: usize) {
        let alias = format!("{}.peers", self.project.plans[place].name);
        let address = self.project.address(place).ip().to_string();
        docker(&["network", "connect", "--alias", &alias, "--ip", &address, &self.peers(), self.id(place)]);
    }

    fn peers(&self) -> String {
        format!("{}_peers", self.project.name)
    }

    /// The id of a node's process on this machine, for `nsenter` and the like; none if it does not run.
    pub fn pid(&self, place: usize) -> Option<u32> {
        self.inspect(place, "{{.State.Pid}}").parse().ok().filter(|pid| *pid != 0)
    }

    /// Asks the node at this place by the `gwctl` in its container.
    pub fn gwctl(&self, place: usize, words: &[&str]) -> Told {
        docker::gwctl(self.id(place), words)
    }

    /// What a node has written to its log, in its former containers too.
    pub fn logs(&self, place: usize) -> String {
        let before = fs::read_to_string(self.kept_log(place)).unwrap_or_default();
        let logged = Command::new("docker").args(["logs", self.id(place)]).output();
        let logged = logged.unwrap_or_else(|error| panic!("run docker logs: {error}"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        before + &text(&logged.stdout) + &text(&logged.stderr)
    }

    /// Writes the log of each node into a file of this folder, which is made if need be.
    pub fn keep_logs(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        for (place, plan) in self.project.plans.iter().enumerate() {
            fs::write(folder.join(format!("{}.log", plan.name)), self.logs(place))?;
        }
        Ok(())
    }

    fn kept_log(&self, place: usize) -> std::path::PathBuf {
        self.project.dir.join(format!("{}.log", self.project.plans[place].name))
    }

    /// Gives a node that has ended other options, but for its data folder; they hold when it is started.
    pub fn change(&mut self, place: usize, change: impl FnOnce(&mut NodeOptions)) {
        self.ended(place);
        change(&mut self.project.plans[place].options);
        let log = self.kept_log(place);
        fs::write(&log, self.logs(place)).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        docker(&["rm", self.id(place)]);
        self.nodes[place].id = self.project.create_node(place);
        self.connect_new(place);
    }

    /// Puts a new container on the network of the nodes: docker-compose 1 does so only as it starts one.
    pub(super) fn connect_new(&self, place: usize) {
        if !self.inspect(place, "{{json .NetworkSettings.Networks}}").contains(&self.peers()) {
            self.connect(place);
        }
    }

    /// Stops a node, and starts it as one of this image.
    pub fn upgrade(&mut self, place: usize, image: &str) {
        self.stop(place);
        self.change(place, |options| options.image = Some(image.to_owned()));
        self.start(place);
    }
}
