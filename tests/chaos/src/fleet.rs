//! A cluster whose nodes have disks of ours.

use std::{fs, io};

use phalanx_tests::Cluster;
use tempfile::TempDir;

use crate::disk::{Disk, Loss};

/// Nodes on disks that can lose what they have not made durable.
pub struct Fleet {
    /// The nodes.
    pub cluster: Cluster,
    /// Their disks, in the same order.
    pub disks: Vec<Disk>,
    /// Where the disks are mounted. Goes after them.
    _folders: TempDir,
}

impl Fleet {
    /// Forms a cluster of so many.
    ///
    /// # Errors
    /// Where this machine does not mount disks of ours.
    pub fn form(nodes: usize) -> io::Result<Self> {
        let folders = TempDir::new()?;
        let (mut disks, mut paths) = (Vec::new(), Vec::new());
        for place in 0..nodes {
            let path = folders.path().join(format!("node{}", place + 1));
            std::fs::create_dir(&path)?;
            disks.push(Disk::mount(&path)?);
            paths.push(path);
        }
        Ok(Self { cluster: Cluster::form_in(paths), disks, _folders: folders })
    }

    /// All power fails, and comes back.
    pub fn lose_power(&mut self, loss: Loss) {
        self.cluster.nodes.iter_mut().for_each(phalanx_tests::Node::kill);
        self.disks.iter().for_each(|disk| disk.lose_power(loss));
        for node in &self.cluster.nodes {
            let boot = node.data.join("store-boot");
            if boot.exists() {
                // The machine has been down, and this one has not.
                fs::write(boot, "the boot before").expect("the disk takes writes");
            }
        }
    }

    /// Starts every node.
    pub fn start(&mut self) {
        self.cluster.nodes.iter_mut().for_each(phalanx_tests::Node::start);
    }
}
