//! What can go wrong with consensus and its storage.

use std::{io, path::PathBuf, time::Duration};

use model::{Code, Revision, Violation};

/// What can go wrong with consensus and its storage.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A file is damaged, foreign or older than it was; the node must not start.
    #[error("{}: {place}: {reason}", file.display())]
    Storage {
        /// Which file.
        file: PathBuf,
        /// Where in it.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A file can't be read or written.
    #[error("{}: {reason}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// There is no leader that a majority follows; nothing was proposed.
    #[error("no quorum: no leader that a majority of the voters follows; nothing was changed")]
    NoQuorum,
    /// No answer in time; it may have happened or may yet.
    #[error(
        "no answer within {0:?}: the change may have been made or may yet be; ask with the same idempotency key"
    )]
    TimedOut(Duration),
    /// The change breaks rules; nothing was proposed.
    #[error("{} violations, the first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Invalid(Vec<Violation>),
    /// An object or the config is not at the revision that was expected; nothing changed.
    #[error("{what}; the config is at revision {current}")]
    Conflict {
        /// What did not fit.
        what: String,
        /// The config's revision.
        current: Revision,
    },
    /// The change can't be made for another reason.
    #[error("{reason}")]
    Refused {
        /// In which way.
        code: Code,
        /// Why.
        reason: String,
    },
    /// Consensus has stopped; the process must end.
    #[error("consensus has stopped: {0}")]
    Fatal(String),
}

impl Error {
    /// Which of the nine outcomes it is.
    pub fn code(&self) -> Code {
        match self {
            Self::Storage { .. } | Self::Io { .. } | Self::NoQuorum | Self::Fatal(_) => Code::Unavailable,
            Self::TimedOut(_) => Code::Timeout,
            Self::Invalid(_) => Code::Invalid,
            Self::Conflict { .. } => Code::Conflict,
            Self::Refused { code, .. } => *code,
        }
    }

    pub(crate) fn io(file: impl Into<PathBuf>, error: &io::Error) -> Self {
        Self::Io { file: file.into(), reason: error.to_string() }
    }

    pub(crate) fn damaged(
        file: impl Into<PathBuf>,
        place: impl Into<String>,
        reason: impl Into<String>,
    ) -> Self {
        Self::Storage { file: file.into(), place: place.into(), reason: reason.into() }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}
