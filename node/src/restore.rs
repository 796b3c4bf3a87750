//! `gwnode restore`: a new cluster from a backup, or from what one member still has after a majority was lost.

use std::{fs::File, path::Path, path::PathBuf};

use anyhow::{Context, bail};
use raft::Remains;

use crate::{
    identity::{self, Place},
    node::lock,
    settings::Settings,
    tokens,
};

/// Reads what is there; with `settings`, founds the cluster again in their data folder.
pub(crate) async fn run(from: PathBuf, settings: Option<Settings>) -> anyhow::Result<()> {
    let _source = if from.is_dir() { Some(hold(&from)?) } else { None };
    let remains = match from.is_dir() {
        true => Remains::of_member(&from),
        false => Remains::of_backup(&from),
    };
    // Damage here is not of this node's own data.
    let remains = remains.map_err(|error| anyhow::anyhow!("nothing was restored: {error}"))?;
    let (cluster, revision) = (remains.cluster(), remains.revision());
    let founding = cluster.founding.as_ref().context("nothing was ever formed")?;
    println!(
        "{} is sound: cluster {}, epoch {}, revision {revision}, {} objects, {} members, {} admin tokens",
        from.display(),
        founding.cluster_id,
        founding.epoch,
        remains.objects(),
        cluster.nodes.len(),
        cluster.admin_tokens.len(),
    );
    let Some(settings) = settings else { return Ok(()) };
    let data = settings.data.clone();
    let (_lock, _) = (lock(&settings)?, must_be_empty(&data)?);
    let advertise =
        settings.advertise.context("say at which address others reach this node: --advertise HOST:PORT")?;
    let place = Place { name: settings.name, advertise, admin: settings.admin_advertise };
    let (identity, node) = identity::found_again(&data, &place, cluster, remains.node_id())?;
    // Of the gossip keys at hand the old members know some.
    let newest = cluster.gossip_keys.first().map_or(0, |key| key.id);
    let revision = remains.found(&data, node, tokens::gossip_key(newest.wrapping_add(1))).await?;
    // Last: with it, the folder is a member's.
    identity.store()?;
    println!(
        "{} is node {} of it now, with epoch {}, at revision {revision}.\n\n\
         1. End every member of the old cluster that still runs: it would serve the old config, and is not told.\n\
         2. Start this node: gwnode run --data {} ...\n\
         3. Have the others join with empty data folders: gwctl cluster token create\n\n\
         What was changed after the backup is as it was before: keys that were revoked since are good again.",
        data.display(),
        identity.node_id,
        identity.epoch,
        data.display(),
    );
    Ok(())
}

/// A member's folder, which no process may have.
fn hold(folder: &Path) -> anyhow::Result<File> {
    let path = folder.join("lock");
    let what = || format!("{} is no data folder of a node", folder.display());
    let file = File::options().write(true).open(path).with_context(what)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            bail!("{} is in use by a gwnode that runs: stop it first", folder.display())
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error).with_context(what),
    }
}

fn must_be_empty(data: &Path) -> anyhow::Result<()> {
    let what = || format!("read the data folder {}", data.display());
    for entry in std::fs::read_dir(data).with_context(what)? {
        let name = entry.with_context(what)?.file_name();
        if name != "lock" {
            bail!(
                "{} is not empty ({} is there): restore into an empty data folder",
                data.display(),
                name.to_string_lossy()
            );
        }
    }
    Ok(())
}
