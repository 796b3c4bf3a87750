//! Keeps the data plane's lease: asks a majority, again and again, whether what is served here is the newest.

use std::{sync::Arc, time::Duration};

use gateway::{Lease, Moment};
use model::Revision;
use raft::Consensus;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two questions; a small part of the shortest lease that a policy may ask for.
const INTERVAL: Duration = Duration::from_secs(1);
/// After one without an answer, and before the first.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// For a question to be answered, and what it says to be installed.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How old the last answer is when the log says so.
const ISOLATED_AFTER: Duration = Duration::from_secs(10);

/// Runs until told to stop.
pub(crate) async fn keep(
    consensus: Consensus,
    mut installed: watch::Receiver<Revision>,
    lease: Arc<Lease>,
    stop: CancellationToken,
) {
    let mut isolated = false;
    loop {
        let sent = Moment::now();
        let confirmed = tokio::select! {
            confirmed = confirm(&consensus, &mut installed) => confirmed,
            () = stop.cancelled() => return,
        };
        if confirmed {
            lease.confirm(sent);
        }
        let alone = lease.age().is_some_and(|age| age > ISOLATED_AFTER);
        match (isolated, alone) {
            (false, true) => tracing::warn!(
                "no majority has answered for {} s: what is served may be old, and policies with on_isolation: closed refuse",
                ISOLATED_AFTER.as_secs()
            ),
            (true, false) => tracing::info!("a majority answers again"),
            _ => {}
        }
        isolated = alone;
        tokio::select! {
            () = tokio::time::sleep(if confirmed { INTERVAL } else { RETRY_INTERVAL }) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Whether everything that was committed by now is served here.
async fn confirm(consensus: &Consensus, installed: &mut watch::Receiver<Revision>) -> bool {
    let confirming = async {
        consensus.read_barrier(TIMEOUT).await.ok()?;
        let newest = consensus.config().borrow().revision;
        installed.wait_for(|installed| *installed >= newest).await.ok().map(drop)
    };
    tokio::time::timeout(TIMEOUT, confirming).await.is_ok_and(|confirmed| confirmed.is_some())
}
