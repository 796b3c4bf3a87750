//! Whether the disk of the data folder takes what is written, once it did not.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

/// Between two tries.
const INTERVAL: Duration = Duration::from_secs(1);
/// What a node needs to go on: a segment of the store, and some.
const PROBE_BYTES: usize = 4 << 20;

/// Returns once it does.
pub(super) async fn until_it_takes_writes(data: PathBuf) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let data = data.clone();
        let probed = tokio::task::spawn_blocking(move || probe(&data)).await;
        match probed {
            Ok(Err(error)) => tracing::debug!(%error, "the disk takes no writes yet"),
            Ok(Ok(())) | Err(_) => return,
        }
    }
}

fn probe(data: &Path) -> io::Result<()> {
    let path = data.join("probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&vec![0; PROBE_BYTES])?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leaves_nothing_and_says_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        probe(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(probe(&dir.path().join("gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
