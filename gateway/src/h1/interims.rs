//! Interim responses of targets on their way to a client (RFC 9110, section 15.2).

use std::cell::RefCell;

/// What targets have said before the answer and nobody has written yet: whole heads, as bytes. Empty, and without memory of its own, for nearly
/// all exchanges.
#[derive(Debug, Default)]
pub(crate) struct Interims(RefCell<Vec<u8>>);

impl Interims {
    /// Adds a head, which `write` writes.
    pub(crate) fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.0.borrow_mut());
    }

    /// All there are.
    pub(super) fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}
