//! What a process needs at one moment.

use std::{fs, path::Path};

/// What a node needed in a minute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Resident memory, in KiB.
    pub memory_kib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// What its data folder takes, in KiB.
    pub disk_kib: u64,
    /// How long half of the requests took at most, in percent of what they take without a gateway. So other work on the
    /// machine, which slows down both, does not count as the node's.
    pub median_percent: u64,
}

/// One of the things that a node needs.
pub type Need = (&'static str, fn(&Needs) -> u64);

impl Needs {
    /// All of them, with their names.
    pub const ALL: [Need; 4] = [
        ("memory, KiB", |needs| needs.memory_kib),
        ("descriptors", |needs| needs.descriptors),
        ("disk, KiB", |needs| needs.disk_kib),
        ("proxy p50, % of the origin's", |needs| needs.median_percent),
    ];

    /// Those of the node of this process with this data folder, as far as the system tells.
    pub fn of(pid: Option<u32>, data: &Path, median_percent: u64) -> Self {
        let process = format!("/proc/{}", pid.unwrap_or_default());
        let status = fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        let descriptors = fs::read_dir(format!("{process}/fd")).map_or(0, Iterator::count);
        Self {
            memory_kib: resident.unwrap_or_default(),
            descriptors: descriptors as u64,
            disk_kib: size(data) / 1_024,
            median_percent,
        }
    }
}

/// What the files below a folder hold, in bytes.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { size(&entry.path()) } else { metadata.len() })
    });
    sizes.sum()
}
