//! The wait for the first answer to the names of an upstream's targets.

use std::{pin::pin, rc::Rc, sync::Arc};

use crate::{plan::CompiledUpstream, worker::Worker};

/// The upstream as it is once its names were looked up; as it was if that takes longer than a connection may. A request that comes before
/// that obeys the Plan in which its upstream has somewhere to go.
pub(crate) async fn resolved(worker: &Rc<Worker>, upstream: Arc<CompiledUpstream>) -> Arc<CompiledUpstream> {
    let waiting = async {
        loop {
            let mut told = pin!(upstream.state.resolved.notified());
            // Before the look at the Plan, so that nothing happens between the two.
            told.as_mut().enable();
            match worker.plan().upstream(&upstream.name) {
                Some(newest) if newest.is_awaited => {}
                newest => return newest.cloned(),
            }
            told.await;
        }
    };
    let newest = worker.deadlines.within(upstream.spec.timeout.connect, pin!(waiting)).await;
    newest.flatten().unwrap_or(upstream)
}
