//! A page in its formats, with places for what is known of the error.

use std::fmt::Write;

use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use crate::violations::Violations;

/// The most bytes of a page in one format.
const TEXT_BYTES_MAX: usize = 16_384;

/// A format that a page may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Text,
    Html,
}

impl Format {
    /// All, in the order of the enum. Of those that a client likes as much it gets the first: who wants HTML says so.
    pub(super) const ALL: [Self; 3] = [Self::Json, Self::Text, Self::Html];

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Html => "text/html; charset=utf-8",
        })
    }
}

/// A page as a config has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageSpec {
    json: Option<String>,
    text: Option<String>,
    html: Option<String>,
}

/// A page, by format.
#[derive(Debug)]
pub(super) struct Page([Option<Box<[Piece]>>; Format::ALL.len()]);

#[derive(Debug)]
enum Piece {
    Text(Box<str>),
    Fact(Fact),
}

#[derive(Debug, Clone, Copy)]
enum Fact {
    Status,
    Title,
    Code,
    RequestId,
}

/// What is known of an error.
pub(super) struct Facts<'a> {
    pub(super) status: StatusCode,
    pub(super) code: &'a str,
    pub(super) request_id: &'a str,
}

impl PageSpec {
    pub(super) fn compile(self, path: &str, violations: &mut Violations) -> Option<Page> {
        if self.json.is_none() && self.text.is_none() && self.html.is_none() {
            violations.add(path.to_owned(), "needs html, json or text".to_owned());
            return None;
        }
        let mut compile = |field: &str, text: Option<String>| {
            let text = text?;
            let place = format!("{path}.{field}");
            if text.len() > TEXT_BYTES_MAX {
                violations.add(place, "is longer than 16,384 bytes".to_owned());
                return None;
            }
            pieces(&text).map_err(|error| violations.add(place, error)).ok()
        };
        Some(Page([compile("json", self.json), compile("text", self.text), compile("html", self.html)]))
    }
}

/// The text with its places, which are in double braces.
fn pieces(text: &str) -> Result<Box<[Piece]>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        // What is no name is no place: JSON has braces after braces too.
        let name = after.split_once("}}").map(|(name, after)| (name.trim(), after));
        let is_name =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        let Some((name, after)) = name.filter(|(name, _)| is_name(name)) else {
            pieces.push(Piece::Text(format!("{before}{{{{").into()));
            rest = after;
            continue;
        };
        let fact = match name {
            "status" => Fact::Status,
            "title" => Fact::Title,
            "code" => Fact::Code,
            "request_id" => Fact::RequestId,
            _ => {
                return Err(format!(
                    "{{{{{name}}}}} is not known: one of status, title, code and request_id"
                ));
            }
        };
        pieces.push(Piece::Text(before.into()));
        pieces.push(Piece::Fact(fact));
        rest = after;
    }
    pieces.push(Piece::Text(rest.into()));
    Ok(pieces.into())
}

impl Page {
    pub(super) fn has(&self, format: Format) -> bool {
        self.0[format as usize].is_some()
    }

    /// The page in this format with what is known put in, escaped as the format needs it.
    pub(super) fn text(&self, format: Format, facts: &Facts<'_>) -> Option<String> {
        let pieces = self.0[format as usize].as_deref()?;
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Fact(fact) => escape(&facts.of(*fact), format, &mut text),
            }
        }
        Some(text)
    }
}

impl Facts<'_> {
    fn of(&self, fact: Fact) -> String {
        match fact {
            Fact::Status => self.status.as_u16().to_string(),
            Fact::Title => self.status.canonical_reason().unwrap_or("Error").to_owned(),
            Fact::Code => self.code.to_owned(),
            Fact::RequestId => self.request_id.to_owned(),
        }
    }
}

/// A request's id may be one that a trusted proxy has taken over from anybody.
fn escape(fact: &str, format: Format, to: &mut String) {
    for character in fact.chars() {
        let escaped = match (format, character) {
            (Format::Html, '&') => "&amp;",
            (Format::Html, '<') => "&lt;",
            (Format::Html, '>') => "&gt;",
            (Format::Html, '"') => "&quot;",
            (Format::Html, '\'') => "&#39;",
            (Format::Json, '"') => "\\\"",
            (Format::Json, '\\') => "\\\\",
            (Format::Json, control) if control.is_control() => {
                // Writing to a String does not fail.
                let _ = write!(to, "\\u{:04x}", u32::from(control));
                continue;
            }
            (_, other) => {
                to.push(other);
                continue;
            }
        };
        to.push_str(escaped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: &str, text: &str) -> Result<Page, Vec<String>> {
        let mut violations = Violations::default();
        let spec = serde_json::json!({format: text});
        let page = serde_json::from_value::<PageSpec>(spec).unwrap().compile("p", &mut violations);
        let wrong: Vec<String> = violations.into_vec().into_iter().map(|found| found.message).collect();
        page.filter(|_| wrong.is_empty()).ok_or(wrong)
    }

    const EVIL: Facts<'_> =
        Facts { status: StatusCode::NOT_FOUND, code: "no_route", request_id: "<a href='\\\"'>&" };

    #[test]
    fn what_is_known_is_put_in_and_can_not_break_out() {
        let html =
            page("html", "<h1>{{status}} {{ title }}</h1>{{code}}<p id=\"{{request_id}}\">{{").unwrap();
        assert_eq!(
            html.text(Format::Html, &EVIL).unwrap(),
            "<h1>404 Not Found</h1>no_route<p id=\"&lt;a href=&#39;\\&quot;&#39;&gt;&amp;\">{{"
        );
        let json = page("json", r#"{"a":{"b":{"id":"{{request_id}}","s":{{status}}}}}"#).unwrap();
        let text = json.text(Format::Json, &EVIL).unwrap();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read, serde_json::json!({"a": {"b": {"id": EVIL.request_id, "s": 404}}}));
        assert!(json.text(Format::Html, &EVIL).is_none());
    }

    #[test]
    fn a_place_for_what_is_not_known_is_refused() {
        assert!(page("html", "{{path}}").unwrap_err()[0].contains("path"));
        assert!(page("text", "{{ {{}} {{Status}} }}").is_ok());
        assert!(page("text", &"x".repeat(TEXT_BYTES_MAX + 1)).is_err());
    }
}
