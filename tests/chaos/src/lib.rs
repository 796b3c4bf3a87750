//! Faults on a cluster under traffic and writes, and the checkers of what it promises meanwhile.

pub mod compose;
pub mod disk;
pub mod disks;
pub mod fault;
pub mod figures;
pub mod havoc;
pub mod matrix;
pub mod nodes;
pub mod power;
pub mod soak;
pub mod stage;
pub mod target;
pub mod traffic;
