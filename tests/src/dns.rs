//! A name server that says what it is told, over UDP.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

/// Types of records (RFC 1035, RFC 3596, RFC 2782).
const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// What one record says.
#[derive(Debug, Clone)]
pub enum Record {
    /// An address.
    Address(IpAddr),
    /// One place of a service.
    Service {
        /// Lower ones come first.
        priority: u16,
        /// Its share beside others of its priority.
        weight: u16,
        /// Where it listens.
        port: u16,
        /// Its host.
        host: String,
    },
}

/// A name server. Its thread ends with the test's process.
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    names: Mutex<HashMap<String, Vec<Record>>>,
    asked: AtomicUsize,
    is_silent: AtomicBool,
}

impl Dns {
    /// Starts one on a free port of loopback, which knows no name.
    pub fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let address = socket.local_addr().expect("it is bound");
        let shared = Arc::<Shared>::default();
        let serving = shared.clone();
        thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                serving.asked.fetch_add(1, Ordering::Relaxed);
                if !serving.is_silent.load(Ordering::Relaxed)
                    && let Some(answer) = serving.answer(&query[..length])
                {
                    // Who asked may have gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { address, shared }
    }

    /// Has a name stand for these from now on, each time for a second.
    pub fn set(&self, name: &str, records: &[Record]) {
        self.shared.names().insert(name.to_owned(), records.to_vec());
    }

    /// Has a name stand for these addresses.
    pub fn set_addresses(&self, name: &str, addresses: &[&str]) {
        let address = |text: &&str| Record::Address(text.parse().expect("an address"));
        self.set(name, &addresses.iter().map(address).collect::<Vec<_>>());
    }

    /// Answers nobody, or everybody again.
    pub fn silence(&self, is_silent: bool) {
        self.shared.is_silent.store(is_silent, Ordering::Relaxed);
    }

    /// How many questions came so far.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, HashMap<String, Vec<Record>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to a query of one question (RFC 1035, section 4).
    fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let (mut name, mut at) = (String::new(), 12);
        loop {
            let length = usize::from(*query.get(at)?);
            let label = query.get(at + 1..at + 1 + length)?;
            at += 1 + length;
            if length == 0 {
                break;
            }
            name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
            name.push('.');
        }
        let wanted = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
        let question = query.get(12..at + 4)?;
        let names = self.names();
        let records = names.get(name.trim_end_matches('.'));
        let answers: Vec<(u16, Vec<u8>)> = records.into_iter().flatten().map(Record::data).collect();
        let answers: Vec<_> = answers.into_iter().filter(|(kind, _)| *kind == wanted).collect();
        // An answer, recursion wanted and there; 3 says that there is no such name.
        let code: u16 = if records.is_some() { 0x8180 } else { 0x8183 };
        let count = u16::try_from(answers.len()).ok()?;
        let mut answer = query.get(..2)?.to_vec();
        for number in [code, 1, count, 0, 0] {
            answer.extend(number.to_be_bytes());
        }
        answer.extend(question);
        for (kind, data) in answers {
            // The name is that of the question; class IN.
            for number in [0xC00C, kind, 1, 0, 1, u16::try_from(data.len()).ok()?] {
                answer.extend(number.to_be_bytes());
            }
            answer.extend(data);
        }
        Some(answer)
    }
}

impl Record {
    /// Its type and data.
    fn data(&self) -> (u16, Vec<u8>) {
        match self {
            Self::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
            Self::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
            Self::Service { priority, weight, port, host } => {
                let mut data: Vec<u8> =
                    [priority, weight, port].into_iter().flat_map(|number| number.to_be_bytes()).collect();
                for label in host.split('.') {
                    data.push(u8::try_from(label.len()).expect("a label is short"));
                    data.extend(label.as_bytes());
                }
                data.push(0);
                (SRV, data)
            }
        }
    }
}
