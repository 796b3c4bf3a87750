//! A path pattern compiled, and its shape: what the router needs to find it without trying every other one.

use std::fmt;

use compact_str::CompactString;
use model::route::PathMatch;
use regex::Regex;

use super::matcher;
use crate::{path, violations::Violations};

/// The most segments that a prefix or template may have; the router sets a place aside for each.
pub(crate) const SEGMENTS_MAX: usize = 63;

/// What the normalised path must be. Short texts lie in their place and not behind a pointer, since a look-up among 100,000 routes finds
/// nothing in a cache.
#[derive(Debug)]
pub(crate) enum PathPattern {
    /// These bytes.
    Exact(CompactString),
    /// These segments first; without a trailing slash, so that `/` is empty.
    Prefix(CompactString),
    /// These segments, with wildcards.
    Template(Box<Template>),
    /// The whole path by expression.
    Regex(Box<Regex>),
}

/// The segments of a template.
#[derive(Debug)]
pub(crate) struct Template {
    text: Box<str>,
    segments: Box<[Segment]>,
}

#[derive(Debug, PartialEq, Eq)]
enum Segment {
    /// These bytes.
    Literal(Box<str>),
    /// Any one that is not empty.
    One,
    /// All that is left, at least the slash before it. Only at the end.
    Rest,
}

/// What patterns that are found by one look have in common. Their order is that of precedence, the first first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shape {
    /// Exact paths.
    Exact,
    /// Templates whose literals and wildcards stand in these places: two bits a segment from the left, 1 a literal,
    /// 2 a wildcard, 3 the rest. Of two that take the same path, the one whose literals begin sooner goes first. The bytes of a number, the
    /// highest first: a number of so many bits would have to be aligned to 16 bytes, and a shape would take twice the memory.
    Template([u8; 16]),
    /// Prefixes of 63 less this many segments, so that the longer goes first.
    Prefix(u8),
}

impl Shape {
    /// Of a prefix this deep.
    pub(crate) fn prefix(depth: usize) -> Self {
        Self::Prefix(u8::try_from(SEGMENTS_MAX.saturating_sub(depth)).unwrap_or(0))
    }

    /// The kinds of a template's segments.
    pub(crate) fn kinds(code: [u8; 16]) -> impl Iterator<Item = u8> {
        let code = u128::from_be_bytes(code);
        (0..=SEGMENTS_MAX)
            .map(move |place| (code >> (126 - 2 * place) & 3) as u8)
            .take_while(|kind| *kind != 0)
    }
}

impl PathPattern {
    pub(crate) fn compile(spec: Option<&PathMatch>, path: &str, violations: &mut Violations) -> Option<Self> {
        let mut normal = |field: &str, text: &str| {
            let bad = |error: path::BadPath| violations.add(format!("{path}.{field}"), error.to_string());
            path::normalise(text).map_err(bad).ok().map(|text| CompactString::from(&*text))
        };
        match spec {
            None => Some(Self::Prefix(CompactString::default())),
            Some(PathMatch::Exact(text)) => normal("exact", text).map(Self::Exact),
            Some(PathMatch::Prefix(text)) => {
                let mut prefix = normal("prefix", text)?;
                if prefix.ends_with('/') {
                    prefix.pop();
                }
                if depth(&prefix) > SEGMENTS_MAX {
                    let message = format!("has more than {SEGMENTS_MAX} segments");
                    violations.add(format!("{path}.prefix"), message);
                    return None;
                }
                Some(Self::Prefix(prefix))
            }
            Some(PathMatch::Template(text)) => match Template::parse(text) {
                Ok(template) => Some(Self::Template(Box::new(template))),
                Err(message) => {
                    violations.add(format!("{path}.template"), message);
                    None
                }
            },
            Some(PathMatch::Regex(text)) => {
                let regex = matcher::regex(text, &format!("{path}.regex"), violations)?;
                Some(Self::Regex(Box::new(regex)))
            }
        }
    }

    /// Its shape; none for an expression, which is found by trying.
    pub(crate) fn shape(&self) -> Option<Shape> {
        match self {
            Self::Exact(_) => Some(Shape::Exact),
            Self::Template(template) => Some(Shape::Template(template.code())),
            Self::Prefix(prefix) => Some(Shape::prefix(depth(prefix))),
            Self::Regex(_) => None,
        }
    }

    /// The pieces by which it is looked up among its shape.
    pub(crate) fn literals(&self) -> Vec<&str> {
        match self {
            Self::Exact(text) | Self::Prefix(text) => vec![text],
            Self::Template(template) => template.segments.iter().filter_map(Segment::literal).collect(),
            Self::Regex(_) => Vec::new(),
        }
    }

    /// Whether the normalised path is as it says.
    pub(crate) fn takes(&self, path: &str) -> bool {
        match self {
            Self::Exact(want) => want == path,
            Self::Prefix(want) => {
                path.strip_prefix(want.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Template(template) => template.takes(path),
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// Bytes of an expression: the longer goes first.
    pub(crate) fn regex_len(&self) -> usize {
        if let Self::Regex(regex) = self { regex.as_str().len() } else { 0 }
    }

    /// The prefix without trailing slash, if it is one.
    pub(crate) fn prefix(&self) -> Option<&str> {
        if let Self::Prefix(prefix) = self { Some(prefix) } else { None }
    }

    /// The first literal segment, to tell what is near.
    pub(crate) fn first_segment(&self) -> Option<&str> {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text.split('/').nth(1),
            Self::Template(template) => template.segments.first().and_then(Segment::literal),
            Self::Regex(_) => None,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "exact {text}"),
            Self::Prefix(text) if text.is_empty() => f.write_str("prefix /"),
            Self::Prefix(text) => write!(f, "prefix {text}"),
            Self::Template(template) => write!(f, "template {}", template.text),
            Self::Regex(regex) => write!(f, "regex {}", matcher::unwrapped(regex)),
        }
    }
}

impl Segment {
    fn literal(&self) -> Option<&str> {
        if let Self::Literal(text) = self { Some(text) } else { None }
    }
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        let Some(rest) = text.strip_prefix('/') else { return Err("does not begin with /".to_owned()) };
        let mut names = std::collections::BTreeSet::new();
        let mut pieces = rest.split('/').peekable();
        while let Some(piece) = pieces.next() {
            let name = piece.strip_prefix('{').and_then(|piece| piece.strip_suffix('}'));
            let Some(name) = name else {
                if piece.contains(['{', '}']) {
                    return Err(format!("{piece:?}: braces must hold a whole segment"));
                }
                let whole = format!("/{piece}");
                let normal = path::normalise(&whole).map_err(|error| error.to_string())?;
                if normal == "/" && pieces.peek().is_some() || piece == "." || piece == ".." {
                    return Err("has empty or dot segments".to_owned());
                }
                segments.push(Segment::Literal(normal[1..].into()));
                continue;
            };
            let (name, segment) = match name.strip_suffix("...") {
                Some(name) => (name, Segment::Rest),
                None => (name, Segment::One),
            };
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                return Err(format!("{piece:?}: a name is letters, digits and _"));
            }
            if segment == Segment::Rest && pieces.peek().is_some() {
                return Err(format!("{piece:?}: only the last segment can be the rest"));
            }
            if !names.insert(name) {
                return Err(format!("{piece:?} is there twice"));
            }
            segments.push(segment);
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(format!("has more than {SEGMENTS_MAX} segments"));
        }
        Ok(Self { text: text.into(), segments: segments.into() })
    }

    fn code(&self) -> [u8; 16] {
        let code = self.segments.iter().enumerate().fold(0u128, |code, (place, segment)| {
            let kind: u128 = match segment {
                Segment::Literal(_) => 1,
                Segment::One => 2,
                Segment::Rest => 3,
            };
            code | kind << (126 - 2 * place)
        });
        code.to_be_bytes()
    }

    fn takes(&self, path: &str) -> bool {
        let mut have = path.split('/').skip(1);
        for segment in &self.segments {
            match (segment, have.next()) {
                (Segment::Literal(want), Some(have)) if **want == *have => {}
                (Segment::One, Some(have)) if !have.is_empty() => {}
                (Segment::Rest, Some(_)) => return true,
                _ => return false,
            }
        }
        have.next().is_none()
    }
}

/// How many segments a prefix without trailing slash has.
fn depth(prefix: &str) -> usize {
    prefix.bytes().filter(|byte| *byte == b'/').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Result<PathPattern, String> {
        let mut violations = Violations::default();
        let spec = serde_json::from_str(text).unwrap();
        PathPattern::compile(Some(&spec), "p", &mut violations)
            .ok_or_else(|| violations.into_vec().remove(0).to_string())
    }

    #[test]
    fn each_kind_of_pattern_takes_what_it_says() {
        for (text, takes, leaves) in [
            (r#"{"exact":"/a/%7eb"}"#, &["/a/~b"][..], &["/a/~b/", "/a"][..]),
            (r#"{"prefix":"/a"}"#, &["/a", "/a/", "/a/b"], &["/ab", "/", "/b/a"]),
            (r#"{"prefix":"/a/"}"#, &["/a", "/a/", "/a/b"], &["/ab"]),
            (r#"{"prefix":"/"}"#, &["/", "/x"], &[]),
            (r#"{"template":"/a/{id}"}"#, &["/a/1"], &["/a", "/a/", "/a/1/", "/a/1/2", "/b/1"]),
            (r#"{"template":"/a/{id}/b"}"#, &["/a/1/b"], &["/a/1", "/a//b"]),
            (r#"{"template":"/a/{rest...}"}"#, &["/a/", "/a/1", "/a/1/2/"], &["/a", "/b/1"]),
            (r#"{"template":"/a/{id}/"}"#, &["/a/1/"], &["/a/1"]),
            (r#"{"regex":"/v[0-9]+/.*"}"#, &["/v1/", "/v22/x"], &["/a/v1/", "/v1"]),
            (r#"{"regex":"/a|/b"}"#, &["/a", "/b"], &["/ab", "/x/b"]),
        ] {
            let pattern = pattern(text).unwrap();
            for path in takes {
                assert!(pattern.takes(path), "{text} {path}");
            }
            for path in leaves {
                assert!(!pattern.takes(path), "{text} {path}");
            }
        }
    }

    #[test]
    fn a_pattern_that_can_never_be_met_is_refused() {
        for text in [
            r#"{"exact":"a"}"#,
            r#"{"prefix":"/a%2fb"}"#,
            r#"{"template":"a"}"#,
            r#"{"template":"/a/{id}.json"}"#,
            r#"{"template":"/{rest...}/a"}"#,
            r#"{"template":"/{a}/{a}"}"#,
            r#"{"template":"/a//b"}"#,
            r#"{"template":"/a/../b"}"#,
            r#"{"template":"/{}"}"#,
            r#"{"regex":"("}"#,
        ] {
            assert!(pattern(text).unwrap_err().starts_with("p."), "{text}");
        }
        assert!(pattern(&format!(r#"{{"prefix":"{}"}}"#, "/a".repeat(63))).is_ok());
        assert!(pattern(&format!(r#"{{"prefix":"{}"}}"#, "/a".repeat(64))).is_err());
        assert!(pattern(&format!(r#"{{"template":"{}"}}"#, "/a".repeat(64))).is_err());
    }

    #[test]
    fn shapes_are_in_the_order_of_precedence() {
        let shapes: Vec<Shape> = [
            r#"{"exact":"/a"}"#,
            r#"{"template":"/a/b"}"#,
            r#"{"template":"/a/{x}"}"#,
            r#"{"template":"/a/{x...}"}"#,
            r#"{"template":"/{x}/b"}"#,
            r#"{"prefix":"/a/b"}"#,
            r#"{"prefix":"/a"}"#,
            r#"{"prefix":"/"}"#,
        ]
        .iter()
        .map(|text| pattern(text).unwrap().shape().unwrap())
        .collect();
        assert!(shapes.is_sorted_by(|a, b| a < b), "{shapes:?}");
    }
}
