//! Keys that are issued, shown to every node, and revoked, again and again.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    Admin, Member,
    dice::Dice,
    history::{Asked, Condition, Operation, Told, Values},
    http::{self, Answer},
    invariant::{Revoked, Shown},
    member::installed,
    until,
};

/// Below which a key is asked for.
const PATH: &str = "/keyed";
/// Who does it, among the clients of a recording.
const CLIENT: u32 = 1_000;
/// For the node to make a change, and for its answer.
const TIMEOUT: (&str, Duration) = ("2s", Duration::from_secs(4));
/// For a node to answer a request; one that is held answers none.
const PATIENCE: Duration = Duration::from_millis(500);
/// For how long a revoked key is shown to a node that goes on to serve it.
const SHOWN: Duration = Duration::from_secs(5);
/// Tries to revoke a key of which nobody says that it is.
const TRIES: usize = 10;
/// Between one key and the next.
const REST: Duration = Duration::from_millis(200);

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// The changes, as writes of no route: each makes a revision.
    pub operations: Vec<Operation>,
    /// The keys that are revoked.
    pub revoked: Vec<Revoked>,
}

/// A change that was made.
struct Done {
    /// The revision with it, where that is known.
    revision: Option<u64>,
    answer: Answer,
}

struct Shared {
    began: Instant,
    members: Mutex<Vec<Member>>,
    stop: AtomicBool,
}

/// One who issues and revokes.
pub struct Keys {
    shared: Arc<Shared>,
    thread: JoinHandle<(Kept, Vec<String>)>,
}

impl Keys {
    /// Makes a route that asks for keys, and somebody to give them to.
    pub fn furnish(admin: &Admin) {
        let document = json!({
            "version": 1,
            "policies": {"keys": {"type": "api-key"}},
            "consumers": {"ann": {}},
            "routes": {"keyed": {
                "match": [{"path": {"prefix": PATH}}], "policies": ["keys"], "respond": {"status": 200},
            }},
        });
        admin.must("POST", "/v1/apply?wait=all", &json!({"document": document.to_string()}));
    }

    /// Begins at these nodes, one of which was furnished. Times are since `began`.
    pub fn start(members: &[Member], began: Instant, seed: u64) -> Self {
        let (members, stop) = (Mutex::new(members.to_vec()), AtomicBool::new(false));
        let shared = Arc::new(Shared { began, members, stop });
        let (turning, mut dice) = (shared.clone(), Dice::new(seed, CLIENT.into()));
        let thread = thread::spawn(move || {
            let (mut kept, mut keys) = (Kept::default(), Vec::new());
            while !turning.stop.load(Ordering::Relaxed) {
                if let Some((revoked, key)) = turning.turn(&mut dice, &mut kept.operations) {
                    kept.revoked.push(revoked);
                    keys.push(key);
                }
                thread::park_timeout(REST);
            }
            (kept, keys)
        });
        Self { shared, thread }
    }

    /// Asks this node, too.
    pub fn add(&self, member: Member) {
        self.shared.members().push(member);
    }

    /// Ends it, and shows each of these, which are in peace, every key that was revoked, once they have heard of all that; gives what
    /// came of it.
    pub fn stop(self, last: &[Member]) -> Kept {
        self.shared.stop.store(true, Ordering::Relaxed);
        let (mut kept, keys) = self.thread.join().expect("who issues does not panic");
        let newest = kept.revoked.iter().filter_map(|revoked| revoked.revision).max();
        for member in last {
            until("a node in peace has the newest revocation", || {
                (installed(&member.admin.status()) >= newest).then_some(())
            });
        }
        for (revoked, key) in kept.revoked.iter_mut().zip(&keys) {
            let show = |member| until("a node answers at the end", || self.shared.show(member, key));
            revoked.last = last.iter().map(show).collect();
        }
        kept
    }
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Issues a key, shows it, revokes it, and shows it again; gives what came of it, and the key. None where it was not issued, or
    /// nobody says that it is revoked.
    fn turn(&self, dice: &mut Dice, operations: &mut Vec<Operation>) -> Option<(Revoked, String)> {
        let members = self.members().clone();
        let issued = self.change(dice, "POST", "/v1/keys", &json!({"consumer": "ann"}), 1, operations)?;
        let said = issued.answer.json();
        let (id, key) = (said["id"].as_str()?, said["key"].as_str()?.to_owned());
        let mut shown: Vec<Shown> = members.iter().filter_map(|member| self.show(member, &key)).collect();
        let target = format!("/v1/keys/{id}");
        let Done { revision, .. } = self.change(dice, "DELETE", &target, &Value::Null, TRIES, operations)?;
        let (told, told_us) = (Instant::now(), self.now_us());
        // All at once: one that is held must not keep the others from being asked.
        let after: Vec<Vec<Shown>> = thread::scope(|scope| {
            let key = &key;
            let ask = |member| scope.spawn(move || self.show_until_refused(member, key, told));
            let asking: Vec<_> = members.iter().map(ask).collect();
            asking.into_iter().map(|one| one.join().expect("who shows does not panic")).collect()
        });
        shown.extend(after.into_iter().flatten());
        Some((Revoked { id: id.to_owned(), revision, told_us, shown, last: Vec::new() }, key))
    }

    /// Has something changed by any node, which is tried so often, and writes it down. None where nobody says that it was done.
    fn change(
        &self,
        dice: &mut Dice,
        method: &str,
        target: &str,
        body: &Value,
        tries: usize,
        operations: &mut Vec<Operation>,
    ) -> Option<Done> {
        let called_us = self.now_us();
        let key = format!("{method} {target} {called_us}");
        let target = format!("{target}?timeout={}", TIMEOUT.0);
        let (mut node, mut first, mut done) = (String::new(), None, None);
        for _ in 0..tries {
            let member = dice.one(&self.members()).clone();
            let admin = member.admin.within(TIMEOUT.1);
            let answer = admin.ask_with(method, &target, &[("idempotency-key", &key)], body);
            node = member.name;
            match answer.map(|answer| (told(&answer), answer)) {
                Ok((Told::Made(revision), answer)) => done = Some(Done { revision: Some(revision), answer }),
                // It was there: an earlier try has taken it away.
                Ok((Told::Absent, answer)) => done = Some(Done { revision: None, answer }),
                Ok((other, _)) => first = first.or(Some(other)),
                Err(error) => first = first.or(Some(Told::Unknown(error.to_string()))),
            }
            if done.is_some() {
                break;
            }
        }
        let told = match (&done, first) {
            (Some(Done { revision: Some(revision), .. }), _) => Told::Made(*revision),
            // A refusal is about one try alone.
            (None, Some(Told::Refused(why))) if tries == 1 => Told::Refused(why),
            _ => Told::Unknown("in which revision it was done, if it was".to_owned()),
        };
        let asked = Asked::Write { values: Values::new(), only_if: Condition::Always };
        operations.push(Operation {
            client: CLIENT,
            node,
            called_us,
            returned_us: self.now_us(),
            asked,
            told,
        });
        done
    }

    /// Shows a node a key that was revoked then, until it refuses it, or gives no answer.
    fn show_until_refused(&self, member: &Member, key: &str, told: Instant) -> Vec<Shown> {
        let mut shown = Vec::new();
        while told.elapsed() < SHOWN {
            let Some(now) = self.show(member, key) else { break };
            let is_refused = now.is_refused();
            shown.push(now);
            if is_refused {
                break;
            }
        }
        shown
    }

    /// Shows a node a key; none if it gives no answer.
    fn show(&self, member: &Member, key: &str) -> Option<Shown> {
        let began_us = self.now_us();
        let answer = http::get_within(PATIENCE, member.proxy, PATH, &[("x-api-key", key)]).ok()?;
        let (node, ended_us) = (member.name.clone(), self.now_us());
        Some(Shown { node, began_us, ended_us, status: answer.status })
    }
}

/// What this answer says of a change.
fn told(answer: &Answer) -> Told {
    let said = answer.json();
    let text = || format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body));
    match (answer.status, said["revision"].as_u64(), said["code"].as_str()) {
        (200..300, Some(revision), _) => Told::Made(revision),
        (404, _, Some("not_found")) => Told::Absent,
        (503, _, Some("no_quorum" | "draining" | "not_formed" | "removed")) => Told::Refused(text()),
        _ => Told::Unknown(text()),
    }
}
