//! Faults on a cluster under traffic and writes, and the checkers of what it promises meanwhile.

pub mod compose;
pub mod disk;
pub mod fleet;
pub mod havoc;
pub mod power;
