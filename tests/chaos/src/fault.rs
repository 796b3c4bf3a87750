//! What is done to a cluster: a file for each fault, or for each kind of faults.

mod clock;
mod damage;
mod disk;
mod gossip;
mod kill;
mod membership;
mod partition;
mod pause;
mod power;
mod restart;
mod snapshot;
mod upstream;
mod weather;

use crate::{compose::Ways, disk::Disk, figures::Bar, nodes::Site, stage::Stage};

/// Something that is done to a cluster under traffic and writes.
pub struct Fault {
    /// What it is called.
    pub name: &'static str,
    /// What there must be beside a cluster.
    pub needs: &'static [Need],
    /// What it is held to, beside the promises.
    pub bars: &'static [Bar],
    /// Does it, and leaves all nodes in peace again.
    pub strike: fn(&mut Stage),
}

/// What a fault can need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Disks of ours.
    Disks,
    /// Relays between the nodes.
    Relays,
    /// Clocks that can be set.
    Clocks,
    /// A build to come from.
    BuildBefore,
}

impl Need {
    /// Why it is not there; none if it is.
    fn missing(self, site: Site) -> Option<&'static str> {
        let is_process = site == Site::Processes;
        match self {
            Self::Disks => {
                (!Disk::is_possible("disks of ours")).then_some("no disks of ours can be mounted here")
            }
            Self::Relays => (site == Site::Containers(Ways::Direct)).then_some("the nodes have no relays"),
            Self::Clocks if !is_process => Some("a static program takes no libfaketime"),
            Self::Clocks => clock::library().is_none().then_some("libfaketime is not installed"),
            Self::BuildBefore if is_process => Self::build_before(site)
                .is_none()
                .then_some("$PHALANX_GWNODE_BEFORE names no build to come from"),
            Self::BuildBefore => Self::build_before(site)
                .is_none()
                .then_some("$PHALANX_IMAGE_BEFORE names no build to come from"),
        }
    }

    /// The build of the release before: a program, or an image.
    fn build_before(site: Site) -> Option<String> {
        let name = if site == Site::Processes { "PHALANX_GWNODE_BEFORE" } else { "PHALANX_IMAGE_BEFORE" };
        std::env::var(name).ok()
    }
}

impl Fault {
    /// Whether it needs disks of ours.
    pub fn needs_disks(&self) -> bool {
        self.needs.contains(&Need::Disks)
    }

    /// Why it can't be done there; none if it can.
    pub fn missing(&self, site: Site) -> Option<&'static str> {
        self.needs.iter().find_map(|need| need.missing(site))
    }
}

/// Everything that can be done.
pub fn all() -> impl Iterator<Item = &'static Fault> {
    let kinds = [
        kill::FAULTS,
        pause::FAULTS,
        partition::FAULTS,
        weather::FAULTS,
        clock::FAULTS,
        disk::FAULTS,
        damage::FAULTS,
        power::FAULTS,
        restart::FAULTS,
        membership::FAULTS,
        gossip::FAULTS,
        upstream::FAULTS,
        snapshot::FAULTS,
    ];
    kinds.into_iter().flatten()
}
