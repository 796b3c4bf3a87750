//! What requests of an upstream are balanced over: endpoints, each a place to send to and what is known of it.

mod gather;

use std::{net::SocketAddr, sync::Arc};

pub(crate) use gather::{Gathered, gather};

use crate::{state::TargetState, upstream::balance::Draw};

/// A place to which requests of an upstream can be sent.
#[derive(Debug)]
pub struct Endpoint {
    /// What people call it: the target as in the config; of a name with the address after it, as `orders:80/10.0.1.7:80`.
    pub label: Box<str>,
    /// `host:port`, by which it is asked for: the target as in the config, or what the record of its service says.
    pub authority: Box<str>,
    /// Where it is.
    pub address: SocketAddr,
    /// Its share beside the others', 1 or more.
    pub weight: u32,
    /// What is known of it; outlives the Plan.
    pub state: Arc<TargetState>,
}

/// All endpoints of an upstream. Those of all upstreams of a Plan are there to be gone through for whoever checks them
/// ([`super::Plan::endpoints`]).
#[derive(Debug)]
pub struct Endpoints {
    all: Box<[Endpoint]>,
    draw: Draw,
    mean_weight: f32,
}

impl Endpoints {
    /// Of these.
    pub(crate) fn new(all: Vec<Endpoint>) -> Self {
        let draw = Draw::new(all.iter().map(|endpoint| endpoint.weight));
        let sum: f32 = all.iter().map(|endpoint| endpoint.weight as f32).sum();
        let mean_weight = sum / all.len().max(1) as f32;
        Self { all: all.into(), draw, mean_weight }
    }

    /// Each of them.
    pub fn all(&self) -> &[Endpoint] {
        &self.all
    }

    /// Draws of their places in [`Self::all`], by weight.
    pub(crate) fn draw(&self) -> &Draw {
        &self.draw
    }

    /// What one weighs on average.
    pub(crate) fn mean_weight(&self) -> f32 {
        self.mean_weight
    }
}
