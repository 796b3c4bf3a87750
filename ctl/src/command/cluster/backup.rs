//! `gwctl cluster backup`.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use clap::Args;
use http::Method;

use crate::{cli::Global, client::Call, failure::Failure, output};

/// Which file, and of what.
#[derive(Debug, Args)]
pub(crate) struct Backup {
    /// The file, which must not be there yet; readable by its owner alone.
    file: PathBuf,
    /// Of what the node has that answers, without asking a majority whether that is the newest.
    #[arg(long)]
    stale: bool,
}

impl Backup {
    /// Does it.
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let file = self.file.display();
        if self.file.exists() {
            return Err(Failure::usage(format!("{file} is there already")).hint("give another name"));
        }
        let path = if self.stale { "/v1/cluster/backup?stale=true" } else { "/v1/cluster/backup" };
        let backup = global.client()?.send(Call::new(Method::GET, path)).await?;
        let written = write(&self.file, &backup);
        written.map_err(|error| Failure::refused(format!("{file}: {error}")))?;
        output::write(&format!(
            "{file}: {} bytes. It holds the CA's key, among other secrets: keep it as such.\n\
             gwnode restore --check {file}   says what is in it\n",
            backup.len()
        ))
    }
}

/// Under its name there is all of it, durably, or nothing.
fn write(file: &Path, backup: &[u8]) -> io::Result<()> {
    let beside = file.with_extension("part");
    // What an earlier try left would keep its mode. Mostly there is none.
    let _ = fs::remove_file(&beside);
    let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    to.write_all(backup)?;
    to.sync_all()?;
    fs::rename(&beside, file)?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
