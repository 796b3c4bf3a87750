//! What can be wrong with a message as it comes.

use crate::settings::Limit;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A line that ends in LF alone, or in the middle of which there is a CR.
    LineEnd,
    /// A header line that begins with white space, or has some before its colon.
    WhiteSpace,
    /// Content-Length that is no plain number, or more than one.
    ContentLength,
    /// Transfer-Encoding that is not exactly `chunked`, more than one, or in HTTP/1.0.
    TransferEncoding,
    /// Content-Length and Transfer-Encoding.
    Both,
    /// A chunk's size, extension or end.
    Chunk,
    /// A `#` in a request line: no part of a request target (RFC 9112, section 3.2), and cut off by some parsers.
    Fragment,
    /// A first line that is none, or a header line without a name or with a byte that may not be in it.
    Syntax,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// A byte above 127 in a request line, where a URI has none (RFC 3986, section 2).
    NotAscii,
    /// A method that is too long.
    MethodTooLong,
    /// A request target that is too long.
    TargetTooLong,
    /// Header lines that are too many.
    HeadersTooMany,
    /// A head, or trailers, that are too large.
    HeadTooLarge,
    /// Bytes sent ahead of the answer to an upgrade: nobody can know what they are.
    Ahead,
}

impl Fault {
    /// The limit of the settings that it is about; none if it is one of the rules.
    pub(crate) fn limit(self) -> Option<Limit> {
        match self {
            Self::HeadTooLarge => Some(Limit::HeadBytes),
            Self::HeadersTooMany => Some(Limit::Headers),
            Self::TargetTooLong => Some(Limit::TargetBytes),
            _ => None,
        }
    }

    /// What the client is told.
    pub(crate) fn detail(self) -> &'static str {
        match self {
            Self::LineEnd => "A line of the head does not end in CR LF, or has a CR in it",
            Self::WhiteSpace => "A header line begins with white space, or has some before its colon",
            Self::ContentLength => "Content-Length is no plain number, or is there more than once",
            Self::TransferEncoding => "Transfer-Encoding is not exactly chunked, or is in HTTP/1.0",
            Self::Both => "There are both Content-Length and Transfer-Encoding",
            Self::Chunk => "The body is framed badly",
            Self::Fragment => "The request target has a #",
            Self::Syntax => "The request's head is no HTTP/1.1",
            Self::Version => "This version of HTTP is not served here",
            Self::NotAscii => "The request line has a byte that is not ASCII",
            Self::MethodTooLong => "The method is too long",
            Self::TargetTooLong => "The request target is too long",
            Self::HeadersTooMany => "There are too many header lines",
            Self::HeadTooLarge => "The head is too large",
            Self::Ahead => "More was sent before the answer to an upgrade had come",
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail())
    }
}

impl std::error::Error for Fault {}
