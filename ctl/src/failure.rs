//! Why a command failed: an exit code for scripts, and a text with a hint for people.

use std::fmt;

use model::{Violation, api::Problem};

use crate::table::plain;

/// Refused or invalid.
pub(crate) const REFUSED: u8 = 1;
/// The command line itself is wrong.
pub(crate) const USAGE: u8 = 2;
/// There is no such thing.
pub(crate) const NOT_FOUND: u8 = 3;
/// It does not fit what is there now.
pub(crate) const CONFLICT: u8 = 4;
/// No node can be reached, or there is no quorum.
pub(crate) const UNAVAILABLE: u8 = 5;
/// It took too long, or whether it was done is not known.
pub(crate) const TIMEOUT: u8 = 6;
/// Who calls is not known, or may not.
pub(crate) const AUTH: u8 = 7;

/// Why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: u8,
    /// What happened.
    pub(crate) text: String,
    /// What was wrong, one by one.
    pub(crate) lines: Vec<String>,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

impl Failure {
    fn new(exit: u8, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), lines: Vec::new(), hint: None }
    }

    /// Refused, or wrong in its content.
    pub(crate) fn refused(text: impl Into<String>) -> Self {
        Self::new(REFUSED, text)
    }

    /// Wrong in the command line.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(USAGE, text)
    }

    /// It is there already, or was changed meanwhile.
    pub(crate) fn conflict(text: impl Into<String>) -> Self {
        Self::new(CONFLICT, text)
    }

    /// No node can be reached.
    pub(crate) fn unavailable(text: impl Into<String>) -> Self {
        Self::new(UNAVAILABLE, text)
    }

    /// Whether it was done is not known.
    pub(crate) fn unknown(text: impl Into<String>) -> Self {
        Self::new(TIMEOUT, text)
    }

    /// There is no such thing.
    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(NOT_FOUND, text)
    }

    /// With what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What a node answered, with `status`, where its body is no success.
    pub(crate) fn from_answer(status: u16, body: &[u8]) -> Self {
        let problem = serde_json::from_slice::<Problem>(body).ok();
        let code = problem.as_ref().map_or("", |problem| problem.code.as_str());
        let exit = match (status, code) {
            (401 | 403, _) => AUTH,
            (404, _) => NOT_FOUND,
            (409 | 412, _) => CONFLICT,
            (504, _) | (_, "timeout" | "timed_out") => TIMEOUT,
            (502 | 503, _) => UNAVAILABLE,
            _ => REFUSED,
        };
        let hint = match (exit, code) {
            (_, "removed") => Some("give another node's --address or --socket"),
            (_, "no_quorum") => Some("a majority of the nodes must run; see `gwctl cluster status`"),
            (AUTH, _) if status == 401 => {
                Some("see `gwctl context show`; a token may have expired or been deleted")
            }
            (AUTH, _) => Some("this needs a token of a higher role"),
            (CONFLICT, _) => Some("read it again, and repeat the change on what is there now"),
            (NOT_FOUND, _) => Some("`gwctl KIND list` shows what there is"),
            (UNAVAILABLE, _) => Some("see `gwctl cluster status`, and try again"),
            (TIMEOUT, _) => Some("it may have been done: look before you repeat it"),
            _ => None,
        };
        let mut failure = match problem {
            Some(problem) => {
                let mut text = problem.title;
                if !problem.detail.is_empty() {
                    text = format!("{text}: {}", problem.detail);
                }
                if !problem.request_id.is_empty() {
                    text = format!("{text} (request {})", problem.request_id);
                }
                let mut failure = Self::new(exit, text);
                failure.lines = problem.violations.iter().map(line).collect();
                failure
            }
            None => Self::new(exit, format!("the node answered {status} without a problem document")),
        };
        failure.hint = hint.map(str::to_owned);
        failure
    }
}

/// A violation in a line; one of the whole document has no path.
fn line(violation: &Violation) -> String {
    if violation.path.is_empty() { violation.message.clone() } else { violation.to_string() }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", plain(&self.text))?;
        for line in &self.lines {
            writeln!(f, "  - {}", plain(line))?;
        }
        match &self.hint {
            Some(hint) => writeln!(f, "hint: {}", plain(hint)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_exit_code_and_shows_every_violation() {
        for (status, exit) in [(400, 1), (401, 7), (403, 7), (404, 3), (409, 4), (412, 4), (503, 5), (504, 6)]
        {
            assert_eq!(Failure::from_answer(status, b"").exit, exit, "{status}");
        }
        let body = br#"{"type":"urn:phalanx:problem:invalid","title":"Invalid","status":400,"detail":"1 violation",
            "code":"invalid","violations":[{"path":"routes.a.upstream","message":"no such \u001b[31mupstream"}]}"#;
        let text = Failure::from_answer(400, body).to_string();
        assert!(text.contains("routes.a.upstream: no such"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
