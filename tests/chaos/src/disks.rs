//! The disks of a cluster's nodes, one for each.

use std::{fs, io, path::PathBuf};

use tempfile::TempDir;

use crate::{
    disk::{Disk, Loss},
    nodes::Nodes,
};

/// Disks of ours. They must go after the nodes that use them.
pub struct Disks {
    each: Vec<Disk>,
    /// Where they are mounted. Goes after them.
    _folders: TempDir,
}

impl Disks {
    /// So many.
    ///
    /// # Errors
    /// Where this machine does not mount disks of ours.
    pub fn mount(count: usize) -> io::Result<Self> {
        let (folders, mut each) = (TempDir::new()?, Vec::new());
        for number in 1..=count {
            let path = folders.path().join(format!("node{number}"));
            fs::create_dir(&path)?;
            each.push(Disk::mount(&path)?);
        }
        Ok(Self { each, _folders: folders })
    }

    /// Where each is, in the order of the nodes' places.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.each.iter().map(|disk| disk.path().to_owned()).collect()
    }

    /// That of the node at this place.
    pub fn of(&self, place: usize) -> &Disk {
        &self.each[place]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Disk> {
        self.each.iter()
    }

    /// All power fails, and comes back: no node runs, and what their disks had not made durable is gone, or some of it is there.
    pub fn lose_power(&self, nodes: &mut dyn Nodes, loss: Loss) {
        nodes.kill(&nodes.places());
        for disk in &self.each {
            disk.lose_power(loss);
            let boot = disk.path().join("store-boot");
            if boot.exists() {
                // The machine has been down, and this one has not.
                fs::write(boot, "the boot before").expect("the disk takes writes");
            }
        }
    }
}
