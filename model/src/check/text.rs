//! The small texts in a config: hosts, addresses, header names and values, methods, paths.

use http::{HeaderName, HeaderValue};

/// The longest host name (RFC 1035, section 2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// The longest path, in bytes.
const PATH_BYTES_MAX: usize = 4_096;
/// The longest regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1_024;
/// Bytes that a compiled regular expression may take.
const REGEX_SIZE_MAX: usize = 1 << 20;

/// A lower-case DNS name without a port, or an IP address.
pub(super) fn host(text: &str) -> Result<(), String> {
    if text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Ok(());
    }
    if let Some(v6) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return v6
            .parse::<std::net::Ipv6Addr>()
            .map(drop)
            .map_err(|_| format!("{text:?} is no IPv6 address"));
    }
    let label = |label: &str| {
        let plain =
            label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() > HOST_BYTES_MAX || !text.split('.').all(label) {
        return Err(format!("{text:?} is no host name: write it in lower case, without a port"));
    }
    Ok(())
}

/// [`host`], or one behind `*.`.
pub(super) fn host_pattern(text: &str) -> Result<(), String> {
    match text.strip_prefix("*.") {
        Some(rest) if !rest.contains('*') => host(rest),
        None if !text.contains('*') => host(text),
        _ => Err(format!("{text:?}: a wildcard is the first label alone, as *.example")),
    }
}

/// `host:port`, or the name of a service (RFC 2782), which begins with `_` and has no port.
pub(super) fn address(text: &str) -> Result<(), String> {
    let wrong = || {
        format!(
            "{text:?} is no address: write host:port, as 10.0.1.11:8080, or the name of a service, as _http._tcp.orders"
        )
    };
    // A last dot says that a name is whole.
    let whole = |name: &str| host(&name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase());
    if text.starts_with('_') && !text.contains(':') {
        return whole(text).map_err(|_| wrong());
    }
    let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !port.parse::<u16>().is_ok_and(|port| port > 0) || port.starts_with('+') {
        return Err(format!("{text:?}: the port must be 1 to 65535"));
    }
    whole(name).map_err(|_| wrong())
}

/// A token (RFC 9110, section 5.6.2), in any case.
pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(text).map_err(|_| format!("{text:?} is no header name"))
}

/// A header that a route may change: none that frames a message or belongs to a connection (RFC 9110, section 7.6.1).
pub(super) fn changeable(text: &str) -> Result<(), String> {
    const NEVER: [&str; 10] = [
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    ];
    let name = header_name(text)?;
    match NEVER.contains(&name.as_str()) {
        true if name == "host" => Err("the Host is changed by request.host".to_owned()),
        true => Err(format!("{text:?} frames the message or belongs to a connection: it can't be changed")),
        false => Ok(()),
    }
}

/// Visible ASCII, spaces and tabs.
pub(super) fn header_value(text: &str) -> Result<(), String> {
    HeaderValue::from_str(text).map(drop).map_err(|_| format!("{text:?} is no header value"))
}

/// A method's token.
pub(super) fn method(text: &str) -> Result<(), String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    match http::Method::from_bytes(text.as_bytes()) {
        Ok(http::Method::CONNECT) => Err("CONNECT is never served".to_owned()),
        Ok(_) if plain && text.len() <= 32 => Ok(()),
        _ => Err(format!("{text:?} is no method: write it in capitals, as GET")),
    }
}

/// A path in the form in which requests are matched: absolute, no dot segments, no empty segments.
pub(super) fn path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} must begin with /"));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("is over {PATH_BYTES_MAX} bytes"));
    }
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_graphic() || "?#\\\"<>^`|".contains(*c)) {
        return Err(format!("{text:?} has {bad:?} in it, which no path has as it is matched"));
    }
    if text.contains("//") || text.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(format!("{text:?} has empty or dot segments, which no path has as it is matched"));
    }
    Ok(())
}

/// A regular expression of a bounded size.
pub(super) fn regex(text: &str) -> Result<(), String> {
    if text.len() > REGEX_BYTES_MAX {
        return Err(format!("is over {REGEX_BYTES_MAX} bytes"));
    }
    let built = regex::RegexBuilder::new(text).size_limit(REGEX_SIZE_MAX).build();
    built.map(drop).map_err(|error| error.to_string())
}
