//! What the members of a cluster agree on besides the config: identity, members, tokens and secrets.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{Code, NodeId};

/// The most nodes in a cluster.
pub const NODES_MAX: usize = 64;
/// The most join tokens, and the most admin tokens, at a time.
pub const TOKENS_MAX: usize = 1_000;

/// A text that never shows itself in logs or debug output.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret<T>(pub T);

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Everything the members agree on besides the config. Empty until the cluster is formed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// What was laid down when it was formed.
    #[serde(default)]
    pub founding: Option<Founding>,
    /// Its members, learners included.
    #[serde(default)]
    pub nodes: BTreeMap<NodeId, Node>,
    /// Tokens that let a node join, by id.
    #[serde(default)]
    pub join_tokens: BTreeMap<String, JoinToken>,
    /// Tokens of the admin API, by id.
    #[serde(default)]
    pub admin_tokens: BTreeMap<String, AdminToken>,
    /// Keys that seal gossip, the newest first; all of them open it.
    #[serde(default)]
    pub gossip_keys: Vec<GossipKey>,
}

/// What was laid down when the cluster was formed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Founding {
    /// 32 random hexadecimal digits.
    pub cluster_id: String,
    /// 1, and one more for each restore from a backup.
    pub epoch: u64,
    /// The CA's certificate, PEM.
    pub ca_certificate: String,
    /// The CA's key, PKCS#8 PEM.
    pub ca_key: Secret<String>,
    /// What API keys are digested under: 64 hexadecimal digits.
    pub pepper: Secret<String>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// What people call it.
    pub name: String,
    /// `host:port` at which peers reach it: Raft over TCP, gossip over UDP.
    pub address: String,
    /// `host:port` of its admin API.
    pub admin: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER): 64 hexadecimal digits.
    pub public_key: String,
    /// Its version when it last said so.
    pub version: String,
    /// Milliseconds since the Unix epoch at which it was admitted.
    pub joined_at_ms: u64,
}

/// Lets a node join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of its secret: 64 hexadecimal digits.
    pub digest: String,
    /// Milliseconds since the Unix epoch from which it is refused.
    pub expires_at_ms: u64,
    /// How many more nodes it admits.
    pub uses_left: u32,
}

/// What the holder of an admin token may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Read everything but secrets.
    Viewer,
    /// Change the config.
    Operator,
    /// Change the cluster, tokens included.
    Admin,
}

/// Opens the admin API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminToken {
    /// SHA-256 of its secret: 64 hexadecimal digits.
    pub digest: String,
    /// What its holder may do.
    pub role: Role,
    /// Whose it is, for the audit log.
    pub label: String,
    /// Milliseconds since the Unix epoch from which it is refused.
    #[serde(default)]
    pub expires_at_ms: Option<u64>,
}

/// Seals gossip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipKey {
    /// Which one, in the datagram's head.
    pub id: u8,
    /// 64 hexadecimal digits.
    pub secret: Secret<String>,
}

/// One change to a [`Cluster`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterChange {
    /// Lay the cluster down: what it is and its first node, admin token and gossip key.
    Form {
        /// What it is.
        founding: Founding,
        /// The first node's id.
        node_id: NodeId,
        /// The first node.
        node: Node,
        /// The first admin token's id.
        admin_token_id: String,
        /// The first admin token.
        admin_token: AdminToken,
        /// The first gossip key.
        gossip_key: GossipKey,
    },
    /// Admit a node under the entry's log index, for one use of a token. Done again with the same public key while
    /// that node is a member, it gives the same id and uses up nothing.
    Admit {
        /// The token's id.
        token_id: String,
        /// SHA-256 of the secret that was shown: 64 hexadecimal digits.
        token_digest: String,
        /// The node.
        node: Node,
    },
    /// A member's facts have changed.
    Update {
        /// Which.
        node_id: NodeId,
        /// What it is now; its public key included, so that a node may renew its key.
        node: Node,
    },
    /// A member is gone for good.
    Remove {
        /// Which.
        node_id: NodeId,
    },
    /// Make there be this join token.
    PutJoinToken {
        /// Its id.
        id: String,
        /// The token.
        token: JoinToken,
    },
    /// Make there be no such join token.
    DeleteJoinToken {
        /// Its id.
        id: String,
    },
    /// Make there be this admin token.
    PutAdminToken {
        /// Its id.
        id: String,
        /// The token.
        token: AdminToken,
    },
    /// Make there be no such admin token.
    DeleteAdminToken {
        /// Its id.
        id: String,
    },
    /// Seal with this key from now on; the one before it still opens.
    RotateGossipKey {
        /// The new one.
        key: GossipKey,
    },
}

/// What applying a [`ClusterChange`] came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterOutcome {
    /// It is so now (or was so already).
    Done,
    /// The node is a member under this id.
    Admitted(NodeId),
    /// Nothing changed.
    Refused {
        /// In which way.
        code: Code,
        /// Why, for people.
        reason: String,
    },
}

impl Cluster {
    /// Applies a committed change that was proposed at `at_ms` (milliseconds since the Unix epoch, by the proposer's
    /// clock) and has the log index `index`. Total and deterministic.
    pub fn apply(&mut self, change: &ClusterChange, index: u64, at_ms: u64) -> ClusterOutcome {
        let refused = |code, reason: &str| ClusterOutcome::Refused { code, reason: reason.to_owned() };
        match change {
            ClusterChange::Form { founding, node_id, node, admin_token_id, admin_token, gossip_key } => {
                if self.founding.is_some() {
                    return refused(Code::Conflict, "the cluster is formed already");
                }
                self.founding = Some(founding.clone());
                self.nodes.insert(*node_id, node.clone());
                self.admin_tokens.insert(admin_token_id.clone(), admin_token.clone());
                self.gossip_keys = vec![gossip_key.clone()];
                ClusterOutcome::Done
            }
            ClusterChange::Admit { token_id, token_digest, node } => {
                self.admit(token_id, token_digest, node, NodeId(index), at_ms)
            }
            ClusterChange::Update { node_id, node } => {
                if !self.nodes.contains_key(node_id) {
                    return refused(Code::NotFound, "no such node in the cluster");
                }
                if let Some(taken) = self.taken(&node.address, Some(*node_id)) {
                    return taken;
                }
                self.nodes.insert(*node_id, node.clone());
                ClusterOutcome::Done
            }
            ClusterChange::Remove { node_id } => {
                self.nodes.remove(node_id);
                ClusterOutcome::Done
            }
            ClusterChange::PutJoinToken { id, token } => {
                self.join_tokens.retain(|_, token| token.expires_at_ms > at_ms && token.uses_left > 0);
                if self.join_tokens.len() >= TOKENS_MAX && !self.join_tokens.contains_key(id) {
                    return refused(Code::Exhausted, "1,000 join tokens are there already: delete some");
                }
                self.join_tokens.insert(id.clone(), token.clone());
                ClusterOutcome::Done
            }
            ClusterChange::DeleteJoinToken { id } => match self.join_tokens.remove(id) {
                Some(_) => ClusterOutcome::Done,
                None => refused(Code::NotFound, "no such join token"),
            },
            ClusterChange::PutAdminToken { id, token } => {
                if self.admin_tokens.len() >= TOKENS_MAX && !self.admin_tokens.contains_key(id) {
                    return refused(Code::Exhausted, "1,000 admin tokens are there already: delete some");
                }
                self.admin_tokens.insert(id.clone(), token.clone());
                ClusterOutcome::Done
            }
            ClusterChange::DeleteAdminToken { id } => match self.admin_tokens.remove(id) {
                Some(_) => ClusterOutcome::Done,
                None => refused(Code::NotFound, "no such admin token"),
            },
            ClusterChange::RotateGossipKey { key } => {
                self.gossip_keys.retain(|old| old.id != key.id);
                self.gossip_keys.insert(0, key.clone());
                self.gossip_keys.truncate(2);
                ClusterOutcome::Done
            }
        }
    }

    fn admit(&mut self, token_id: &str, digest: &str, node: &Node, id: NodeId, at_ms: u64) -> ClusterOutcome {
        let refused = |code, reason: &str| ClusterOutcome::Refused { code, reason: reason.to_owned() };
        let Some(token) = self.join_tokens.get(token_id).filter(|token| token.digest == digest) else {
            return refused(
                Code::Unauthenticated,
                "the join token is unknown, or was deleted or used up long ago",
            );
        };
        // A retry of a join that was admitted must succeed though its token is used up: it proves itself by the key.
        let known = self.nodes.iter().find(|(_, known)| known.public_key == node.public_key);
        if let Some((known, joined_at_ms)) = known.map(|(id, known)| (*id, known.joined_at_ms)) {
            if let Some(taken) = self.taken(&node.address, Some(known)) {
                return taken;
            }
            self.nodes.insert(known, Node { joined_at_ms, ..node.clone() });
            return ClusterOutcome::Admitted(known);
        }
        if token.expires_at_ms <= at_ms {
            return refused(Code::Unauthenticated, "the join token has expired: make another");
        }
        if token.uses_left == 0 {
            return refused(Code::Unauthenticated, "the join token is used up: make another");
        }
        if self.nodes.len() >= NODES_MAX {
            return refused(Code::Exhausted, "the cluster has 64 nodes, the most it can");
        }
        if let Some(taken) = self.taken(&node.address, None) {
            return taken;
        }
        if let Some(token) = self.join_tokens.get_mut(token_id) {
            token.uses_left -= 1;
        }
        self.nodes.insert(id, Node { joined_at_ms: at_ms, ..node.clone() });
        ClusterOutcome::Admitted(id)
    }

    /// The refusal, if a node other than `of` has this address.
    fn taken(&self, address: &str, of: Option<NodeId>) -> Option<ClusterOutcome> {
        let mut others = self.nodes.iter().filter(|(id, _)| Some(**id) != of);
        let (other, _) = others.find(|(_, other)| other.address == address)?;
        Some(ClusterOutcome::Refused {
            code: Code::Conflict,
            reason: format!("node {other} has the address {address} already: remove it first"),
        })
    }
}
