//! What becomes of requests when targets end and come back: gwnode, gwctl and targets as processes.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use phalanx_tests::{Cluster, Load, Origin, alone, http, node::free_port, origin::HELD, until};
use serde_json::Value;

/// A target that is a process: `gwnode origin`. Killed when dropped.
struct Target {
    name: String,
    address: SocketAddr,
    child: Option<Child>,
}

impl Target {
    fn start(program: &Path, name: &str) -> Self {
        let mut target = Self { name: name.to_owned(), address: free_port(), child: None };
        target.start_again(program);
        target
    }

    fn start_again(&mut self, program: &Path) {
        let child = Command::new(program)
            .args(["origin", "--name", &self.name, "--listen", &self.address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.expect("gwnode starts"));
        until("the target answers", || http::get(self.address, "/", &[]).ok());
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs gwctl on the node at this place.
fn gwctl(cluster: &Cluster, words: &str) -> String {
    let socket = cluster.admin(0).socket().display().to_string();
    let words: Vec<&str> = ["--socket", &socket].into_iter().chain(words.split(' ')).collect();
    cluster.gwctl(&words)
}

fn apply(cluster: &Cluster, document: &Value) {
    let applied = cluster.admin(0).must(
        "POST",
        "/v1/apply?wait=all",
        &serde_json::json!({"document": document.to_string()}),
    );
    assert_eq!(applied["lagging"], Value::Null, "{applied}");
}

/// Which target answers.
fn answering(proxy: SocketAddr) -> String {
    let answer = http::get(proxy, "/", &[]).expect("the node answers");
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    answer.json()["origin"].as_str().expect("a name").to_owned()
}

fn metric(cluster: &Cluster, name: &str) -> f64 {
    let answer = cluster.admin(0).ask("GET", "/metrics", &Value::Null).expect("the node answers");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or_default()
}

#[test]
fn a_target_that_dies_costs_no_request_is_ejected_and_comes_back() {
    let _alone = alone();
    let cluster = Cluster::form(1);
    let program = cluster.nodes[0].program.clone();
    let (mut dying, staying) = (Target::start(&program, "dying"), Target::start(&program, "staying"));
    let to = format!("--to {} --to {}", dying.address, staying.address);
    gwctl(&cluster, &format!("upstream add u {to} --retries 2 --eject-after 3 --eject-for 1s"));
    gwctl(&cluster, "route add all --upstream u --wait all");
    let proxy = cluster.nodes[0].proxy;
    until("both answer", || (answering(proxy) != answering(proxy)).then_some(()));

    let load = Load::start(&[proxy], 2, 100, "/");
    dying.kill();
    until("it is ejected, and gwctl says why", || {
        let told = gwctl(&cluster, "targets");
        (told.contains("ejected for") && told.contains("no connection could be had")).then_some(())
    });
    for _ in 0..10 {
        assert_eq!(answering(proxy), "staying");
    }
    // One that was with it when it was killed was reset; the others found nobody.
    let retried = ["connect", "reset"].map(|reason| {
        metric(&cluster, &format!("phalanx_upstream_retries_total{{upstream=\"u\",reason=\"{reason}\"}}"))
    });
    assert!(retried[0] >= 1.0 && retried[0] + retried[1] >= 3.0, "{retried:?}");
    assert!(metric(&cluster, "phalanx_upstream_ejections_total{upstream=\"u\"}") >= 1.0);

    dying.start_again(&program);
    until("it is back", || (answering(proxy) == "dying").then_some(()));
    until("it is in use", || {
        gwctl(&cluster, "targets").contains("0 of 2 targets are out of use").then_some(())
    });
    // A request that was with it when it was killed is sent again, as all others are.
    load.stop_without_failure();
}

#[test]
fn checks_take_a_target_out_before_requests_find_it() {
    let _alone = alone();
    let cluster = Cluster::form(1);
    let program = cluster.nodes[0].program.clone();
    let (mut dying, staying) = (Target::start(&program, "dying"), Target::start(&program, "staying"));
    let to = format!("--to {} --to {}", dying.address, staying.address);
    gwctl(
        &cluster,
        &format!("upstream add u {to} --retries 0 --eject-after 0 --health-path / --health-interval 1s"),
    );
    gwctl(&cluster, "route add all --upstream u --wait all");
    dying.kill();
    until("its checks fail", || gwctl(&cluster, "targets").contains("unhealthy").then_some(()));
    for _ in 0..10 {
        assert_eq!(answering(cluster.nodes[0].proxy), "staying");
    }
    dying.start_again(&program);
    until("its checks are good", || (answering(cluster.nodes[0].proxy) == "dying").then_some(()));
}

#[test]
fn above_its_limits_an_upstream_refuses_at_once_and_serves_again_below() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form(1), Origin::start());
    apply(
        &cluster,
        &serde_json::json!({
            "version": 1,
            "upstreams": {"u": {
                "targets": [{"address": origin.address.to_string()}],
                "limits": {"requests": 2},
            }},
            "routes": {"all": {"upstream": "u"}},
        }),
    );
    let proxy = cluster.nodes[0].proxy;
    let held: Vec<_> = (0..2).map(|_| thread::spawn(move || http::get(proxy, HELD, &[]))).collect();
    until("two are in flight", || (origin.held() == 2).then_some(()));
    let refused = http::get(proxy, "/", &[]).expect("the node answers");
    assert_eq!((refused.status, &refused.json()["code"]), (503, &"overflow".into()));
    assert_eq!(metric(&cluster, "phalanx_upstream_overflows_total{upstream=\"u\"}"), 1.0);
    origin.release();
    for held in held {
        assert_eq!(held.join().expect("it ends").expect("the node answers").status, 200);
    }
    until("it takes requests again", || {
        (http::get(proxy, "/", &[]).expect("the node answers").status == 200).then_some(())
    });
}

#[test]
fn a_mirror_that_is_gone_is_no_harm_and_gets_copies_when_it_is_there() {
    let _alone = alone();
    let (cluster, origin) = (Cluster::form(1), Origin::start());
    let shadow = free_port();
    apply(
        &cluster,
        &serde_json::json!({
            "version": 1,
            "upstreams": {
                "u": {"targets": [{"address": origin.address.to_string()}]},
                "shadow": {"targets": [{"address": shadow.to_string()}], "health": {"passive": {"failures": 0}}},
            },
            "routes": {"all": {"upstream": "u", "mirror": [{"upstream": "shadow"}]}},
        }),
    );
    let proxy = cluster.nodes[0].proxy;
    for _ in 0..10 {
        assert_eq!(http::get(proxy, "/", &[]).expect("the node answers").status, 200);
    }
    until("copies were sent in vain", || {
        (metric(&cluster, "phalanx_upstream_attempt_failures_total{upstream=\"shadow\"}") >= 10.0)
            .then_some(())
    });
    let mirror = Origin::start_on(shadow);
    until("it gets copies", || {
        assert_eq!(http::get(proxy, "/", &[]).expect("the node answers").status, 200);
        (mirror.served() > 0).then_some(())
    });
}

/// A request of this method for what the slow target holds back.
fn held(proxy: SocketAddr, method: &'static str) -> thread::JoinHandle<u16> {
    thread::spawn(move || {
        let mut stream = http::connect(proxy).expect("the node listens");
        http::exchange(&mut stream, method, HELD, &[], b"").expect("the node answers").status
    })
}

#[test]
fn a_request_that_takes_long_is_answered_by_another_target_if_it_may_be_sent_twice() {
    let _alone = alone();
    let (cluster, slow, fast) = (Cluster::form(1), Origin::start(), Origin::start());
    fast.hold_none();
    let to = format!("--to http://{} --to http://{}", slow.address, fast.address);
    gwctl(&cluster, &format!("upstream add u {to} --hedge-after 20ms --eject-after 1"));
    gwctl(&cluster, "route add all --upstream u --wait all");
    let proxy = cluster.nodes[0].proxy;
    let of_upstream = |what: &str| metric(&cluster, &format!("phalanx_upstream_{what}{{upstream=\"u\"}}"));

    let mut posts = Vec::new();
    until("a POST waits at the slow target", || {
        posts.push(held(proxy, "POST"));
        (slow.held() > 0).then_some(())
    });
    until("the slow target has lost a GET that came later, and sees that nobody waits for it", || {
        assert_eq!(held(proxy, "GET").join().expect("it ends"), 200);
        (slow.left() > 0).then_some(())
    });
    assert_eq!(slow.served(), 0);
    assert!(of_upstream("hedges_won_total") >= 1.0);
    assert_eq!(of_upstream("attempt_failures_total"), 0.0, "who lost is not to blame");
    let waiting = |all: &[thread::JoinHandle<u16>]| all.iter().filter(|one| !one.is_finished()).count();
    until("those that were posted to it wait on, and none besides", || {
        (slow.held() > 0 && slow.held() == waiting(&posts)).then_some(())
    });
    let ends = |all: Vec<thread::JoinHandle<u16>>| {
        until("they are answered", || {
            slow.release();
            (waiting(&all) == 0).then_some(())
        });
        assert!(all.into_iter().all(|one| one.join().expect("it ends") == 200));
    };
    ends(posts);

    apply(
        &cluster,
        &serde_json::json!({
            "version": 1,
            "upstreams": {"u": {
                "targets": [{"address": slow.address.to_string()}, {"address": fast.address.to_string()}],
                "hedge": {"after": "20ms"},
                "retry": {"budget": {"percent": 0, "min_per_s": 0}},
            }},
            "routes": {"all": {"upstream": "u"}},
        }),
    );
    let mut gets = Vec::new();
    until("there is no budget for a hedge", || {
        gets.push(held(proxy, "GET"));
        (slow.held() > 0 && of_upstream("hedges_refused_total") > 0.0).then_some(())
    });
    assert!(slow.held() > 0, "it waits for who it was sent to");
    ends(gets);
}
