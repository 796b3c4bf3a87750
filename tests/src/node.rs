//! A node as a process of its own.

use std::{
    collections::BTreeMap,
    fs::File,
    net::{SocketAddr, TcpListener, UdpSocket},
    ops::Range,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::Value;

use crate::{Admin, links::Links, until};

/// An address on loopback whose port is free for TCP and UDP, and stays free while nobody listens there: it
/// is below those that Linux gives to outgoing connections, one of which would keep a node from coming back.
pub fn free_port() -> SocketAddr {
    const PORTS: Range<u32> = 20_000..32_000;
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Processes side by side begin far from each other, even where one has the next number after the other's: those that take
        // ports for long would come into each other's way (the multiplier is Knuth's, of the golden ratio).
        let first = std::process::id().wrapping_mul(2_654_435_769) >> 8;
        let turn = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = PORTS.start + turn % (PORTS.end - PORTS.start);
        let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).expect("it is below 32,000")));
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// A node. Killed when dropped.
pub struct Node {
    /// Where it serves clients.
    pub proxy: SocketAddr,
    /// Where other nodes reach it.
    pub peer: SocketAddr,
    /// Where it serves the admin API over TLS.
    pub admin_tls: SocketAddr,
    /// Its admin API, on its socket.
    pub admin: Admin,
    /// Its data folder.
    pub data: PathBuf,
    /// What it is told by its environment; holds from its next start.
    pub environment: BTreeMap<String, String>,
    /// The gwnode that it is; holds from its next start.
    pub program: PathBuf,
    listens: SocketAddr,
    child: Option<Child>,
    pid: Arc<AtomicU32>,
}

impl Node {
    /// A node that is not started yet, with its data in this folder; others reach it by way of these links,
    /// if any.
    pub fn new(program: &Path, data: PathBuf, links: Option<&Links>) -> Self {
        let (proxy, listens, admin_tls) = (free_port(), free_port(), free_port());
        let admin = Admin::at(&data);
        let pid = Arc::<AtomicU32>::default();
        let peer = links.map_or(listens, |links| {
            links.lead_to(SocketAddr::from(([127, 0, 0, 1], 0)), listens, Some(pid.clone()))
        });
        let (program, environment) = (program.to_owned(), BTreeMap::new());
        Self { proxy, peer, admin_tls, admin, data, environment, program, listens, child: None, pid }
    }

    fn spawn(&self) -> Child {
        let log = File::options().create(true).append(true).open(self.log()).expect("the log can be written");
        let child = Command::new(&self.program)
            .args(["run", "--promote-after", "200ms", "--workers", "1", "--grace", "20s", "--data"])
            .arg(&self.data)
            .args(["--proxy", &self.proxy.to_string(), "--admin", &self.admin_tls.to_string()])
            .args(["--peer", &self.listens.to_string(), "--advertise", &self.peer.to_string()])
            .envs(&self.environment)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("gwnode starts");
        self.pid.store(child.id(), Ordering::Relaxed);
        child
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// What it has written to its log.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Has it found a cluster again from a backup or the data folder of a member, before its first start; gives what came of it.
    pub fn restore(&self, source: &Path) -> Output {
        Command::new(&self.program)
            .arg("restore")
            .arg(source)
            .arg("--data")
            .arg(&self.data)
            .args(["--peer", &self.listens.to_string(), "--advertise", &self.peer.to_string()])
            .args(["--admin", &self.admin_tls.to_string()])
            .output()
            .expect("gwnode runs")
    }

    /// Starts it, and waits until it answers on its socket.
    pub fn start(&mut self) {
        let started = self.try_start();
        assert!(started.is_ok(), "the node ended: {started:?}\n{}", self.log_text());
    }

    /// Starts it, and waits until it answers on its socket or has ended by itself.
    ///
    /// # Errors
    /// How it ended, if it did.
    pub fn try_start(&mut self) -> Result<(), ExitStatus> {
        let mut child = self.spawn();
        until("a node answers on its socket or ends", || match child.try_wait() {
            Ok(Some(ended)) => Some(Err(ended)),
            _ => self.admin.ask("GET", "/healthz", &Value::Null).ok().map(|_| Ok(())),
        })?;
        self.child = Some(child);
        Ok(())
    }

    /// The id of its process; none if it was ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts it, and waits until it ends by itself.
    pub fn start_in_vain(&mut self) -> ExitStatus {
        self.spawn().wait().expect("it can be waited for")
    }

    /// Ends it with SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Tells it to stop with SIGTERM.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// Holds it with SIGSTOP: it keeps its connections, and does nothing until it is resumed.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("the node runs");
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(sent.is_ok_and(|sent| sent.success()), "kill {signal}");
    }

    /// Tells it to stop with SIGTERM, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.terminate();
        self.ended()
    }

    /// Waits until it has ended.
    pub fn ended(&mut self) -> ExitStatus {
        self.child.take().expect("the node runs").wait().expect("it can be waited for")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log_text();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            eprintln!("--- the end of {}\n{}", self.log().display(), last.join("\n"));
        }
    }
}
