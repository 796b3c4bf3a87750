//! The framing of a chunked body, byte by byte, up to the end of the last chunk's line (RFC 9112, section 7.1).

/// The most bytes of chunk extensions in one message.
pub(crate) const EXTENSION_BYTES_MAX: usize = 1024;
/// The most digits of a chunk's size: far above anything real, far below overflow.
const SIZE_DIGITS_MAX: u8 = 15;

/// Where a chunk's line, or the end of its data, has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the size.
    Size { digits: u8 },
    /// In white space that only a `;` may end.
    Gap,
    /// After a `;`.
    NameStart,
    /// In the name of an extension.
    Name,
    /// In white space after a name.
    NameGap,
    /// After a `=`.
    ValueStart,
    /// In a value that is a token.
    Token,
    /// In a value in quotes.
    Quoted,
    /// After a backslash in quotes.
    Escaped,
    /// After a value's closing quote.
    QuotedEnd,
    /// At the LF that ends the line.
    LineEnd,
    /// At the CR that ends the data.
    DataCr,
    /// At the LF that ends the data.
    DataLf,
}

/// What a byte leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// More of the same line, or the next chunk's.
    Line,
    /// So many bytes of data, 1 at least.
    Data(u64),
    /// The last chunk's line has ended.
    Last,
}

/// The chunks of one message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunks {
    place: Place,
    size: u64,
    extension_bytes: usize,
}

impl Chunks {
    /// Before the first.
    pub(crate) fn new() -> Self {
        Self { place: Place::Size { digits: 0 }, size: 0, extension_bytes: 0 }
    }

    /// All data of a chunk has come; its end follows.
    pub(crate) fn data_ended(&mut self) {
        self.place = Place::DataCr;
    }

    /// Takes one byte that is no data; none if it must not be there.
    pub(crate) fn byte(&mut self, byte: u8) -> Option<Step> {
        let (place, byte) = (self.place, byte);
        if !matches!(place, Place::Size { .. } | Place::LineEnd | Place::DataCr | Place::DataLf) {
            self.extension_bytes += 1;
            if self.extension_bytes > EXTENSION_BYTES_MAX {
                return None;
            }
        }
        self.place = match (place, byte) {
            (Place::Size { digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < SIZE_DIGITS_MAX => {
                self.size = self.size << 4 | u64::from(char::from(byte).to_digit(16)?);
                Place::Size { digits: digits + 1 }
            }
            (Place::Size { digits: 1.. } | Place::Name | Place::Token | Place::QuotedEnd, b'\r') => {
                Place::LineEnd
            }
            (
                Place::Size { digits: 1.. }
                | Place::Gap
                | Place::Name
                | Place::NameGap
                | Place::Token
                | Place::QuotedEnd,
                b';',
            ) => Place::NameStart,
            // White space around `;` and `=` is bad, and to be taken all the same (RFC 9110, section 5.6.3).
            (Place::Size { digits: 1.. } | Place::Gap | Place::Token | Place::QuotedEnd, b' ' | b'\t') => {
                Place::Gap
            }
            (Place::Name | Place::NameGap, b' ' | b'\t') => Place::NameGap,
            (Place::NameStart | Place::ValueStart, b' ' | b'\t') => place,
            (Place::Name | Place::NameGap, b'=') => Place::ValueStart,
            (Place::NameStart | Place::Name, byte) if is_token(byte) => Place::Name,
            (Place::ValueStart | Place::Token, byte) if is_token(byte) => Place::Token,
            (Place::ValueStart, b'"') => Place::Quoted,
            (Place::Quoted, b'"') => Place::QuotedEnd,
            (Place::Quoted, b'\\') => Place::Escaped,
            (Place::Quoted | Place::Escaped, b'\t' | b' '..=b'~' | 0x80..) => Place::Quoted,
            (Place::LineEnd, b'\n') => {
                let size = std::mem::take(&mut self.size);
                self.place = Place::Size { digits: 0 };
                return Some(if size == 0 { Step::Last } else { Step::Data(size) });
            }
            (Place::DataCr, b'\r') => Place::DataLf,
            (Place::DataLf, b'\n') => Place::Size { digits: 0 },
            _ => return None,
        };
        Some(Step::Line)
    }
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the line of a chunk of 5 bytes comes to.
    fn line(extension: &str) -> Option<Step> {
        let mut chunks = Chunks::new();
        format!("5{extension}\r\n").bytes().try_fold(Step::Line, |_, byte| chunks.byte(byte))
    }

    #[test]
    fn extensions_are_names_and_values() {
        for extension in
            ["", ";a", ";a=b", ";a;b=c", ";a=\"x;y, \\\"\"", " ;a", "\t; a\t=\t\"\" ;b", ";a=b ;c", ";!=~"]
        {
            assert_eq!(line(extension), Some(Step::Data(5)), "{extension:?}");
        }
        for extension in [
            " ",
            ";",
            "; ",
            ";;a",
            ";a;",
            ";a=",
            ";a= ",
            ";=b",
            ";a=b=c",
            ";a b",
            ";a[b",
            ";a=\"b",
            ";a=\"b\"c",
            ";a=\"\x01\"",
            ";a ",
            ";a=b ",
            ";a=\"b\" ",
            ";a\rb",
            ";é",
            ";a=\"b\\\x7f\"",
            " a",
        ] {
            assert_eq!(line(extension), None, "{extension:?}");
        }
    }

    #[test]
    fn sizes_are_hexadecimal_digits_and_not_too_many() {
        let size = |text: &str| {
            let mut chunks = Chunks::new();
            text.bytes().try_fold(Step::Line, |_, byte| chunks.byte(byte))
        };
        assert_eq!(size("0\r\n"), Some(Step::Last));
        assert_eq!(size("000\r\n"), Some(Step::Last));
        assert_eq!(size("1fF\r\n"), Some(Step::Data(0x1ff)));
        assert_eq!(size("fffffffffffffff\r\n"), Some(Step::Data(0x0fff_ffff_ffff_ffff)));
        for text in ["\r\n", "g\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "1\n", "1\rx", "0000000000000000\r\n"] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }
}
