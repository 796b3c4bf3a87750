//! What users are promised of a cluster, shown on containers: `docker/test` builds their image and runs these.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use phalanx_tests::{Containers, Load, alone, docker::Told, http, until};

/// Routes everything to both origins with one command, and waits until all nodes do.
fn route(containers: &Containers) {
    let targets = ["--to", "http://origin1:8080", "--to", "http://origin2:8080"];
    let told = containers.gwctl(0, &[&["route", "add", "all", "--path", "/"][..], &targets].concat());
    assert_eq!(told.code, 0, "{told:?}");
    for place in 0..3 {
        let proxy = containers.proxy(place);
        until("the node has the route", || {
            http::get(proxy, "/", &[]).ok().filter(|answer| answer.status == 200)
        });
    }
}

/// Adds a route that answers with its own name.
fn add(containers: &Containers, place: usize, name: &str) -> Told {
    let (path, answer) = (format!("/{name}"), format!("200:{name}"));
    containers.gwctl(place, &["route", "add", name, "--exact", &path, "--respond", &answer])
}

fn serves(proxy: SocketAddr, name: &str) -> bool {
    http::get(proxy, &format!("/{name}"), &[]).is_ok_and(|answer| answer.body == name.as_bytes())
}

/// Every node comes to serve every one of these.
fn all_serve(containers: &Containers, names: &[String]) {
    for place in 0..3 {
        let proxy = containers.proxy(place);
        let mut left = names.iter().peekable();
        until("a node serves all that was acknowledged", || {
            while left.next_if(|name| serves(proxy, name)).is_some() {}
            left.peek().is_none().then_some(())
        });
    }
}

fn none_failed(load: Load) {
    let (done, failures) = load.stop();
    let first = failures.first();
    assert!(failures.is_empty(), "{} of {done} failed, the first: {first:?}", failures.len());
}

/// A writer that goes on through whatever happens: what it has been promised is to be served by all in the end.
struct Writer<'a> {
    stop: &'a AtomicBool,
    done: &'a AtomicUsize,
}

impl Writer<'_> {
    /// Waits until so many more writes are acknowledged.
    fn goes_on(&self, more: usize) {
        let so_far = self.done.load(Ordering::Relaxed);
        until("writes are acknowledged", || {
            (self.done.load(Ordering::Relaxed) >= so_far + more).then_some(())
        });
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Keeps adding routes at this node while something happens; gives the names of those that were acknowledged.
fn while_writing(
    containers: &Containers,
    place: usize,
    prefix: &str,
    during: impl FnOnce(&Writer<'_>),
) -> Vec<String> {
    let (stop, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut acknowledged = Vec::new();
            for name in (0..).map(|n| format!("{prefix}-{n}")) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                if add(containers, place, &name).code == 0 {
                    acknowledged.push(name);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
            acknowledged
        });
        let writer = Writer { stop: &stop, done: &done };
        writer.goes_on(3);
        during(&writer);
        drop(writer);
        writing.join().expect("the writer does not panic")
    })
}

#[test]
#[ignore = "needs docker and an image: run docker/test"]
fn a_cluster_forms_by_itself_and_one_command_routes_to_both_origins() {
    let _alone = alone();
    let containers = Containers::up();
    route(&containers);
    for place in 0..3 {
        let proxy = containers.proxy(place);
        let mut seen = BTreeSet::new();
        until("both origins answer", || {
            let answer = http::get(proxy, "/x", &[]).expect("the node answers");
            assert_eq!(answer.status, 200);
            seen.insert(answer.json()["origin"].as_str().expect("an origin's name").to_owned());
            (seen.len() == 2).then_some(())
        });
        assert_eq!(seen, BTreeSet::from(["origin1".to_owned(), "origin2".to_owned()]));
    }
}

#[test]
#[ignore = "needs docker and an image: run docker/test"]
fn a_killed_leader_fails_no_request_of_the_others_and_comes_back_as_the_same_member() {
    let _alone = alone();
    let containers = Containers::up();
    route(&containers);
    let leader = containers.leader_among(&[0, 1, 2]);
    let id = containers.status(leader)["node_id"].clone();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let load = Load::start(&others.map(|place| containers.proxy(place)), 4, 300, "/load");
    let acknowledged = while_writing(&containers, others[0], "killed", |writer| {
        containers.kill(leader);
        writer.goes_on(3);
        containers.leader_among(&others);
        containers.start(leader);
        containers.wait_until_whole();
        writer.goes_on(1);
    });
    none_failed(load);
    assert_eq!(containers.status(leader)["node_id"], id);
    all_serve(&containers, &acknowledged);
}

#[test]
#[ignore = "needs docker and an image: run docker/test"]
fn a_node_cut_off_from_the_others_proxies_on_refuses_writes_and_catches_up() {
    let _alone = alone();
    let containers = Containers::up();
    route(&containers);
    let load = Load::start(&[0, 1, 2].map(|place| containers.proxy(place)), 4, 300, "/load");
    let mut acknowledged = Vec::new();
    for role in ["follower", "leader"] {
        let leader = containers.leader_among(&[0, 1, 2]);
        let cut = if role == "leader" { leader } else { (leader + 1) % 3 };
        let others = [(cut + 1) % 3, (cut + 2) % 3];
        acknowledged.extend(while_writing(&containers, others[0], role, |writer| {
            let (proxy, first) = (containers.proxy(cut), format!("{role}-0"));
            until("it has the first of the writes", || serves(proxy, &first).then_some(()));
            containers.cut_off(cut);
            writer.goes_on(3);
            containers.leader_among(&others);
            // The first may have been sent on a connection that was alive: what became of it is not known.
            until("the one that is cut off says so", || {
                let told = add(&containers, cut, &format!("refused-{role}"));
                assert_ne!(told.code, 0, "{told:?}");
                (told.code == 5 && told.err.contains("no quorum")).then_some(())
            });
            assert!(serves(proxy, &first));
            containers.heal(cut);
            containers.wait_until_whole();
            writer.goes_on(1);
        }));
        all_serve(&containers, &acknowledged);
    }
    none_failed(load);
}

#[test]
#[ignore = "needs docker and an image: run docker/test"]
fn a_frozen_leader_is_replaced_and_catches_up_when_it_goes_on() {
    let _alone = alone();
    let containers = Containers::up();
    route(&containers);
    let leader = containers.leader_among(&[0, 1, 2]);
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let load = Load::start(&others.map(|place| containers.proxy(place)), 4, 300, "/load");
    let acknowledged = while_writing(&containers, others[0], "frozen", |writer| {
        containers.freeze(leader);
        writer.goes_on(3);
        containers.leader_among(&others);
        containers.thaw(leader);
        containers.wait_until_whole();
        writer.goes_on(1);
    });
    none_failed(load);
    all_serve(&containers, &acknowledged);
}
