//! A new cluster from what is left of an old one: a backup, or the data folder of one of its members.
//!
//! It is the old one with the next epoch. Members of the old one are refused by the epoch, which is in the head of every call.
//! Numbers begin anew so far ahead that none is used twice, whatever the old cluster did after the backup was made.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use model::{
    NodeId, Revision,
    cluster::{Cluster, GossipKey, Node},
};
use openraft::storage::RaftLogStorage;

use crate::{
    Error, Storage,
    files::SystemFiles,
    snapshot::{self, Snapshots},
    state::State,
    types::{self, Membership, PeerNode, StoredMembership, Vote},
};

/// How far ahead of the old ones the numbers of a new epoch begin: log indexes, ids of nodes (which are log indexes), and
/// revisions.
pub const EPOCH_STRIDE: u64 = 1_000_000_000;

/// What is left of a cluster.
pub struct Remains {
    state: State,
    /// The log index with which the new epoch begins, and its first node's id.
    index: u64,
    term: u64,
}

impl Remains {
    /// What is in a backup; every byte of it is checked.
    ///
    /// # Errors
    /// [`Error::Storage`] where it is damaged or no backup, [`Error::Io`] where it can't be read.
    pub fn of_backup(file: &Path) -> Result<Self, Error> {
        Self::new(file, snapshot::read_backup(file)?)
    }

    /// What the data folder of a member has: all that it was ever told, for of what it acknowledged nothing may be lost, and
    /// what was not committed may have been. The member must not run. Its folder stays as it is.
    ///
    /// # Errors
    /// [`Error::Storage`] where a file is damaged, [`Error::Io`] where one can't be read.
    pub fn of_member(dir: &Path) -> Result<Self, Error> {
        Self::new(dir, Storage::salvage(dir)?)
    }

    fn new(from: &Path, state: State) -> Result<Self, Error> {
        let bad = |reason: &str| Error::damaged(from, "what is in it", reason);
        let applied = state.applied.filter(|_| state.cluster.founding.is_some());
        let applied = applied.ok_or_else(|| bad("it is of no cluster: nothing was ever formed"))?;
        let index = applied.index.checked_add(EPOCH_STRIDE);
        let revision = state.config.revision.0.checked_add(EPOCH_STRIDE);
        let index = index.filter(|_| revision.is_some()).ok_or_else(|| bad("its numbers are used up"))?;
        Ok(Self { index, term: types::term(&applied), state })
    }

    /// What the members of the old cluster agreed on.
    pub fn cluster(&self) -> &Cluster {
        &self.state.cluster
    }

    /// The config's revision in the old cluster.
    pub fn revision(&self) -> Revision {
        self.state.config.revision
    }

    /// How many objects the config has.
    pub fn objects(&self) -> usize {
        model::Kind::ALL.into_iter().map(|kind| self.state.config.names(kind).len()).sum()
    }

    /// The id of the new cluster's first node.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.index)
    }

    /// Lays down the new cluster in this folder, durably: the old one's config, CA and admin tokens, with the next epoch, a higher
    /// revision, `node` as the only member, and a gossip key that the old members do not know. Join tokens are not taken over.
    /// Gives the revision.
    ///
    /// # Errors
    /// [`Error::Io`] where the folder can't be written.
    pub async fn found(self, dir: &Path, node: Node, gossip_key: GossipKey) -> Result<Revision, Error> {
        let (me, Self { mut state, index, term }) = (self.index, self);
        state.applied = Some(types::log_id(term, index));
        let peer = BTreeMap::from([(me, PeerNode { address: node.address.clone() })]);
        let membership = Membership::new(vec![BTreeSet::from([me])], peer);
        let membership = membership.map_err(|error| Error::Fatal(error.to_string()))?;
        state.membership = StoredMembership::new(state.applied, membership);
        state.config.revision = Revision(state.config.revision.0 + EPOCH_STRIDE);
        let cluster = Arc::make_mut(&mut state.cluster);
        if let Some(founding) = &mut cluster.founding {
            founding.epoch += 1;
        }
        cluster.nodes = BTreeMap::from([(NodeId(me), node)]);
        cluster.join_tokens.clear();
        cluster.gossip_keys = vec![gossip_key];
        Snapshots::open(Arc::new(SystemFiles), dir.join("snapshots"))?.write(&state)?;
        let mut storage = Storage::open(dir)?;
        // It goes on from the old one's term: a log's terms never go back.
        let voted = storage.log.save_vote(&Vote::new(term, me)).await;
        voted.map_err(|error| Error::io(dir.join("log"), &error))?;
        Ok(state.config.revision)
    }
}
