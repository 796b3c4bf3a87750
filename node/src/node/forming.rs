//! How a node comes into a cluster: it forms one or joins one, told by gwctl or by its settings.

use std::{fs::OpenOptions, io::Write, os::unix::fs::OpenOptionsExt, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use model::{
    Code,
    api::{Formed, Joined},
    cluster::ClusterChange,
};
use tokio::net::TcpListener;

use super::{Node, Spare};
use crate::{
    admin,
    gossip::Facts,
    identity::{self, NodeIdentity, Place},
    member::{Lent, Member},
    settings::Bootstrap,
    tokens,
};

/// For how long the join token that forming a cluster makes is good.
const FIRST_TOKEN_TTL_MS: u64 = 3_600_000;
/// How many nodes it admits.
const FIRST_TOKEN_USES: u32 = 16;

/// Puts the file there whole, readable by its owner alone from its first byte.
fn write_secret(file: &Path, text: &str) -> Result<(), identity::Error> {
    let temporary = file.with_extension("new");
    // What an earlier try left would keep its mode. Mostly there is none.
    let _ = std::fs::remove_file(&temporary);
    let write = || {
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        to.write_all(text.as_bytes())?;
        to.sync_all()?;
        std::fs::rename(&temporary, file)
    };
    write().map_err(|source| identity::Error::File { file: file.to_owned(), source })
}

impl Node {
    pub(super) async fn admin_listener(&self) -> anyhow::Result<TcpListener> {
        let bound = TcpListener::bind(self.settings.admin).await;
        bound.with_context(|| format!("serve the admin API on {}", self.settings.admin))
    }

    fn place(&self, advertise: Option<String>) -> Result<Place, identity::Error> {
        let advertise = advertise.or_else(|| self.settings.advertise.clone()).ok_or_else(|| {
            let reason = "say at which address others reach this node: --advertise HOST:PORT".to_owned();
            identity::Error::Refused { code: Code::Invalid, reason }
        })?;
        Ok(Place {
            name: self.settings.name.clone(),
            advertise,
            admin: self.settings.admin_advertise.clone(),
        })
    }

    pub(super) async fn become_member(
        self: &Arc<Self>,
        identity: NodeIdentity,
        form: Option<ClusterChange>,
        admin: TcpListener,
        advertise: Option<String>,
    ) -> anyhow::Result<()> {
        let tls = identity.admin_tls()?;
        let spare = self.spare.lock().await.take();
        let Spare { storage, port, counters, findings } =
            spare.context("this node is in a cluster already")?;
        let said = || {
            let cluster = storage.cluster();
            let cluster = cluster.borrow();
            cluster.nodes.get(&identity.node_id).map(|node| node.address.clone())
        };
        let advertise = advertise.or_else(|| self.settings.advertise.clone()).or_else(said);
        self.advertised.get_or_init(|| advertise.unwrap_or_default());
        let facts = self.facts(None);
        let facts = Facts { certificate_expires_at_ms: identity.certificate_expires_at_ms(), ..facts };
        let lent = Lent {
            counters,
            findings,
            settings: &self.settings,
            installed: self.installed.clone(),
            lease: &self.lease,
            registry: &self.registry,
            facts,
        };
        let started = Member::start(storage, identity, port, form, lent).await;
        let member = started.inspect_err(|error| {
            // What a member is made of is spent; the next start goes on from what is on the disk.
            self.failed.send_replace(Some(format!("become a member: {error:#}")));
        })?;
        tracing::info!(id = %member.identity.node_id, cluster = %member.identity.cluster_id, "in the cluster");
        let (failure, failed) = (member.failure(), self.failed.clone());
        let stop = self.stop.clone();
        self.spawn(async move {
            tokio::select! {
                why = failure => drop(failed.send_replace(Some(why))),
                () = stop.cancelled() => {}
            }
        });
        *self.member.write().await = Some(member);
        self.spawn(admin::serve_tls(self.clone(), admin, tls, self.stop.clone()));
        Ok(())
    }

    /// Forms a cluster of this node.
    pub(crate) async fn form(self: &Arc<Self>, advertise: Option<String>) -> Result<Formed, identity::Error> {
        let refused = |code, reason: String| identity::Error::Refused { code, reason };
        if self.member.read().await.is_some() {
            return Err(refused(Code::Conflict, "this node is in a cluster already".into()));
        }
        let place = self.place(advertise)?;
        let failed = |error: anyhow::Error| refused(Code::Unavailable, format!("{error:#}"));
        if self.spare.lock().await.is_none() {
            return Err(refused(Code::Conflict, "this node is forming or joining a cluster already".into()));
        }
        // Before anything is written: a port that is taken is found out while nothing has happened.
        let admin = self.admin_listener().await.map_err(failed)?;
        let founded = identity::found(&self.settings.data, &place)?;
        // Kept until it is committed: a crash in between must lose neither the CA's key nor the pepper.
        identity::write_file(&self.forming_file(), &founded.change)?;
        if let (Bootstrap::Init, Some(file)) = (&self.settings.bootstrap, &self.settings.admin_token_file) {
            write_secret(file, &founded.admin_token)?;
        }
        founded.identity.store()?;
        let advertise = Some(place.advertise.clone());
        let becoming = self.become_member(founded.identity.clone(), Some(founded.change), admin, advertise);
        becoming.await.map_err(failed)?;
        identity::remove_file(&self.forming_file())?;
        let join_token = self.first_join_token(&founded.identity).await?;
        Ok(Formed {
            cluster_id: founded.identity.cluster_id.clone(),
            node_id: founded.identity.node_id,
            ca_certificate: founded.identity.ca_pem().to_owned(),
            admin: place.admin,
            admin_token: founded.admin_token,
            join_token,
            join_address: place.advertise,
        })
    }

    async fn first_join_token(&self, identity: &NodeIdentity) -> Result<String, identity::Error> {
        let token = tokens::Join::generate(identity.ca_sha256()?);
        let expires_at_ms = identity::now_ms() + FIRST_TOKEN_TTL_MS;
        let change = ClusterChange::PutJoinToken {
            id: token.id.clone(),
            token: token.stored(expires_at_ms, FIRST_TOKEN_USES),
        };
        let member = self.member.read().await;
        let Some(member) = &*member else { return Ok(String::new()) };
        let made = member.consensus.cluster_change(change, "init", None, Duration::from_secs(10)).await;
        made.map_err(|error| identity::Error::Refused { code: error.code(), reason: error.to_string() })?;
        Ok(token.text())
    }

    /// Joins the cluster of the member at `address`.
    pub(crate) async fn join(
        self: &Arc<Self>,
        address: &str,
        token: &str,
        advertise: Option<String>,
    ) -> Result<Joined, identity::Error> {
        if let Some(member) = &*self.member.read().await {
            let same = tokens::Join::parse(token)
                .is_ok_and(|token| member.identity.ca_sha256().is_ok_and(|ca| ca == token.ca_sha256));
            if same {
                // A retry of a join that worked.
                let identity = &member.identity;
                return Ok(Joined { cluster_id: identity.cluster_id.clone(), node_id: identity.node_id });
            }
            let reason =
                "this node is in another cluster: gwctl cluster leave first, and empty its data folder";
            return Err(identity::Error::Refused { code: Code::Conflict, reason: reason.into() });
        }
        let place = self.place(advertise)?;
        let failed = |error: anyhow::Error| identity::Error::Refused {
            code: Code::Unavailable,
            reason: format!("{error:#}"),
        };
        let admin = self.admin_listener().await.map_err(failed)?;
        let identity = {
            let spare = self.spare.lock().await;
            let Some(Spare { port, .. }) = &*spare else {
                let reason = "this node is forming or joining a cluster already".into();
                return Err(identity::Error::Refused { code: Code::Conflict, reason });
            };
            crate::join::join(&self.settings.data, address, token, &place, &port.tcp).await?
        };
        let joined = Joined { cluster_id: identity.cluster_id.clone(), node_id: identity.node_id };
        self.become_member(identity, None, admin, Some(place.advertise)).await.map_err(failed)?;
        Ok(joined)
    }

    /// With an empty data folder: does what the settings say.
    pub(super) fn bootstrap(self: &Arc<Self>) {
        let node = self.clone();
        match self.settings.bootstrap.clone() {
            Bootstrap::None => tracing::info!(
                socket = %self.socket_path().display(),
                "in no cluster: gwctl cluster init, or gwctl cluster join"
            ),
            Bootstrap::Init => self.spawn(async move {
                if let Err(error) = node.bootstrap_init().await {
                    node.failed.send_replace(Some(format!("bootstrap init: {error:#}")));
                }
            }),
            Bootstrap::Join(address) => self.spawn(async move {
                tokio::select! {
                    () = node.bootstrap_join(&address) => {}
                    () = node.stop.cancelled() => {}
                }
            }),
        }
    }

    async fn bootstrap_init(self: &Arc<Self>) -> Result<(), identity::Error> {
        let formed = self.form(None).await?;
        tracing::info!(cluster = %formed.cluster_id, "formed a cluster");
        self.share_join_token(&formed.join_token)
    }

    /// On a founder that starts again: makes the join token's file where it is not there, for a crash may have come
    /// before it.
    pub(super) async fn resume_init(&self, identity: &NodeIdentity) {
        let missing = self.settings.join_token_file.as_ref().is_some_and(|file| !file.exists());
        if !missing || !matches!(self.settings.bootstrap, Bootstrap::Init) {
            return;
        }
        while let Err(error) =
            self.first_join_token(identity).await.and_then(|token| self.share_join_token(&token))
        {
            tracing::info!(%error, "no join token yet");
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }

    fn share_join_token(&self, token: &str) -> Result<(), identity::Error> {
        self.settings.join_token_file.as_ref().map_or(Ok(()), |file| write_secret(file, token))
    }

    async fn bootstrap_join(self: &Arc<Self>, address: &str) {
        let mut wait = Duration::from_millis(200);
        loop {
            let token =
                self.settings.join_token_file.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
            let tried = match token {
                Some(token) => {
                    self.join(address, token.trim(), None).await.map(drop).map_err(|error| error.to_string())
                }
                None => Err("the join token's file is not there yet".to_owned()),
            };
            match tried {
                Ok(()) => return,
                Err(error) => tracing::info!(%error, %address, "not joined yet"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }
}
