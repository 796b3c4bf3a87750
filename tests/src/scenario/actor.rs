//! Origins that play what a scenario says, and remember what they were asked.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use super::{Behaviour, Manner};

/// Where nobody listens: tcpmux, which no machine has served in decades.
const NOBODY: &str = "127.0.0.1:1";

/// One request as an origin got it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) origin: String,
    pub(super) method: String,
    pub(super) target: String,
    /// Names, in lower case, and values.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
}

/// What all origins of a scenario have seen, in its order.
pub(super) type Log = Arc<Mutex<Vec<Request>>>;

/// Starts an origin on a free port, and gives its address. Its threads end with the test's process.
pub(super) fn start(name: &str, behaviour: &Behaviour, log: &Log) -> SocketAddr {
    if behaviour.manner == Manner::Dead {
        return NOBODY.parse().expect("an address");
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let (name, behaviour, log) = (name.to_owned(), behaviour.clone(), log.clone());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (name, behaviour, log) = (name.clone(), behaviour.clone(), log.clone());
            // A connection ends with an error or the end of the stream: the same to an origin.
            thread::spawn(move || serve(&name, &behaviour, &log, BufReader::new(stream)));
        }
    });
    address
}

fn serve(name: &str, behaviour: &Behaviour, log: &Log, mut stream: BufReader<TcpStream>) -> io::Result<()> {
    while let Some(request) = read(name, &mut stream)? {
        let head_only = request.method == "HEAD";
        log.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        match behaviour.manner {
            Manner::Alive => stream.get_mut().write_all(&answer(name, behaviour, head_only))?,
            Manner::Silent => {}
            Manner::Broken | Manner::Dead => return Ok(()),
        }
    }
    Ok(())
}

/// The next request; none at the end of the stream.
fn read(name: &str, stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut request = Request {
        origin: name.to_owned(),
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        headers: Vec::new(),
        body: String::new(),
    };
    loop {
        line.clear();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = request.headers.iter().find(|(name, _)| name == "content-length");
    let mut body = vec![0; length.and_then(|(_, length)| length.parse().ok()).unwrap_or(0)];
    stream.read_exact(&mut body)?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(request))
}

fn answer(name: &str, behaviour: &Behaviour, head_only: bool) -> Vec<u8> {
    let body = behaviour.body.as_deref().unwrap_or(name);
    let mut head =
        format!("HTTP/1.1 {} -\r\ncontent-length: {}\r\n", behaviour.status.unwrap_or(200), body.len());
    for (name, values) in &behaviour.headers {
        for value in values.as_slice() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    head.push_str("\r\n");
    if !head_only {
        head.push_str(body);
    }
    head.into_bytes()
}
