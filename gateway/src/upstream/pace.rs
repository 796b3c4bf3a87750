//! How long a response's body may be silent, and when it must have ended.

use std::{rc::Rc, task::Context, time::Duration};

use crate::{timer, worker::Worker};

/// The time limits of one response's body.
pub(crate) struct Pace {
    worker: Rc<Worker>,
    idle_ms: u64,
    /// When the exchange must have ended, as [`timer::now_ms`].
    end_ms: u64,
    /// Until when the next part is waited for; 0 while none is.
    until_ms: u64,
    slot: Option<usize>,
}

impl Pace {
    /// With so long a silence (zero for any) and this end, as [`timer::now_ms`].
    pub(crate) fn new(worker: Rc<Worker>, idle: Duration, end_ms: Option<u64>) -> Self {
        let idle_ms = if idle.is_zero() { u64::MAX } else { timer::millis(idle) };
        Self { worker, idle_ms, end_ms: end_ms.unwrap_or(u64::MAX), until_ms: 0, slot: None }
    }

    /// Whether the time is over. To be asked each time that the body is: with whether it had a part to give.
    pub(crate) fn is_over(&mut self, pending: bool, cx: &Context<'_>) -> bool {
        if !pending {
            self.until_ms = 0;
            return self.end_ms != u64::MAX && timer::now_ms() >= self.end_ms;
        }
        let now_ms = timer::now_ms();
        if self.until_ms == 0 {
            self.until_ms = now_ms.saturating_add(self.idle_ms).min(self.end_ms);
        }
        if now_ms >= self.until_ms {
            return true;
        }
        if self.until_ms != u64::MAX {
            self.worker.deadlines.set(&mut self.slot, self.until_ms, cx.waker());
        }
        false
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.worker.deadlines.unset(&mut self.slot);
    }
}
