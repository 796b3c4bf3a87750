//! The nine outcomes of anything that can be refused, and their tables.

/// Why something was refused, or that it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Done.
    Ok,
    /// The request itself is wrong.
    Invalid,
    /// Who calls is not known.
    Unauthenticated,
    /// Who calls is known, and may not.
    Denied,
    /// There is no such thing.
    NotFound,
    /// It does not fit what is there now.
    Conflict,
    /// Too much of it.
    Exhausted,
    /// It can't be done now; later it may.
    Unavailable,
    /// It took too long.
    Timeout,
}

impl Code {
    /// The HTTP status (RFC 9110, section 15; 429 is RFC 6585, section 4).
    pub fn http_status(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Exhausted => 429,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }

    /// The gRPC status code (grpc/doc/statuscodes.md).
    pub fn grpc_status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Invalid => 3,
            Self::Unauthenticated => 16,
            Self::Denied => 7,
            Self::NotFound => 5,
            Self::Conflict => 10,
            Self::Exhausted => 8,
            Self::Unavailable => 14,
            Self::Timeout => 4,
        }
    }

    /// The word in logs, metrics and problem documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
        }
    }

    /// The code whose word this is.
    pub fn parse(word: &str) -> Option<Self> {
        use Code::{
            Conflict, Denied, Exhausted, Invalid, NotFound, Ok, Timeout, Unauthenticated, Unavailable,
        };
        [Ok, Invalid, Unauthenticated, Denied, NotFound, Conflict, Exhausted, Unavailable, Timeout]
            .into_iter()
            .find(|code| code.as_str() == word)
    }
}
