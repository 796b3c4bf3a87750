//! A target that records what it gets to the byte.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A request as a target got it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// With the empty line at its end.
    pub head: Vec<u8>,
    /// Without the framing.
    pub body: Vec<u8>,
}

impl Seen {
    /// The request line.
    pub fn line(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        head.lines().next().unwrap_or_default().to_owned()
    }

    /// Names, as they came, and values.
    pub fn headers(&self) -> Vec<(String, Vec<u8>)> {
        let lines = self.head.split(|byte| *byte == b'\n').skip(1);
        let lines =
            lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)).filter(|line| !line.is_empty());
        let parts = lines.map(|line| {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
            (String::from_utf8_lossy(&line[..colon]).into_owned(), value.to_vec())
        });
        parts.collect()
    }

    /// The values of this header.
    pub fn values(&self, name: &str) -> Vec<String> {
        let named = self.headers().into_iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| String::from_utf8_lossy(&value).into_owned()).collect()
    }

    /// What is not as one who writes HTTP must write it (RFC 9112, sections 2.2, 3, 5 and 6).
    pub fn fault(&self) -> Option<&'static str> {
        let Some(lines) = self.head.strip_suffix(b"\r\n\r\n") else { return Some("the head has no end") };
        let (mut lengths, mut codings) = (0, 0);
        for line in lines.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
                return Some("there is a control character");
            }
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            // What some programs make of a name (RFC 3875, section 4.1.18).
            let plain =
                |byte: &u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'_' };
            let name: Vec<u8> = name.iter().map(plain).collect();
            lengths += usize::from(name == b"content_length");
            codings += usize::from(name == b"transfer_encoding");
        }
        if lines.windows(2).filter(|pair| pair[1] == b'\n').any(|pair| pair[0] != b'\r') {
            return Some("a line ends in LF alone");
        }
        (lengths + codings > 1).then_some("where its body ends is said twice")
    }
}

/// A target that answers whatever is a request with an empty 200.
pub struct Recorder {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let recorder = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let requests = recorder.requests.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, requests.clone()));
            }
        });
        recorder
    }

    /// What has come since it was last asked.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

async fn serve(mut stream: TcpStream, requests: Arc<Mutex<Vec<Seen>>>) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|count| count > 0) {
        while let Some((seen, length)) = request(&bytes) {
            bytes.drain(..length);
            requests.lock().unwrap().push(seen);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_err() {
                return;
            }
        }
    }
}

/// The request that these bytes begin with, and its length, if it is whole.
fn request(bytes: &[u8]) -> Option<(Seen, usize)> {
    let head_end = find(bytes, b"\r\n\r\n")? + 4;
    let mut seen = Seen { head: bytes[..head_end].to_vec(), body: Vec::new() };
    if seen.values("transfer-encoding").is_empty() {
        let length = seen.values("content-length").first().map_or(Some(0), |length| length.parse().ok())?;
        seen.body = bytes.get(head_end..head_end + length)?.to_vec();
        return Some((seen, head_end + length));
    }
    let mut at = head_end;
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?, 16).ok()?;
        at += line + 2;
        if size == 0 {
            break;
        }
        seen.body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
    }
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        at += line + 2;
        if line == 0 {
            return Some((seen, at));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
