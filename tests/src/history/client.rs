//! A client that asks one thing after the other, of whichever node, and writes down what it is told.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value as Json, json};

use super::{Asked, Condition, Operation, Plant, Told, Value, Values, facts};
use crate::{Member, dice::Dice};

/// Routes that are written and read. Few, so that what happens to them overlaps.
const ROUTES: u64 = 5;
/// How much longer than the node is told to try a client waits for its answer.
const GRACE: Duration = Duration::from_secs(2);
/// For a read.
const READ_TIMEOUT: Duration = Duration::from_secs(4);
/// For how long a client asks others, if there are any, than a node that gave it no answer.
const AVOIDED: Duration = Duration::from_secs(10);

pub(super) struct Client {
    pub(super) number: u32,
    pub(super) members: Vec<Member>,
    pub(super) prefix: String,
    pub(super) dice: Dice,
    pub(super) began: Instant,
    /// The last number that was given to a write of any client.
    pub(super) numbers: Arc<AtomicU64>,
    /// What this client knows of each route, and in which revision that came to be.
    pub(super) known: BTreeMap<String, (Value, Option<u64>)>,
    /// The newest revision that it was told of.
    pub(super) newest: u64,
    pub(super) plant: Plant,
    /// Until when it asks others than these, by their place.
    pub(super) avoided: BTreeMap<usize, Instant>,
}

/// A request of the admin API that stands for what is asked.
struct Request {
    method: &'static str,
    target: String,
    headers: Vec<(&'static str, String)>,
    body: Json,
    timeout: Duration,
}

/// A route that answers with this number.
fn spec(name: &str, number: u64) -> Json {
    json!({
        "match": [{"path": {"exact": format!("/{name}")}}],
        "respond": {"status": 200, "body": number.to_string()},
    })
}

impl Client {
    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn route(&mut self) -> String {
        format!("{}{}", self.prefix, self.dice.below(ROUTES))
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn choose(&mut self) -> Asked {
        let route = self.route();
        match self.dice.below(100) {
            0..40 => Asked::Read(route),
            40..45 => Asked::ReadAll,
            45..85 => {
                let value = if self.dice.percent(25) { None } else { Some(self.number()) };
                let known = self.known.get(&route).map(|(value, _)| *value);
                // To delete what is not there presumes nothing that could be told apart.
                let known = known.filter(|known| self.dice.percent(40) && (*known, value) != (None, None));
                let only_if = known.map_or(Condition::Always, Condition::Is);
                Asked::Write { values: Values::from([(route, value)]), only_if }
            }
            _ => {
                let values = [(route, Some(self.number())), (self.route(), Some(self.number()))].into();
                let based = self.newest > 0 && self.dice.percent(50);
                let only_if = if based { Condition::Base(self.newest) } else { Condition::Always };
                Asked::Write { values, only_if }
            }
        }
    }

    fn request(&mut self, asked: &Asked) -> Request {
        let get = |target: String| {
            let (headers, body) = (Vec::new(), Json::Null);
            Request { method: "GET", target, headers, body, timeout: READ_TIMEOUT }
        };
        let consistency = if self.plant == Plant::StaleRead { "local" } else { "linearizable" };
        let (values, only_if) = match asked {
            Asked::Read(route) => return get(format!("/v1/routes/{route}?consistency={consistency}")),
            Asked::ReadAll => return get(format!("/v1/routes?limit=10000&consistency={consistency}")),
            Asked::Write { values, only_if } => (values, *only_if),
        };
        let mut each = values.iter();
        let (method, path, body) = match (each.next(), each.next(), only_if) {
            (Some((route, None)), None, _) => ("DELETE", format!("/v1/routes/{route}"), Json::Null),
            (Some((route, Some(number))), None, Condition::Always | Condition::Is(_)) => {
                ("PUT", format!("/v1/routes/{route}"), spec(route, *number))
            }
            _ => {
                let routes = values.iter().filter_map(|(name, value)| Some((name, spec(name, (*value)?))));
                let routes: BTreeMap<_, _> = routes.collect();
                let document = json!({"version": 1, "routes": routes}).to_string();
                ("POST", "/v1/apply".into(), json!({"document": document}))
            }
        };
        let timeout = self.dice.ms(300..4_000);
        Request {
            method,
            target: format!("{path}?timeout={}ms", timeout.as_millis()),
            headers: self.headers(values, only_if),
            body,
            timeout: timeout + GRACE,
        }
    }

    fn headers(&self, values: &Values, only_if: Condition) -> Vec<(&'static str, String)> {
        let known = values.keys().next().and_then(|route| self.known.get(route));
        match (only_if, known) {
            (Condition::Always, _) => Vec::new(),
            (Condition::Base(revision), _) => vec![("if-match", format!("\"{revision}\""))],
            (Condition::Is(_), Some((_, Some(changed)))) => vec![("if-match", format!("\"{changed}\""))],
            (Condition::Is(_), _) => vec![("if-none-match", "*".into())],
        }
    }

    /// Asks one thing. None: the node that was to be asked is not there.
    pub(super) fn act(&mut self) -> Option<Operation> {
        let asked = self.choose();
        let mut request = self.request(&asked);
        let keyed = request.method != "GET" && self.dice.percent(50);
        if keyed {
            let key = format!("{}{}-{}", self.prefix, self.number, self.number());
            request.headers.push(("idempotency-key", key));
        }
        let mut member = self.member();
        let called_us = self.now_us();
        let mut told = self.ask(member, &asked, &request)?;
        // A client with a key may ask again, elsewhere, when it was not told.
        if keyed && matches!(told, Told::Unknown(_)) {
            member = self.member();
            told = match self.ask(member, &asked, &request) {
                // "Nothing was changed" and "it is not so" are about the second try alone.
                None | Some(Told::Refused(_) | Told::Unmet | Told::Absent) => told,
                Some(again) => again,
            };
        }
        if self.plant == Plant::LostAcknowledgement && matches!(told, Told::Unknown(_) | Told::Refused(_)) {
            told = Told::Made(self.newest + 1);
        }
        self.learn(&asked, &told);
        let (returned_us, node) = (self.now_us(), self.members[member].name.clone());
        Some(Operation { client: self.number, node, called_us, returned_us, asked, told })
    }

    /// The place of a node that may answer.
    fn member(&mut self) -> usize {
        let now = Instant::now();
        self.avoided.retain(|_, until| *until > now);
        let all = 0..self.members.len();
        let left: Vec<usize> = all.clone().filter(|place| !self.avoided.contains_key(place)).collect();
        *self.dice.one(&if left.is_empty() { all.collect() } else { left })
    }

    /// What the node at this place says. None: it is not there.
    fn ask(&mut self, place: usize, asked: &Asked, request: &Request) -> Option<Told> {
        let headers: Vec<(&str, &str)> =
            request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let admin = self.members[place].admin.within(request.timeout);
        let answer = admin.ask_with(request.method, &request.target, &headers, &request.body);
        if answer.is_err() {
            self.avoided.insert(place, Instant::now() + AVOIDED);
        }
        match answer {
            Ok(answer) => Some(facts::told(asked, &answer, &self.prefix)),
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => None,
                _ => Some(match asked {
                    Asked::Write { .. } => Told::Unknown(error.to_string()),
                    Asked::Read(_) | Asked::ReadAll => Told::Refused(error.to_string()),
                }),
            },
        }
    }

    /// Remembers what it can presume in later writes.
    fn learn(&mut self, asked: &Asked, told: &Told) {
        match (asked, told) {
            (Asked::Write { values, .. }, Told::Made(revision)) => {
                for (route, value) in values {
                    self.known.insert(route.clone(), (*value, value.map(|_| *revision)));
                }
                self.newest = self.newest.max(*revision);
            }
            (Asked::Write { values, .. }, Told::Absent) => {
                self.known.extend(values.keys().map(|route| (route.clone(), (None, None))));
            }
            // Of one route alone, the revision is the one that last changed it.
            (Asked::Read(route), Told::Saw(values, changed)) => {
                let value = values.get(route).copied().flatten();
                self.known.insert(route.clone(), (value, value.and(*changed)));
            }
            (Asked::ReadAll, Told::Saw(_, Some(revision))) => self.newest = self.newest.max(*revision),
            _ => {}
        }
    }
}
