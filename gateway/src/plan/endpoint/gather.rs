//! What an upstream's targets come to: an endpoint for each address, and for each place that a name stands for.

use std::{collections::HashMap, sync::Arc};

use model::{
    Name, Upstream, Violation,
    upstream::{Balance, Target},
};

use super::{Endpoint, Endpoints, Rank};
use crate::{
    names::{Answer, Followed, Place, Question},
    plan::{Surroundings, upstream::TargetHost},
    state::TargetState,
};

/// The most endpoints of an upstream; of names that stand for more places, these many are used.
const ENDPOINTS_MAX: usize = 10_000;

/// What an upstream's targets come to.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) endpoints: Endpoints,
    /// The names among the targets, each with the edition of its answer.
    pub(crate) followed: Box<[(Arc<Followed>, u64)]>,
    /// Whether there is no endpoint yet, since nobody has answered.
    pub(crate) is_awaited: bool,
}

/// Gathers the endpoints of an upstream's targets, as seen from around here, with the states of `old` for those that are in both.
pub(crate) fn gather(
    upstream: &Name,
    spec: &Upstream,
    old: Option<&Endpoints>,
    around: &Surroundings,
) -> Result<Gathered, Vec<Violation>> {
    let known = old.into_iter().flat_map(|old| old.all().iter());
    let known = known.map(|endpoint| (&*endpoint.label, &endpoint.state)).collect();
    let mut gathering = Gathering { known, all: Vec::with_capacity(spec.targets.len()) };
    let (mut followed, mut violations) = (Vec::new(), Vec::new());
    let mut is_unanswered = false;
    for (index, target) in spec.targets.iter().enumerate() {
        let Some(host) = TargetHost::parse(&target.address) else {
            violations.push(Violation {
                path: format!("upstreams.{upstream}.targets[{index}].address"),
                message: TargetHost::wrong(&target.address),
            });
            continue;
        };
        if target.weight == 0 && spec.sticky.is_none() {
            continue;
        }
        let is_elsewhere = around.zone.is_some() && target.zone != around.zone;
        let rank = Rank { priority: target.priority, record: 0, is_elsewhere };
        let question = match host {
            TargetHost::Address(address) => {
                let (label, authority) = (target.address.as_str().into(), target.address.as_str().into());
                gathering.add(Endpoint {
                    label,
                    authority,
                    address,
                    weight: target.weight.into(),
                    state: Arc::default(),
                    rank,
                });
                continue;
            }
            TargetHost::Dns(host, _) => Question::Host(host),
            TargetHost::Service(name) => Question::Service(name),
        };
        let name = around.names.follow(question);
        let (answer, edition) = name.answer();
        match answer {
            Answer::Awaited => is_unanswered = true,
            Answer::Failed => {}
            Answer::Places(places) => {
                places.iter().filter_map(|place| at(target, rank, place)).for_each(|one| gathering.add(one));
            }
        }
        followed.push((name, edition));
    }
    if !violations.is_empty() {
        return Err(violations);
    }
    if gathering.all.len() == ENDPOINTS_MAX && !followed.is_empty() {
        tracing::warn!(%upstream, most = ENDPOINTS_MAX, "names of targets stand for more places than are used");
    }
    let is_awaited = is_unanswered && gathering.all.is_empty();
    let is_hashed = matches!(spec.balance, Balance::Maglev(_));
    let endpoints = Endpoints::new(gathering.all, is_hashed, spec.panic_percent > 0, old);
    Ok(Gathered { endpoints, followed: followed.into(), is_awaited })
}

struct Gathering<'o> {
    known: HashMap<&'o str, &'o Arc<TargetState>>,
    all: Vec<Endpoint>,
}

impl Gathering<'_> {
    fn add(&mut self, mut endpoint: Endpoint) {
        if let Some(state) = self.known.get(&*endpoint.label) {
            endpoint.state = Arc::clone(state);
        }
        if self.all.len() < ENDPOINTS_MAX {
            self.all.push(endpoint);
        }
    }
}

/// One of the places that a target's name stands for.
fn at(target: &Target, mut rank: Rank, place: &Place) -> Option<Endpoint> {
    let weight = u32::from(target.weight);
    let (port, authority, weight) = match &place.record {
        None => (target.address.rsplit_once(':')?.1.parse().ok()?, target.address.as_str().into(), weight),
        Some(record) => {
            rank.record = record.priority;
            let authority = format!("{}:{}", record.host.trim_end_matches('.'), record.port);
            // Beside others, 0 is for a very small share (RFC 2782).
            (record.port, authority.into(), weight * u32::from(record.weight.max(1)))
        }
    };
    let address = (place.ip, port).into();
    let label = format!("{}/{address}", target.address).into();
    Some(Endpoint { label, authority, address, weight, state: Arc::default(), rank })
}
