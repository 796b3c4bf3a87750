//! `Accept-Encoding` (RFC 9110, section 12.5.3): which encodings a client takes, the one it likes most first.

use http::{HeaderMap, header};
use smallvec::SmallVec;

use super::encoding::{ENCODINGS, Encoding};
use crate::weight;

/// Encodings that a client takes, the one it likes most first.
pub(super) type Accepted = SmallVec<[Encoding; ENCODINGS.len()]>;

/// Those of the offered that the request takes, and likes no less than a body as it is; of those that it likes as much, in their order.
///
/// Without the header nothing is compressed: it is allowed, and few who don't ask for it expect it.
pub(super) fn accepted(request: &HeaderMap, offered: &[Encoding]) -> Accepted {
    let (mut named, mut others, mut identity) = ([None; ENCODINGS.len()], None, None);
    for value in request.get_all(header::ACCEPT_ENCODING) {
        for element in value.as_bytes().split(|byte| *byte == b',') {
            let Some((coding, weight)) = read(element) else { continue };
            if coding == b"*" {
                others = Some(weight);
            } else if coding.eq_ignore_ascii_case(b"identity") {
                identity = Some(weight);
            } else if let Some(encoding) = Encoding::of(coding) {
                named[encoding as usize] = Some(weight);
            }
        }
    }
    let weight = |encoding: Encoding| named[encoding as usize].or(others).unwrap_or(0);
    let least = identity.unwrap_or(0).max(1);
    let mut accepted: Accepted =
        offered.iter().copied().filter(|encoding| weight(*encoding) >= least).collect();
    // Stable: of equals the first that is offered.
    accepted.sort_by_key(|encoding| std::cmp::Reverse(weight(*encoding)));
    accepted
}

/// One element: a coding and its weight, in thousandths. None of one that is no such thing, which counts as not there.
fn read(element: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = element.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let coding = parts.next().filter(|coding| !coding.is_empty())?;
    let weight = match parts.next() {
        None => 1_000,
        Some([b'q' | b'Q', b'=', text @ ..]) => weight::read(text)?,
        Some(_) => return None,
    };
    parts.next().is_none().then_some((coding, weight))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use Encoding::{Br, Gzip, Zstd};

    fn of(lines: &[&str]) -> Vec<Encoding> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        accepted(&headers, &[Zstd, Br, Gzip]).to_vec()
    }

    #[test]
    fn a_client_has_what_it_likes_most() {
        for (lines, accepted) in [
            (&["gzip, deflate, br, zstd"][..], &[Zstd, Br, Gzip][..]),
            (&["GZip;Q=0.5 , br ; q=0.8"], &[Br, Gzip]),
            (&["x-gzip"], &[Gzip]),
            (&["gzip;q=0.001"], &[Gzip]),
            (&["*"], &[Zstd, Br, Gzip]),
            (&["*;q=0.1, gzip"], &[Gzip, Zstd, Br]),
            (&["br;q=0, *"], &[Zstd, Gzip]),
            (&["gzip", "br;q=0.9"], &[Gzip, Br]),
            (&["identity;q=0, gzip;q=0.2"], &[Gzip]),
            (&["identity;q=0.5, gzip;q=0.5, br;q=0.4"], &[Gzip]),
        ] {
            assert_eq!(of(lines), accepted, "{lines:?}");
        }
    }

    #[test]
    fn nothing_is_compressed_for_whoever_does_not_ask_for_it() {
        for lines in [
            &[][..],
            &[""],
            &["identity"],
            &["deflate, compress"],
            &["gzip;q=0"],
            &["gzip;q=0.0, *;q=0.000"],
            &["identity, gzip;q=0.9"],
            &["gzip;q=2", "br;q=0.1234", "zstd;level=3", "gzip;q=1;a=b", "br;q=.5", "zstd;q", "gzip;q=1.001"],
        ] {
            assert!(of(lines).is_empty(), "{lines:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_no_encoding_is_used_that_is_not_named(bytes in proptest::collection::vec(32_u8..127, 0..80)) {
            let text = String::from_utf8(bytes).unwrap();
            let named = |encoding: &Encoding| text.to_ascii_lowercase().contains(encoding.word());
            prop_assert!(of(&[&text]).iter().all(|encoding| named(encoding) || text.contains('*')));
        }

        #[test]
        fn the_order_is_that_of_the_weights(weights in proptest::array::uniform3(0_u16..=1_000), star in proptest::option::of(0_u16..=1_000), named in proptest::array::uniform3(any::<bool>())) {
            let all = [Zstd, Br, Gzip];
            let written = |weight: u16| format!("{}.{:03}", weight / 1_000, weight % 1_000);
            let mut list: Vec<String> = all.iter().zip(weights).zip(named).filter(|(_, named)| *named)
                .map(|((encoding, weight), _)| format!("{};q={}", encoding.word(), written(weight))).collect();
            list.extend(star.map(|weight| format!("*;q={}", written(weight))));
            let weight = |at: usize| if named[at] { weights[at] } else { star.unwrap_or(0) };
            let mut expected: Vec<usize> = (0..3).filter(|at| weight(*at) > 0).collect();
            expected.sort_by_key(|at| (1_000 - weight(*at), *at));
            let expected: Vec<Encoding> = expected.into_iter().map(|at| all[at]).collect();
            prop_assert_eq!(of(&[&list.join(", ")]), expected);
        }
    }
}
