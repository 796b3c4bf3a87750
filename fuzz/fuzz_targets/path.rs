//! The path of a request, made normal: the rules of gateway/src/path.rs, told a second time and in another way.
#![cfg_attr(feature = "libfuzzer", no_main)]

use std::borrow::Cow;

use gateway::path::normalise;

phalanx_fuzz::target!(|data| {
    let Ok(path) = std::str::from_utf8(data) else { return };
    let Ok(normal) = normalise(path) else { return };
    assert!(normal.starts_with('/') && normal.is_ascii() && !normal.contains("//"), "{normal:?}");
    assert!(normal.split('/').all(|segment| segment != "." && segment != ".."), "{normal:?}");
    assert!(normal.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#?".contains(&byte)), "{normal:?}");
    escapes_are_normal(&normal);
    assert_eq!(normalise(&normal).as_deref(), Ok(&*normal), "it is no fixed point");
    assert!(matches!(normal, Cow::Owned(_)) || normal == path);
    assert_eq!(decoded(&normal), reduced(&decoded(path)), "{path:?} became {normal:?}");
});

/// Each is in upper case, of a byte that needs one, and no half of another.
fn escapes_are_normal(normal: &str) {
    for (at, _) in normal.match_indices('%') {
        let digits = &normal[at + 1..at + 3];
        assert_eq!(digits.to_ascii_uppercase(), digits, "{normal:?}");
        let byte = u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("{normal:?}"));
        assert!(!byte.is_ascii_control() && !b"/\\".contains(&byte), "{normal:?}");
        assert!(!byte.is_ascii_alphanumeric() && !b"-._~".contains(&byte), "{normal:?}");
        let after = normal.get(at + 3..at + 5).unwrap_or_default();
        let twice = byte == b'%' && after.len() == 2 && after.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(!twice, "{normal:?} is encoded twice");
    }
}

/// Every escape decoded, once.
fn decoded(path: &str) -> Vec<u8> {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = u8::from_str_radix(&part[..2], 16).unwrap_or_else(|_| panic!("{path:?} was let through"));
        bytes.push(byte);
        bytes.extend(&part.as_bytes()[2..]);
    }
    bytes
}

/// Without dot segments and empty ones. No slash of it was encoded, or it would have been refused.
fn reduced(path: &[u8]) -> Vec<u8> {
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').skip(1).collect();
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in &segments {
        match *segment {
            b"." => {}
            b".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    // What the last segment leaves is a folder, unless it is a name.
    let folder = matches!(segments.last(), Some(&b"" | &b"." | &b".."));
    kept.retain(|segment| !segment.is_empty());
    let mut path = b"/".to_vec();
    path.extend(kept.join(&b'/'));
    if folder && path.len() > 1 {
        path.push(b'/');
    }
    path
}
