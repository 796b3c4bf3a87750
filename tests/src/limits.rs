//! Rate limits of a whole cluster, simulated: nodes that each decide alone, a network between them that a seed decides, and
//! one central limiter that sees all requests, against which they are measured.

mod measure;
mod scenario;
mod world;

pub use self::{
    measure::{FEW, Figures, LIMITS, Runs, Trouble, Windows, measure, measure_trouble},
    scenario::{Arrival, Scenario},
    world::{Fault, Net, World, run},
};
