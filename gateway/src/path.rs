//! The path of a request made normal, once: what is matched, authorised and forwarded are the same bytes.

use std::borrow::Cow;

/// Why a path is refused before any route is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with `/`.
    #[error("the path does not begin with /")]
    Relative,
    /// A `%` without two hexadecimal digits after it.
    #[error("the path has a % without two hexadecimal digits after it")]
    Escape,
    /// `%2F`, `%5C`, `%00` or another control byte, encoded: servers differ in what they make of them.
    #[error("the path has an encoded slash, backslash or control byte")]
    Encoded,
    /// `%25` and two hexadecimal digits: a server behind might decode twice.
    #[error("the path is encoded twice")]
    Double,
    /// A backslash, `#`, white space, control byte or what is not ASCII, as it is.
    #[error("the path has a backslash, #, white space, control byte or what is not ASCII")]
    Forbidden,
}

/// The path (no query) with unreserved characters decoded once, dot segments removed (RFC 3986, section 5.2.4),
/// slashes merged, and escapes in upper case. Borrowed, with nothing allocated, where it was normal already.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, BadPath> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(BadPath::Relative);
    }
    if is_normal(bytes) {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(bytes)?;
    Ok(Cow::Owned(merge_slashes(&remove_dot_segments(&decoded))))
}

/// What a byte is to [`is_normal`].
const PLAIN: u8 = 0;
const SLASH: u8 = 1;
const DOT: u8 = 2;
const OTHER: u8 = 3;

static CLASS: [u8; 256] = {
    let mut class = [PLAIN; 256];
    let mut byte = 0;
    while byte < 256 {
        // Cast: the loop stops at 255.
        #[allow(clippy::cast_possible_truncation)]
        let this = byte as u8;
        if is_forbidden(this) || this == b'%' {
            class[byte] = OTHER;
        }
        byte += 1;
    }
    class[b'/' as usize] = SLASH;
    class[b'.' as usize] = DOT;
    class
};

/// Whether the path is certainly normal; false where a closer look is needed.
fn is_normal(bytes: &[u8]) -> bool {
    let mut before = PLAIN;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let class = CLASS[usize::from(byte)];
        if class != PLAIN {
            match class {
                // A dot that begins a segment may be a dot segment: `.well-known` is decided below, by what follows.
                SLASH | DOT if before == SLASH && !is_plain_dot(&bytes[at..]) => return false,
                SLASH | DOT => {}
                _ if is_normal_escape(&bytes[at..]) => at += 2,
                _ => return false,
            }
        }
        before = class;
        at += 1;
    }
    true
}

/// Whether `rest`, the beginning of a segment, is a dot and a character that makes it no dot segment.
fn is_plain_dot(rest: &[u8]) -> bool {
    matches!(rest, [b'.', next, ..] if CLASS[usize::from(*next)] == PLAIN)
}

/// Whether `rest` begins with an escape that stays as it is.
fn is_normal_escape(rest: &[u8]) -> bool {
    let upper = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    let [b'%', high, low, ..] = rest else { return false };
    let Some(byte) = unhex(*high, *low) else { return false };
    // What follows a `%25` is left to the closer look.
    upper(*high) && upper(*low) && byte != b'%' && !is_unreserved(byte) && !is_refused_encoded(byte)
}

const fn is_forbidden(byte: u8) -> bool {
    byte <= b' ' || byte >= 0x7f || matches!(byte, b'\\' | b'#' | b'?')
}

fn is_refused_encoded(byte: u8) -> bool {
    byte.is_ascii_control() || matches!(byte, b'/' | b'\\')
}

/// RFC 3986, section 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn unhex(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Decodes unreserved characters, once.
fn decode(bytes: &[u8]) -> Result<String, BadPath> {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let [high, low, tail @ ..] = rest else { return Err(BadPath::Escape) };
            let decoded = unhex(*high, *low).ok_or(BadPath::Escape)?;
            rest = tail;
            if is_refused_encoded(decoded) {
                return Err(BadPath::Encoded);
            } else if is_unreserved(decoded) {
                out.push(char::from(decoded));
            } else {
                push_escape(&mut out, decoded);
            }
        } else if is_forbidden(byte) {
            return Err(BadPath::Forbidden);
        } else {
            out.push(char::from(byte));
        }
    }
    // On what came out: `%25%32%66` is as double as `%252f`.
    let twice =
        |window: &[u8]| matches!(window, [b'%', b'2', b'5', high, low] if unhex(*high, *low).is_some());
    if out.as_bytes().windows(5).any(twice) { Err(BadPath::Double) } else { Ok(out) }
}

/// RFC 3986, section 5.2.4, for a path that begins with `/`.
fn remove_dot_segments(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    out.truncate(out.rfind('/').unwrap_or(0));
                }
                if last {
                    out.push('/');
                }
            }
            _ => {
                out.push('/');
                out.push_str(segment);
            }
        }
    }
    out
}

fn merge_slashes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !out.ends_with('/') {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_rule_of_the_promises_holds() {
        for (path, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("/%61%7Eb", "/a~b"),
            ("/a%20b%c3%a9", "/a%20b%C3%A9"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a/b/..", "/a/"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/a/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a/.../b", "/a/.../b"),
            ("/a..b/.c", "/a..b/.c"),
            ("/100%25", "/100%25"),
            ("/%25zz", "/%25zz"),
            ("/a;b=c,d", "/a;b=c,d"),
        ] {
            assert_eq!(normalise(path).as_deref(), Ok(normal), "{path}");
        }
    }

    #[test]
    fn what_servers_disagree_about_is_refused() {
        for (path, why) in [
            ("", BadPath::Relative),
            ("a", BadPath::Relative),
            ("*", BadPath::Relative),
            ("/%", BadPath::Escape),
            ("/%2", BadPath::Escape),
            ("/%zz", BadPath::Escape),
            ("/%+1", BadPath::Escape),
            ("/a%2fb", BadPath::Encoded),
            ("/a%5Cb", BadPath::Encoded),
            ("/a%00", BadPath::Encoded),
            ("/a%0d%0a", BadPath::Encoded),
            ("/%7f", BadPath::Encoded),
            ("/%252f", BadPath::Double),
            ("/%25%32%66", BadPath::Double),
            ("/%2541", BadPath::Double),
            ("/a\\b", BadPath::Forbidden),
            ("/a#b", BadPath::Forbidden),
            ("/a b", BadPath::Forbidden),
            ("/a\tb", BadPath::Forbidden),
            ("/a\u{7f}", BadPath::Forbidden),
            ("/a?b", BadPath::Forbidden),
            ("/é", BadPath::Forbidden),
        ] {
            assert_eq!(normalise(path), Err(why), "{path:?}");
        }
    }

    #[test]
    fn a_normal_path_is_borrowed() {
        for path in ["/", "/a/b/c.d", "/.well-known", "/a%20b", "/%C3%A9/x"] {
            assert!(matches!(normalise(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    proptest! {
        #[test]
        fn normal_is_normal(path in "/(([ab.%/]|%2[eEfF5]|%[26]1|%C3|\\.\\.|//){0,12})") {
            if let Ok(once) = normalise(&path) {
                let twice = normalise(&once);
                prop_assert_eq!(twice.as_deref(), Ok(&*once));
                prop_assert!(once.starts_with('/') && !once.contains("//") && once.is_ascii());
                prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."), "{}", once);
                if once == path {
                    prop_assert!(matches!(decode(path.as_bytes()), Ok(decoded) if decoded == path));
                }
            }
        }

        #[test]
        fn nothing_panics(path in ".*") {
            let _ = normalise(&path);
        }
    }
}
