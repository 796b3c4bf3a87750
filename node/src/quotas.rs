//! Has the nodes agree on what was used of quotas, so that it outlives them.
//!
//! Every few seconds a node tells the group what it has counted since, in one entry of the log for a thousand keys, however many requests
//! there were. So all nodes together can lose what they have counted in that time, and no more; as long as one of them runs it knows
//! what the others had counted, and reports that in their place.

use std::{sync::Arc, time::Duration};

use raft::Consensus;
use tokio_util::sync::CancellationToken;

use crate::{counters::View, tokens};

/// Between two reports.
const INTERVAL: Duration = Duration::from_secs(5);
/// For a report to be agreed on.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same at the end.
const LAST_TIMEOUT: Duration = Duration::from_secs(2);
/// Keys in a report.
const ITEMS_MAX: usize = 1_000;
/// Reports that follow each other, at the most; what is left goes with the next.
const REPORTS_MAX: usize = 10;

/// Runs until told to stop.
pub(crate) async fn keep(consensus: Consensus, view: Arc<View>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
        view.end_periods();
        report(&consensus, &view).await;
    }
}

/// Reports what was not reported yet before the node stops, which waits for no more than a moment.
pub(crate) async fn report_last(consensus: &Consensus, view: &View) {
    if tokio::time::timeout(LAST_TIMEOUT, report(consensus, view)).await.is_err() {
        tracing::warn!("what was used of quotas last is not agreed on: no majority answers");
    }
}

/// Reports what was not reported yet.
async fn report(consensus: &Consensus, view: &View) {
    if view.me().0 == 0 {
        // Nobody has said yet which start of which node this is.
        return;
    }
    let agreed = consensus.usage().borrow().clone();
    let unreported = view.unreported(&agreed);
    // Where there are more than can be told at once, those that wait come first the next time but for chance.
    let reports = unreported.len().div_ceil(ITEMS_MAX);
    let skipped = if reports > REPORTS_MAX { usize::from(tokens::random::<1>()[0]) % reports } else { 0 };
    for items in unreported.chunks(ITEMS_MAX).cycle().skip(skipped).take(reports.min(REPORTS_MAX)) {
        if let Err(error) = consensus.report_usage(items.to_vec(), TIMEOUT).await {
            // It is tried again with the next; meanwhile nodes tell each other all the same.
            tracing::debug!(%error, "what was used of quotas is not agreed on yet");
            return;
        }
    }
}
