//! To whom a request is addressed.

use std::{cell::RefCell, rc::Rc};

use http::{HeaderValue, Method, Version, header, request::Parts};

use crate::{error::Fault, router};

/// To whom a request is addressed.
pub(crate) struct Addressed {
    /// `Host` as it was sent; none in an HTTP/1.0 request that has none.
    pub(crate) authority: Option<HeaderValue>,
    /// Its host as it is matched; empty without one.
    pub(crate) host: Rc<str>,
}

/// The `Host` that a connection's last request had. Most name the same again and again.
#[derive(Debug, Default)]
pub(crate) struct LastHost(RefCell<Option<Known>>);

#[derive(Debug)]
struct Known {
    /// As it was sent.
    authority: Box<[u8]>,
    /// As it is matched.
    host: Rc<str>,
}

impl LastHost {
    /// The host of this authority, if it is one.
    fn of(&self, authority: &HeaderValue) -> Option<Rc<str>> {
        if let Some(known) = &*self.0.borrow()
            && *known.authority == *authority.as_bytes()
        {
            return Some(known.host.clone());
        }
        let text = authority.to_str().ok().filter(|text| is_host(text.as_bytes()))?;
        let host: Rc<str> = router::host(text)?.into();
        *self.0.borrow_mut() = Some(Known { authority: authority.as_bytes().into(), host: host.clone() });
        Some(host)
    }
}

/// To whom the request is addressed (RFC 9112, section 3.2): refused where two readers may take it differently.
pub(crate) fn of(head: &Parts, target_bytes_max: usize, last: &LastHost) -> Result<Addressed, Fault> {
    if head.method == Method::CONNECT {
        return Err(Fault::bad_request("CONNECT is not served here"));
    }
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if target > target_bytes_max {
        return Err(Fault::target_too_long());
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Fault::bad_request("There is more than one Host"));
    }
    let Some(host) = host else {
        if head.version >= Version::HTTP_11 || head.uri.authority().is_some() {
            return Err(Fault::bad_request("There is no Host"));
        }
        return Ok(Addressed { authority: None, host: Rc::from("") });
    };
    let name = last.of(host).ok_or(Fault::bad_request("Host is not valid"))?;
    if let Some(named) = head.uri.authority() {
        if !matches!(head.uri.scheme_str(), Some("http" | "https")) {
            return Err(Fault::bad_request("The request target's scheme is not served here"));
        }
        if !named.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) {
            return Err(Fault::bad_request("Host and the request target name different hosts"));
        }
    }
    Ok(Addressed { authority: Some(host.clone()), host: name })
}

/// A name or address, and maybe a port; no user, no path, no second reading.
fn is_host(host: &[u8]) -> bool {
    let port_at = match host {
        [b'[', ..] => host.iter().position(|byte| *byte == b']').map(|end| end + 1),
        _ => Some(host.iter().position(|byte| *byte == b':').unwrap_or(host.len())),
    };
    let Some((name, port)) = port_at.and_then(|at| host.split_at_checked(at)) else { return false };
    let good_name = match name {
        [b'[', inner @ .., b']'] => inner.iter().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(byte)),
        name => name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)),
    };
    let good_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !name.is_empty() && name.len() <= 255 && good_name && good_port
}
