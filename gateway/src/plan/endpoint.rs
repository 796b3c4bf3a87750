//! What requests of an upstream are balanced over: endpoints, each a place to send to and what is known of it.

mod gather;

use std::{net::SocketAddr, sync::Arc};

pub(crate) use gather::{Gathered, gather};

use crate::{
    state::TargetState,
    upstream::balance::{Draw, Shares, Table},
};

/// A place to which requests of an upstream can be sent.
#[derive(Debug)]
pub struct Endpoint {
    /// What people call it: the target as in the config; of a name with the address after it, as `orders:80/10.0.1.7:80`.
    pub label: Box<str>,
    /// `host:port`, by which it is asked for: the target as in the config, or what the record of its service says.
    pub authority: Box<str>,
    /// Where it is.
    pub address: SocketAddr,
    /// Its share beside the others'; 0 if only cookies lead to it.
    pub weight: u32,
    /// What is known of it; outlives the Plan.
    pub state: Arc<TargetState>,
    /// Which come first.
    pub(crate) rank: Rank,
}

/// Which endpoints come first: of lower priority, of lower priority in the record of a service, of the node's own zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Rank {
    pub(crate) priority: u16,
    pub(crate) record: u16,
    pub(crate) is_elsewhere: bool,
}

/// All endpoints of an upstream. Those of all upstreams of a Plan are there to be gone through for whoever checks them
/// ([`super::Plan::endpoints`]).
#[derive(Debug)]
pub struct Endpoints {
    /// Level by level, then those that only cookies lead to.
    all: Box<[Endpoint]>,
    levels: Box<[Level]>,
    /// How requests are shared between levels, where that takes more than one level that gets all.
    shares: Option<Shares>,
}

/// Endpoints of one rank.
#[derive(Debug)]
pub(crate) struct Level {
    /// The place of the first of them in [`Endpoints::all`].
    pub(crate) first: usize,
    /// Draws of their places from there on, by weight.
    pub(crate) draw: Draw,
    /// What one weighs on average.
    pub(crate) mean_weight: f32,
    /// Their weights together.
    pub(crate) weight: u64,
    /// Which place a key leads to, where requests are hashed.
    pub(crate) table: Option<Arc<Table>>,
}

impl Endpoints {
    /// Of these. With a table of keys if `is_hashed`, that of `old` where it is of the same endpoints; and with shares that the health of
    /// one level decides if `may_panic`.
    pub(crate) fn new(mut all: Vec<Endpoint>, is_hashed: bool, may_panic: bool, old: Option<&Self>) -> Self {
        all.sort_by_key(|endpoint| (endpoint.weight == 0, endpoint.rank));
        let mut first = 0;
        let drawn = all.iter().take_while(|endpoint| endpoint.weight > 0).count();
        let levels = all[..drawn].chunk_by(|one, next| one.rank == next.rank).map(|level| {
            let draw = Draw::new(level.iter().map(|endpoint| endpoint.weight));
            let weight: u64 = level.iter().map(|endpoint| u64::from(endpoint.weight)).sum();
            let table = is_hashed.then(|| {
                let places = level.iter().map(|endpoint| (&*endpoint.label, endpoint.weight));
                let old = old.into_iter().flat_map(|old| old.levels.iter());
                Table::of(places, old.filter_map(|level| level.table.as_ref()))
            });
            let mean_weight = weight as f32 / level.len() as f32;
            let level = (first, level.len());
            first += level.1;
            Level { first: level.0, draw, mean_weight, weight, table }
        });
        let levels: Box<[Level]> = levels.collect();
        let shares = (levels.len() > 1 || may_panic).then(|| Shares::new(levels.len()));
        Self { levels, shares, all: all.into() }
    }

    /// Each of them.
    pub fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// Levels of those that requests may go to without a cookie, the first first.
    pub(crate) fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// How many of them, the first ones, are in levels.
    pub(crate) fn drawn(&self) -> usize {
        self.levels.last().map_or(0, |level| level.first + level.draw.count())
    }

    /// Those of a level.
    pub(crate) fn of(&self, level: &Level) -> &[Endpoint] {
        &self.all[level.first..level.first + level.draw.count()]
    }

    /// How requests are shared between levels; none if the first gets all.
    pub(crate) fn shares(&self) -> Option<&Shares> {
        self.shares.as_ref()
    }

    /// The place of one of them in [`Self::all`].
    pub(crate) fn place(&self, endpoint: &Endpoint) -> Option<usize> {
        self.all.iter().position(|one| std::ptr::eq(one, endpoint))
    }
}
