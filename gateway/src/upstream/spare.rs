//! What a request was, kept until it is answered in case it must be sent again.

use std::cell::RefCell;

use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::upload::RequestBody;

/// The most that a worker keeps to write into again, and the largest, in bytes.
const KEPT_MAX: usize = 256;
const KEPT_BYTES_MAX: usize = 16 * 1024;

/// A request without a body, as text: a third of what a clone of its headers costs, each of which counts
/// references.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    method: Method,
    /// The target, then names and values.
    text: Vec<u8>,
    target_end: usize,
    /// Where each name ends, and its value.
    ends: Vec<(usize, usize)>,
}

impl Spare {
    fn write(&mut self, request: &Request<RequestBody>) {
        self.method.clone_from(request.method());
        self.text.clear();
        self.ends.clear();
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        self.text.extend_from_slice(target.as_bytes());
        self.target_end = self.text.len();
        for (name, value) in request.headers() {
            self.text.extend_from_slice(name.as_str().as_bytes());
            let name_end = self.text.len();
            self.text.extend_from_slice(value.as_bytes());
            self.ends.push((name_end, self.text.len()));
        }
    }

    /// The request once more. It was one before, so it is one again.
    pub(crate) fn request(&self) -> Option<Request<RequestBody>> {
        let mut request = Request::new(RequestBody::Empty);
        request.method_mut().clone_from(&self.method);
        *request.uri_mut() = Uri::try_from(&self.text[..self.target_end]).ok()?;
        let mut begin = self.target_end;
        for &(name_end, end) in &self.ends {
            let name = HeaderName::from_bytes(&self.text[begin..name_end]).ok()?;
            let value = HeaderValue::from_bytes(&self.text[name_end..end]).ok()?;
            request.headers_mut().append(name, value);
            begin = end;
        }
        Some(request)
    }
}

/// A worker's spares that are not in use.
#[derive(Debug, Default)]
pub(crate) struct Spares(RefCell<Vec<Spare>>);

impl Spares {
    /// One of this request.
    pub(crate) fn of(&self, request: &Request<RequestBody>) -> Spare {
        let mut spare = self.0.borrow_mut().pop().unwrap_or_default();
        spare.write(request);
        spare
    }

    /// Takes one back that is not needed any more.
    pub(crate) fn give(&self, spare: Spare) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX && spare.text.capacity() <= KEPT_BYTES_MAX {
            kept.push(spare);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_the_same_again() {
        let spares = Spares::default();
        for (method, target) in [("DELETE", "/a/b?c=%20d"), ("GET", "/"), ("PURGE", "/x?")] {
            let mut request = Request::new(RequestBody::Empty);
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
            *request.uri_mut() = Uri::try_from(target).unwrap();
            let lines: [(&str, &[u8]); 4] =
                [("host", b"a"), ("x-mine", b"1"), ("x-mine", b"\xff, 2"), ("x-empty", b"")];
            for (name, value) in lines {
                let value = HeaderValue::from_bytes(value).unwrap();
                request.headers_mut().append(HeaderName::from_static(name), value);
            }
            let spare = spares.of(&request);
            for _ in 0..2 {
                let again = spare.request().unwrap();
                assert_eq!((again.method(), again.uri()), (request.method(), request.uri()));
                assert_eq!((again.headers(), again.version()), (request.headers(), request.version()));
            }
            spares.give(spare);
        }
        assert_eq!(spares.0.borrow().len(), 1, "one is used over and over");
    }
}
