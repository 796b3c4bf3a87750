//! HTTP/1.1 as plain as can be, so that what is sent and what came back can be told exactly.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use serde_json::Value;

/// For one answer, unless said otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body without its encodings.
    pub fn decoded(&self) -> io::Result<Vec<u8>> {
        let mut from: Box<dyn Read + '_> = match self.header("content-encoding") {
            Some("gzip") => Box::new(flate2::read::GzDecoder::new(&self.body[..])),
            Some("br") => Box::new(brotli::Decompressor::new(&self.body[..], 4096)),
            Some("zstd") => Box::new(zstd::stream::read::Decoder::new(&self.body[..])?),
            _ => return Ok(self.body.clone()),
        };
        let mut body = Vec::new();
        from.read_to_end(&mut body)?;
        Ok(body)
    }

    /// The body as JSON; null where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Writes a request and reads its answer on a connection that stays.
pub fn exchange<S: Read + Write>(
    stream: &mut BufReader<S>,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.get_mut().write_all(&[head.as_bytes(), body].concat())?;
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let mut answer = Answer {
        status: status.ok_or_else(|| broken(&format!("no status in {line:?}")))?,
        headers: Vec::new(),
        body: Vec::new(),
    };
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| broken("a header without a colon"))?;
        answer.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if method == "HEAD" || matches!(answer.status, 204 | 304) {
        return Ok(answer);
    }
    if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().map_err(|_| broken("a bad Content-Length"))?;
        answer.body.resize(length, 0);
        stream.read_exact(&mut answer.body).map_err(|_| broken("an answer that broke off"))?;
    } else if answer.header("transfer-encoding").is_some() {
        answer.body = chunks(stream)?;
    }
    Ok(answer)
}

/// A chunked body without trailers.
fn chunks<S: Read>(stream: &mut BufReader<S>) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(|_| broken("a bad chunk"))?;
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk).map_err(|_| broken("an answer that broke off"))?;
        if length == 0 {
            return Ok(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// A connection to a proxy.
pub fn connect(proxy: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    connect_within(TIMEOUT, proxy)
}

fn connect_within(timeout: Duration, proxy: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&proxy, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// One request to a proxy on a connection of its own.
pub fn get(proxy: SocketAddr, target: &str, headers: &[(&str, &str)]) -> io::Result<Answer> {
    exchange(&mut connect(proxy)?, "GET", target, headers, b"")
}

/// The same for one who waits no longer than this.
pub fn get_within(
    timeout: Duration,
    proxy: SocketAddr,
    target: &str,
    headers: &[(&str, &str)],
) -> io::Result<Answer> {
    exchange(&mut connect_within(timeout, proxy)?, "GET", target, headers, b"")
}

/// One request to a proxy on this connection, which is made if there is none, and kept if both sides will.
pub fn get_on(
    connection: &mut Option<BufReader<TcpStream>>,
    proxy: SocketAddr,
    target: &str,
) -> io::Result<Answer> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => connect(proxy)?,
    };
    let answer = exchange(&mut stream, "GET", target, &[], b"")?;
    if answer.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")) {
        *connection = Some(stream);
    }
    Ok(answer)
}

/// One request on a node's own socket, whose answer may take this long.
pub fn local(
    socket: &Path,
    timeout: Duration,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> io::Result<Answer> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    exchange(&mut BufReader::new(stream), method, target, headers, &body)
}
