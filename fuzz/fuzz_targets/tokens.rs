//! Join tokens, admin tokens and API keys: what is printed is read back, and what is damaged is refused. An input is a byte
//! that says at which character, one for what it becomes, and the text or the random bytes.
#![cfg_attr(feature = "libfuzzer", no_main)]

use model::cluster::{Cluster, Role};
use phalanx_fuzz::Input;

// `node` is a program, not a library: its file is compiled here once more.
#[allow(dead_code, missing_docs)]
#[path = "../../node/src/tokens.rs"]
mod tokens;

phalanx_fuzz::target!(|data| {
    let mut input = Input(data);
    let (at, to) = (usize::from(input.byte()), input.byte());
    if let Ok(text) = std::str::from_utf8(input.0) {
        reads(text, at, to);
    }
    makes(input.0, at, to);
});

/// The text with another ASCII character at this place; none if that changes nothing.
fn damaged(text: &str, at: usize, to: u8) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let at = at % bytes.len().max(1);
    let byte = bytes.get_mut(at)?;
    let before = std::mem::replace(byte, to & 0x7f);
    (before != to & 0x7f).then(|| String::from_utf8(bytes).ok()).flatten()
}

fn reads(text: &str, at: usize, to: u8) {
    let damaged = damaged(text.trim(), at, to);
    if let Ok(token) = tokens::Join::parse(text) {
        let read = tokens::Join::parse(&token.text()).expect("what was read can be printed and read");
        assert!(read == token && read.text() == token.text());
        damaged
            .iter()
            .for_each(|other| assert!(tokens::Join::parse(other).is_err(), "{other:?} for {text:?}"));
    }
    if let Ok(token) = tokens::Admin::parse(text) {
        assert_eq!(token.text(), text.trim(), "it is printed otherwise");
        damaged
            .iter()
            .for_each(|other| assert!(tokens::Admin::parse(other).is_err(), "{other:?} for {text:?}"));
        opens(&token, text);
    }
    if model::key::well_formed(text) {
        assert!(text.len() == 44 && text.is_ascii());
        let damaged = self::damaged(text, at, to);
        damaged.iter().for_each(|other| assert!(!model::key::well_formed(other), "{other:?} for {text:?}"));
    }
    if let Some(bytes) = tokens::unhex(text) {
        assert_eq!(tokens::hex(&bytes), text.to_ascii_lowercase());
    }
}

/// The token opens what it was stored for, until it expires, and nothing of others.
fn opens(token: &tokens::Admin, text: &str) {
    let mut cluster = Cluster::default();
    let stored = token.stored(Role::Operator, "label".into(), Some(1_000));
    cluster.admin_tokens.insert(token.id.clone(), stored);
    assert_eq!(tokens::verify_admin(&cluster, text, 999), Some(("label".into(), Role::Operator)));
    assert_eq!(tokens::verify_admin(&cluster, text, 1_000), None);
    let other = tokens::Admin::generate().stored(Role::Admin, "other".into(), None);
    cluster.admin_tokens.insert(token.id.clone(), other);
    assert_eq!(tokens::verify_admin(&cluster, text, 0), None);
}

fn makes(bytes: &[u8], at: usize, to: u8) {
    assert_eq!(tokens::unhex(&tokens::hex(bytes)).as_deref(), Some(bytes));
    if let Some(key) = model::key::generate(bytes) {
        assert!(model::key::well_formed(&key), "{key}");
        let damaged = damaged(&key, at, to);
        damaged.iter().for_each(|other| assert!(!model::key::well_formed(other), "{other} for {key}"));
    }
    // A text of the form of a token, with the right checksum.
    for prefix in ["gwj1", "gwa1"] {
        let mut token = format!("{prefix}.").into_bytes();
        token.extend(bytes);
        let Ok(text) = String::from_utf8(token) else { return };
        let sum = crc32fast::hash(text.as_bytes());
        reads(&format!("{text}.{sum:08x}"), at, to);
    }
}
