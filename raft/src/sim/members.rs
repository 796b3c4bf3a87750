//! Who is a member of the simulated cluster: forming it, joins and removals.

use std::{sync::atomic::Ordering, time::Duration};

use model::{
    NodeId,
    cluster::{
        AdminToken, ClusterChange, ClusterOutcome, Founding, GossipKey, JoinToken, Node, Role, Secret,
    },
};

use super::{
    fuse::Fuse,
    group::{CLUSTER, Group},
    runtime::{below, percent},
};
use crate::{Consensus, Error};

/// For a change to the cluster itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// What happens at a disk once only, when its node is started for the first time.
const FIRST_STEPS: [&str; 5] =
    ["new mark create", "new mark write", "new mark sync", "new mark rename", "folder sync"];

fn node(address: &str) -> Node {
    Node {
        name: address.to_owned(),
        address: address.to_owned(),
        admin: String::new(),
        public_key: address.to_owned(),
        version: "0".into(),
        joined_at_ms: 0,
    }
}

impl Group {
    /// Forms the cluster of one node.
    pub(crate) async fn form(&self) {
        let (id, address) = (NodeId(1), self.next_address());
        self.add_new(id, address.clone());
        let change = ClusterChange::Form {
            founding: Founding {
                cluster_id: CLUSTER.into(),
                epoch: 1,
                ca_certificate: String::new(),
                ca_key: Secret(String::new()),
                pepper: Secret("ab".repeat(32)),
            },
            node_id: id,
            node: node(&address),
            admin_token_id: "a".into(),
            admin_token: AdminToken {
                digest: String::new(),
                role: Role::Admin,
                label: "first".into(),
                expires_at_ms: None,
            },
            gossip_key: GossipKey { id: 1, secret: Secret("cd".repeat(32)) },
        };
        while let Err(why) = self.form_once(id, &address, change.clone()).await {
            self.note(format!("the cluster is not formed yet: {why}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Goes on forming the cluster where an earlier process of its first node stopped.
    async fn form_once(&self, id: NodeId, address: &str, change: ClusterChange) -> Result<(), Error> {
        self.restart(id, true).await;
        let Some((_, process)) = self.running().pop() else { return Err(Error::NoQuorum) };
        process.consensus.form(address, change).await?;
        let token = JoinToken { digest: "d".into(), expires_at_ms: u64::MAX, uses_left: 1_000 };
        let change = ClusterChange::PutJoinToken { id: "j".into(), token };
        process.consensus.cluster_change(change, "sim", None, PATIENCE).await.map(drop)
    }

    /// A node that has never been started, and some of which will end the first time that they are.
    fn add_new(&self, id: NodeId, address: String) {
        self.add(id, address);
        if percent(30) {
            let step = FIRST_STEPS[usize::try_from(below(FIRST_STEPS.len() as u64)).unwrap_or_default()];
            self.members.borrow()[&id].disk.set_fuse(Fuse::Step(step, 1));
        }
    }

    /// Has one more node join; gives its id, if it was admitted in time.
    pub(crate) async fn join(&self, through: &Consensus) -> Option<NodeId> {
        let address = self.next_address();
        let admit =
            ClusterChange::Admit { token_id: "j".into(), token_digest: "d".into(), node: node(&address) };
        match through.cluster_change(admit, "sim", None, PATIENCE).await {
            Ok(ClusterOutcome::Admitted(id)) => {
                self.note(format!("node {id} is admitted at {address}"));
                self.add_new(id, address);
                self.start(id).await;
                Some(id)
            }
            other => {
                self.note(format!("a node is not admitted: {other:?}"));
                None
            }
        }
    }

    /// Learns from what is agreed who is a member: a join or removal whose answer got lost may have happened.
    pub(crate) async fn learn(&self) {
        let newest =
            self.running().into_iter().max_by_key(|(_, process)| process.consensus.status().applied_index);
        let Some((_, newest)) = newest else { return };
        let nodes = newest.consensus.cluster().borrow().nodes.clone();
        let applied = newest.consensus.status().applied_index;
        for (id, member) in &mut *self.members.borrow_mut() {
            // Whoever ends a node that the group still needs ends the group.
            let is_in = nodes.contains_key(id) || newest.consensus.is_in_group(*id);
            if member.removed || is_in || Some(id.0) > applied {
                continue;
            }
            self.note(format!("node {id} turns out to be removed"));
            member.removed = true;
        }
        for (id, node) in nodes {
            if !self.members.borrow().contains_key(&id) {
                self.note(format!("node {id} turns out to be admitted"));
                self.add_new(id, node.address);
                self.start(id).await;
            }
        }
    }

    /// Ends those that were removed.
    pub(crate) fn end_removed(&self) {
        for (id, member) in &mut *self.members.borrow_mut() {
            if let Some(process) = member.process.take_if(|_| member.removed) {
                process.alive.store(false, Ordering::SeqCst);
                self.note(format!("node {id} is gone"));
                tokio::spawn(async move { process.consensus.abandon().await });
            }
        }
    }

    /// Takes a node out of the cluster.
    pub(crate) async fn remove(&self, through: &Consensus, id: NodeId) {
        let change = ClusterChange::Remove { node_id: id };
        let removed = through.cluster_change(change, "sim", None, PATIENCE).await;
        self.note(format!("node {id} is to go: {removed:?}"));
        if matches!(removed, Ok(ClusterOutcome::Done))
            && let Some(member) = self.members.borrow_mut().get_mut(&id)
        {
            member.removed = true;
        }
    }
}
