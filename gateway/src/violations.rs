//! What is wrong, gathered while compiling goes on, so that everything is told at once.

use model::Violation;

/// The violations found so far.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    /// One more, at `path`.
    pub(crate) fn add(&mut self, path: String, message: String) {
        self.0.push(Violation { path, message });
    }

    /// Several more.
    pub(crate) fn extend(&mut self, more: Vec<Violation>) {
        self.0.extend(more);
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub(crate) fn into_vec(self) -> Vec<Violation> {
        self.0
    }
}
