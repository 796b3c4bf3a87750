//! `Accept` (RFC 9110, section 12.5.1), as far as it chooses among the formats of a page.

use http::HeaderValue;

use super::page::Format;

/// The media types that a format is, each in its two parts.
fn types(format: Format) -> &'static [(&'static str, &'static str)] {
    match format {
        Format::Json => &[("application", "json"), ("application", "problem+json")],
        Format::Text => &[("text", "plain")],
        Format::Html => &[("text", "html")],
    }
}

/// Of the formats that there are the one that is liked most; none if none is taken.
pub(super) fn choose(accept: &[HeaderValue], have: impl Fn(Format) -> bool) -> Option<Format> {
    let mut best = None;
    for format in Format::ALL.into_iter().filter(|format| have(*format)) {
        let weight = types(format).iter().map(|of| weight(accept, *of)).max().unwrap_or(0);
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((format, weight));
        }
    }
    best.map(|(format, _)| format)
}

/// How much a type is liked, in thousandths: as the range says that is nearest to it.
fn weight(accept: &[HeaderValue], (kind, subtype): (&str, &str)) -> u16 {
    let ranges = accept.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let mut nearest = (0, 0);
    let mut is_said = false;
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let Some((of, sub)) = parts.next().and_then(|range| range.split_once('/')) else { continue };
        is_said = true;
        let nearness = match (of.eq_ignore_ascii_case(kind), sub) {
            (true, sub) if sub.eq_ignore_ascii_case(subtype) => 3,
            (true, "*") => 2,
            (_, "*") if of == "*" => 1,
            _ => continue,
        };
        if nearness > nearest.0 {
            let parameter = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            nearest = (nearness, parameter.map_or(1_000, thousandths));
        }
    }
    if is_said { nearest.1 } else { 1_000 }
}

/// A weight that is none is taken for the least that is one.
fn thousandths(weight: &str) -> u16 {
    crate::weight::read(weight.as_bytes()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Format::{Html, Json, Text};

    #[test]
    fn who_wants_html_says_so() {
        let chosen = |accept: &[&'static str], have: &[Format]| {
            let accept: Vec<HeaderValue> =
                accept.iter().map(|value| HeaderValue::from_static(value)).collect();
            choose(&accept, |format| have.contains(&format))
        };
        let all = &[Json, Text, Html][..];
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8";
        for (accept, have, format) in [
            (&[browser][..], all, Some(Html)),
            (&[browser], &[Json, Text], Some(Json)),
            (&["*/*"], all, Some(Json)),
            (&[], all, Some(Json)),
            (&["nonsense"], all, Some(Json)),
            (&["*/*"], &[Html], Some(Html)),
            (&["text/*"], all, Some(Text)),
            (&["text/*, text/plain;q=0.1"], all, Some(Html)),
            (&["application/json;q=0.5", "TEXT/Plain;Q=0.6"], all, Some(Text)),
            (&["application/problem+json"], all, Some(Json)),
            (&["image/png"], all, None),
            (&["text/html;q=0, */*;q=0.1"], &[Html], None),
            (&["text/html;level=1;q=0.4, application/json;q=0.3"], all, Some(Html)),
        ] {
            assert_eq!(chosen(accept, have), format, "{accept:?} {have:?}");
        }
    }
}
