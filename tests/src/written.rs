//! What became of writes, and whether the cluster keeps to it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use serde_json::json;

use crate::{Admin, until};

/// Routes that were to be made, by what was said of each.
#[derive(Default)]
pub struct Written {
    /// Acknowledged, with the revision that was said.
    pub acknowledged: BTreeMap<String, u64>,
    /// Said to have changed nothing.
    pub unchanged: Vec<String>,
    /// Of an outcome that nobody knew: it may be there or not.
    pub unknown: Vec<String>,
}

impl Written {
    /// Makes a route of this name through this node, trying for as long as this; gives whether it was
    /// acknowledged.
    pub fn write(&mut self, admin: &Admin, name: String, timeout: &str) -> bool {
        let answer = admin.put_route(&name, timeout);
        let said = answer.json();
        match (answer.status, said["code"].as_str()) {
            (200, _) => {
                self.acknowledged.insert(name, said["revision"].as_u64().expect("a revision"));
            }
            (503, Some("no_quorum")) => self.unchanged.push(name),
            (504, Some("unknown_outcome")) => self.unknown.push(name),
            (status, _) => panic!("{status} {said}"),
        }
        answer.status == 200
    }

    /// Asserts that the cluster, asked through this node, has what was acknowledged and not what was refused.
    /// Gives how many of the routes are there.
    pub fn check(&self, admin: &Admin) -> usize {
        let (_, routes) = admin.routes();
        let lost: Vec<_> = self.acknowledged.keys().filter(|name| !routes.contains_key(*name)).collect();
        assert!(lost.is_empty(), "acknowledged, and not there: {lost:?}");
        let there: Vec<_> = self.unchanged.iter().filter(|name| routes.contains_key(*name)).collect();
        assert!(there.is_empty(), "said to have changed nothing, and there: {there:?}");
        self.acknowledged.len() + self.unknown.iter().filter(|name| routes.contains_key(*name)).count()
    }
}

/// One route that is changed again and again.
struct Changed {
    name: String,
    /// The revision that was said of each change.
    revisions: Vec<u64>,
}

impl Changed {
    /// Makes one more change, which is asked for under one idempotency key until it is acknowledged.
    fn change(&mut self, admin: &Admin) {
        let number = self.revisions.len() + 1;
        let spec = json!({
            "match": [{"path": {"exact": format!("/{}", self.name)}}],
            "respond": {"status": 200, "body": number.to_string()},
        });
        let (target, key) =
            (format!("/v1/routes/{}?timeout=1s", self.name), format!("{}-{number}", self.name));
        let answer = until("a change is acknowledged", || {
            let answer = admin.ask_with("PUT", &target, &[("idempotency-key", &key)], &spec);
            answer.ok().filter(|answer| answer.status == 200)
        });
        self.revisions.push(answer.json()["revision"].as_u64().expect("a revision"));
    }
}

/// Clients that write all the time, two at each of some nodes: one makes a route after another and takes
/// every answer as it is; the other changes one route again and again, and repeats what was not acknowledged.
pub struct Writers {
    before: u64,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    making: Vec<JoinHandle<Written>>,
    changing: Vec<JoinHandle<Changed>>,
}

impl Writers {
    /// Starts them. Nobody else may write meanwhile.
    pub fn start(nodes: &[Admin]) -> Self {
        let (before, _) = nodes[0].routes();
        let mut writers = Self {
            before,
            stop: Arc::default(),
            acknowledged: Arc::default(),
            making: Vec::new(),
            changing: Vec::new(),
        };
        for (at, admin) in nodes.iter().enumerate() {
            writers.making.push(writers.keep_on(admin, Written::default(), move |written, admin| {
                let made = written.acknowledged.len() + written.unchanged.len() + written.unknown.len();
                written.write(admin, format!("made-{at}-{made}"), "10s")
            }));
            let changed = Changed { name: format!("changed-{at}"), revisions: Vec::new() };
            writers.changing.push(writers.keep_on(admin, changed, |changed, admin| {
                changed.change(admin);
                true
            }));
        }
        writers
    }

    /// A thread that writes on until the end, and counts what is acknowledged.
    fn keep_on<T: Send + 'static>(
        &self,
        admin: &Admin,
        mut kept: T,
        write: impl Fn(&mut T, &Admin) -> bool + Send + 'static,
    ) -> JoinHandle<T> {
        let (admin, stop, acknowledged) = (admin.clone(), self.stop.clone(), self.acknowledged.clone());
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let counts = write(&mut kept, &admin);
                acknowledged.fetch_add(usize::from(counts), Ordering::Relaxed);
            }
            kept
        })
    }

    /// Waits until so many more writes were acknowledged.
    pub fn go_on(&self, more: usize) {
        let enough = self.acknowledged.load(Ordering::Relaxed) + more;
        until("writes are acknowledged", || {
            (self.acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    /// Ends them, and asserts, asking this node, that what was acknowledged is there, that what was refused
    /// is not, and that each change was made once: revisions are dense, so that they tell how many were.
    pub fn stop_and_check(self, admin: &Admin) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = "a writer does not panic";
        let making: Vec<Written> = self.making.into_iter().map(|it| it.join().expect(ended)).collect();
        let changing: Vec<Changed> = self.changing.into_iter().map(|it| it.join().expect(ended)).collect();
        let made: usize = making.iter().map(|written| written.check(admin)).sum();
        let (revision, routes) = admin.routes();
        let mut revisions: Vec<u64> =
            making.iter().flat_map(|it| it.acknowledged.values().copied()).collect();
        for Changed { name, revisions: said } in &changing {
            let last = &routes[name]["respond"]["body"];
            assert_eq!(*last, json!(said.len().to_string()), "an older change of {name} came after the last");
            revisions.extend(said);
        }
        let said = revisions.len();
        revisions.sort_unstable();
        revisions.dedup();
        assert_eq!(revisions.len(), said, "two writes were said to have made one revision");
        let changes: usize = changing.iter().map(|it| it.revisions.len()).sum();
        assert_eq!(revision - self.before, (made + changes) as u64, "{made} made, {changes} changed");
    }
}
