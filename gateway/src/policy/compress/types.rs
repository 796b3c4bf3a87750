//! Media types that are worth compressing.

use http::HeaderValue;

use crate::violations::Violations;

/// The most that a policy may name.
const TYPES_MAX: usize = 64;
/// Of what is compressed unless a policy says otherwise: text in all its forms. Images, films, archives and most fonts are compressed
/// already.
const USUAL: [&str; 19] = [
    "text/*",
    "+json",
    "+xml",
    "+yaml",
    "application/json",
    "application/x-ndjson",
    "application/json-seq",
    "application/javascript",
    "application/x-javascript",
    "application/xml",
    "application/yaml",
    "application/graphql",
    "application/wasm",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
    "image/bmp",
    "image/x-icon",
    "image/vnd.microsoft.icon",
];
/// It compresses its messages itself, each by its own; around that nothing is gained, and its framing would be buried.
const GRPC: &[u8] = b"application/grpc";

/// Media types.
#[derive(Debug)]
pub(super) struct Types(Box<[Type]>);

#[derive(Debug)]
enum Type {
    /// `*/*`.
    Any,
    /// `text/*`, here with the slash.
    Of(Box<[u8]>),
    /// `+json` (RFC 6839).
    Suffix(Box<[u8]>),
    Exact(Box<[u8]>),
}

impl Types {
    pub(super) fn usual() -> Self {
        Self(USUAL.iter().filter_map(|text| Type::read(text)).collect())
    }

    pub(super) fn compile(texts: &[String], path: &str, violations: &mut Violations) -> Self {
        if texts.is_empty() || texts.len() > TYPES_MAX {
            violations.add(path.to_owned(), format!("must have 1 to {TYPES_MAX}"));
        }
        let mut types = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match Type::read(text) {
                Some(one) => types.push(one),
                None => {
                    let message = format!("{text:?} is no media type: write text/html, text/*, +json or */*");
                    violations.add(format!("{path}[{index}]"), message);
                }
            }
        }
        Self(types.into())
    }

    /// Whether a body of this `Content-Type` is to be compressed.
    pub(super) fn take(&self, kind: &HeaderValue) -> bool {
        let kind = kind.as_bytes();
        let essence = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        !begins(essence, GRPC) && self.0.iter().any(|one| one.takes(essence))
    }
}

fn begins(text: &[u8], with: &[u8]) -> bool {
    text.get(..with.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(with))
}

impl Type {
    fn read(text: &str) -> Option<Self> {
        let is_token = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        if let Some(suffix) = text.strip_prefix('+') {
            return is_token(suffix).then(|| Self::Suffix(text.as_bytes().into()));
        }
        match text.split_once('/')? {
            ("*", "*") => Some(Self::Any),
            (kind, "*") => is_token(kind).then(|| Self::Of(format!("{kind}/").into_bytes().into())),
            (kind, subtype) => {
                (is_token(kind) && is_token(subtype)).then(|| Self::Exact(text.as_bytes().into()))
            }
        }
    }

    fn takes(&self, essence: &[u8]) -> bool {
        match self {
            Self::Any => essence.contains(&b'/'),
            Self::Of(kind) => begins(essence, kind),
            Self::Suffix(suffix) => {
                let at = essence.len().checked_sub(suffix.len());
                at.and_then(|at| essence.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
            Self::Exact(exact) => essence.eq_ignore_ascii_case(exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_compressed_and_what_is_so_already_is_not() {
        let types = Types::usual();
        assert_eq!(types.0.len(), USUAL.len());
        for (kind, takes) in [
            ("text/html; charset=utf-8", true),
            ("TEXT/CSS", true),
            ("text/event-stream", true),
            ("application/json", true),
            ("application/problem+json", true),
            ("image/svg+xml;a=b", true),
            ("application/wasm", true),
            ("image/png", false),
            ("application/zip", false),
            ("application/octet-stream", false),
            ("font/woff2", false),
            ("application/grpc", false),
            ("application/grpc-web+json", false),
            ("json", false),
            ("", false),
        ] {
            assert_eq!(types.take(&HeaderValue::from_static(kind)), takes, "{kind}");
        }
    }

    #[test]
    fn a_policy_names_its_own() {
        let mut violations = Violations::default();
        let types = |list: &[&str], violations: &mut Violations| {
            let list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
            Types::compile(&list, "t", violations)
        };
        let own = types(&["application/x-own", "model/*", "+cbor"], &mut violations);
        for (kind, takes) in
            [("application/x-own", true), ("model/gltf+json", true), ("a/b+CBOR", true), ("text/html", false)]
        {
            assert_eq!(own.take(&HeaderValue::from_static(kind)), takes, "{kind}");
        }
        let all = types(&["*/*"], &mut violations);
        assert!(all.take(&HeaderValue::from_static("image/png")));
        assert!(!all.take(&HeaderValue::from_static("application/grpc+proto")));
        assert_eq!(violations.len(), 0);
        types(&["text", "*/html", "a/b c", "+"], &mut violations);
        types(&[], &mut violations);
        let places: Vec<String> = violations.into_vec().into_iter().map(|found| found.path).collect();
        assert_eq!(places, ["t[0]", "t[1]", "t[2]", "t[3]", "t"]);
    }
}
