//! How the group keeps time, and what of it openraft is told.

use std::time::Duration;

use crate::Error;

/// How the group keeps time.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between the leader's heartbeats.
    pub heartbeat: Duration,
    /// The shortest silence of the leader after which another stands for election.
    pub election_min: Duration,
    /// The longest.
    pub election_max: Duration,
    /// For a whole snapshot to be sent and installed.
    pub snapshot_timeout: Duration,
    /// Entries after which the log is cut behind a new snapshot.
    pub snapshot_after_entries: u64,
    /// Entries that the cut log keeps, for those who are a little behind.
    pub log_kept_entries: u64,
    /// How long a learner must have been up to date before it votes.
    pub promote_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_secs(1),
            election_max: Duration::from_secs(2),
            snapshot_timeout: Duration::from_secs(60),
            snapshot_after_entries: 10_000,
            log_kept_entries: 1_000,
            promote_after: Duration::from_secs(10),
        }
    }
}

impl Settings {
    pub(super) fn openraft(&self, cluster_id: &str) -> Result<openraft::Config, Error> {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name: cluster_id.to_owned(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            install_snapshot_timeout: ms(self.snapshot_timeout),
            snapshot_policy: openraft::SnapshotPolicy::LogsSinceLast(self.snapshot_after_entries),
            max_in_snapshot_log_to_keep: self.log_kept_entries,
            enable_pre_vote: Some(true),
            // An entry goes to the others before it is on the leader's own disk. A leader that lost it in a crash and led on
            // in the same term would put another in its place, under the same log id (docs/adr/0009).
            enable_leader_restore: Some(false),
            ..openraft::Config::default()
        }
        .validate()
        .map_err(|error| Error::Fatal(format!("the group's timing is impossible: {error}")))
    }
}
