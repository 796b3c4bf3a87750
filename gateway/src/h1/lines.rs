//! Finds the lines of a head as its bytes come, each byte looked at once.
//!
//! A line ends in CR LF and has no other CR or LF in it. That a lone LF may be taken for an end (RFC 9112, section 2.2) is
//! how two readers come to see different messages, so it is refused.

use memchr::memchr2;
use smallvec::SmallVec;

use super::Fault;

/// How far a head has been looked at.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// Where each line ends, at its CR.
    ends: SmallVec<[u32; 16]>,
    /// Where the line at hand begins.
    begin: usize,
    /// Where to go on.
    at: usize,
}

impl Lines {
    /// Goes on over a head of which `head` is all that has come, from its first byte. The length of the head with its
    /// empty line, once that has come.
    pub(crate) fn scan(&mut self, head: &[u8]) -> Result<Option<usize>, Fault> {
        while let Some(found) = head.get(self.at..).and_then(|rest| memchr2(b'\r', b'\n', rest)) {
            let cr = self.at + found;
            if head[cr] == b'\n' {
                return Err(Fault::LineEnd);
            }
            match head.get(cr + 1) {
                None => {
                    self.at = cr;
                    return Ok(None);
                }
                Some(b'\n') => {}
                Some(_) => return Err(Fault::LineEnd),
            }
            self.at = cr + 2;
            if cr == self.begin {
                return Ok(Some(self.at));
            }
            self.ends.push(u32::try_from(cr).map_err(|_| Fault::HeadTooLarge)?);
            self.begin = self.at;
        }
        self.at = head.len();
        Ok(None)
    }

    /// How many lines have come, the empty one not among them.
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The bounds of each line, without its end.
    pub(crate) fn bounds(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let end = *end as usize;
            let line = (begin, end);
            begin = end + 2;
            line
        })
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.ends.clear();
        (self.begin, self.at) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Found<'a> = Option<(usize, Vec<&'a [u8]>)>;

    fn lines(text: &[u8]) -> Result<Found<'_>, Fault> {
        let mut lines = Lines::default();
        let end = lines.scan(text)?;
        Ok(end.map(|end| (end, lines.bounds().map(|(begin, end)| &text[begin..end]).collect())))
    }

    #[test]
    fn a_head_ends_with_an_empty_line() {
        assert_eq!(lines(b"a\r\nbc\r\n\r\nrest").unwrap(), Some((9, vec![&b"a"[..], b"bc"])));
        assert_eq!(lines(b"\r\n").unwrap(), Some((2, vec![])));
        for part in [&b""[..], b"a", b"a\r", b"a\r\n", b"a\r\nb\r\n", b"a\r\nb\r\n\r"] {
            assert_eq!(lines(part).unwrap(), None, "{part:?}");
        }
    }

    #[test]
    fn no_line_ends_in_anything_but_cr_lf() {
        for bad in [&b"a\n\r\n"[..], b"a\rb\r\n", b"a\r\r\n", b"\n", b"a\r\n\n"] {
            assert_eq!(lines(bad), Err(Fault::LineEnd), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[ab\r\n]{0,40}", cut in 0_usize..40) {
            let text = text.as_bytes();
            let mut whole = Lines::default();
            let want = whole.scan(text);
            let mut pieces = Lines::default();
            let first = pieces.scan(&text[..cut.min(text.len())]);
            let found = match first {
                Ok(None) => pieces.scan(text),
                done => done,
            };
            prop_assert_eq!(want, found);
            if want.is_ok() {
                prop_assert!(whole.bounds().eq(pieces.bounds()));
            }
        }
    }
}
