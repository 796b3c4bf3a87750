//! A node that is in a cluster: consensus, gossip, certificate and admin listener, started together and stopped together.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use anyhow::Context;
use model::{
    Change, Config, NodeId, Revision, Violation,
    cluster::{Cluster, ClusterChange},
};
use raft::{Admission, Consensus, Storage};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    counters::{Counters, View},
    findings::Findings,
    gossip::{Facts, Gossip},
    identity::NodeIdentity,
    lease, quotas, renew,
    settings::Settings,
};

/// The peer port: Raft and joining over TCP, gossip over UDP.
pub(crate) struct PeerPort {
    pub(crate) tcp: TcpListener,
    pub(crate) udp: UdpSocket,
}

impl PeerPort {
    /// Binds both to the same port.
    pub(crate) async fn bind(settings: &Settings) -> anyhow::Result<Self> {
        let what = || format!("listen for other nodes on {}", settings.peer);
        let tcp = TcpListener::bind(settings.peer).await.with_context(what)?;
        let udp = UdpSocket::bind(tcp.local_addr()?).await.with_context(what)?;
        Ok(Self { tcp, udp })
    }
}

/// A node that is in a cluster.
pub(crate) struct Member {
    pub(crate) consensus: Consensus,
    pub(crate) identity: NodeIdentity,
    pub(crate) gossip: Gossip,
    /// What rate limits have come to.
    pub(crate) limits: Arc<View>,
    /// When this process began to take part.
    pub(crate) since: Instant,
    stop: CancellationToken,
    failed: watch::Sender<Option<String>>,
    tasks: JoinSet<anyhow::Result<()>>,
}

/// What the rest of the node lends to a member.
pub(crate) struct Lent<'a> {
    pub(crate) counters: Counters,
    pub(crate) findings: Findings,
    pub(crate) settings: &'a Settings,
    pub(crate) installed: watch::Receiver<Revision>,
    pub(crate) lease: &'a Arc<gateway::Lease>,
    pub(crate) registry: &'a prometheus::Registry,
    pub(crate) facts: Facts,
}

/// Checks a change against what the model and the data plane know, on the leader.
struct Checks;

impl Admission for Checks {
    fn check(&self, config: &Config, change: &Change) -> Vec<Violation> {
        violations(config, change)
    }
}

/// All that is wrong with a change, as the model and the data plane know it, in the order of the places. Where the
/// model has spoken of a place, the data plane is not heard on it: it would tell the same fault in other words.
pub(crate) fn violations(config: &Config, change: &Change) -> Vec<Violation> {
    let mut violations = model::check::check(config, change);
    let told: BTreeSet<String> = violations.iter().map(|violation| violation.path.clone()).collect();
    violations.extend(
        gateway::check(config, change).into_iter().filter(|violation| !told.contains(&violation.path)),
    );
    violations.sort();
    violations.dedup();
    violations
}

impl Member {
    /// Takes part in the cluster from now on. With `form`, this node is its first, and says what it is.
    pub(crate) async fn start(
        storage: Storage,
        identity: NodeIdentity,
        port: PeerPort,
        form: Option<ClusterChange>,
        lent: Lent<'_>,
    ) -> anyhow::Result<Self> {
        let cluster = storage.cluster();
        let tls = identity.peer_tls()?;
        let settings =
            raft::Settings { promote_after: lent.settings.promote_after, ..raft::Settings::default() };
        let who = identity.raft_identity();
        let consensus = Consensus::start(storage, who, &tls, Arc::new(Checks), settings).await?;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let routes = renew::routes(&consensus, &identity, lent.installed.clone());
        let (serving, stopping) = (consensus.clone(), stop.clone());
        let failed = watch::Sender::new(None);
        let failing = failed.clone();
        tasks.spawn(async move {
            let served = serving.serve(port.tcp, &tls, routes, stopping).await;
            if let Err(error) = &served {
                failing.send_replace(Some(error.to_string()));
            }
            Ok(served?)
        });
        if let Some(form) = form {
            let address = lent.facts.advertise.clone();
            consensus.form(&address, form).await.context("form the cluster")?;
        }
        let (group, renewing, members, stopping) =
            (consensus.clone(), identity.clone(), cluster.clone(), stop.clone());
        tasks.spawn(async move {
            renew::keep_renewed(group, renewing, members, stopping).await;
            Ok(())
        });
        let keeping = lease::keep(consensus.clone(), lent.installed, lent.lease.clone(), stop.clone());
        tasks.spawn(async move {
            keeping.await;
            Ok(())
        });
        let limits = lent.counters.view();
        let mut counters = lent.counters;
        counters.follow(consensus.usage(), cluster.borrow().nodes.len());
        let keeping = quotas::keep(consensus.clone(), limits.clone(), stop.clone());
        tasks.spawn(async move {
            keeping.await;
            Ok(())
        });
        let gossip = Gossip::start(
            identity.node_id,
            &identity.cluster_id,
            &lent.settings.data,
            port.udp,
            cluster,
            lent.facts,
            (counters, lent.findings),
            lent.registry,
        )
        .await
        .context("start gossip")?;
        tracing::info!(address = %gossip.address(), "gossiping");
        Ok(Self { consensus, identity, gossip, limits, since: Instant::now(), stop, failed, tasks })
    }

    /// What has failed for good, once something has: then the process must end.
    pub(crate) fn failure(&self) -> impl Future<Output = String> + use<> {
        let (mut consensus, mut gossip) = (self.consensus.fatal(), self.gossip.failed());
        let mut port = self.failed.subscribe();
        async move {
            tokio::select! {
                why = told(&mut consensus) => format!("consensus has stopped: {why}"),
                why = told(&mut port) => format!("other nodes are not served any more: {why}"),
                why = told(&mut gossip) => format!("gossip has stopped: {why}"),
            }
        }
    }

    /// Reports what was used of quotas, hands over the leadership, leaves gossip, and stops. What was acknowledged is on the disk already.
    pub(crate) async fn stop(mut self) {
        quotas::report_last(&self.consensus, &self.limits).await;
        if let Err(error) = self.consensus.shutdown().await {
            tracing::warn!(%error, "consensus did not stop cleanly");
        }
        tracing::info!(dropped = ?self.gossip.dropped(), "leaving gossip");
        self.gossip.leave().await;
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!(error = %format!("{error:#}"), "a task did not end cleanly");
            }
        }
    }
}

/// What is told, once something is; never, when it can't be told any more.
pub(crate) async fn told(why: &mut watch::Receiver<Option<String>>) -> String {
    let told = why.wait_for(Option::is_some).await.map(|why| why.clone().unwrap_or_default()).ok();
    match told {
        Some(why) => why,
        None => std::future::pending().await,
    }
}

/// The members besides this node.
pub(crate) fn others(cluster: &Cluster, me: NodeId) -> Vec<NodeId> {
    cluster.nodes.keys().copied().filter(|id| *id != me).collect()
}

#[cfg(test)]
mod tests {
    use model::{Kind, Name, Op, document};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_that_both_find_is_told_once() {
        let spec = json!({"targets": [{"address": "10.0.0.1"}]});
        let name = Name::new("u").unwrap();
        let doc = document::canonical(&spec);
        let change = Change { base: Revision(0), ops: vec![Op::Put { kind: Kind::Upstream, name, doc }] };
        assert!(!gateway::check(&Config::default(), &change).is_empty());
        let told = violations(&Config::default(), &change);
        let places: Vec<&str> = told.iter().map(|violation| violation.path.as_str()).collect();
        assert_eq!(places, ["upstreams.u.targets[0].address"], "{told:?}");
    }
}
