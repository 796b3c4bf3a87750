//! The one who reads the gossip socket: opens what comes, hands chitchat its messages, and has counters of rate limits and
//! findings of checks told and heard.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use chitchat::{ChitchatMessage, Deserializable};
use model::NodeId;
use tokio::{
    net::UdpSocket,
    sync::mpsc::{self, error::TrySendError},
    time::sleep_until,
};

use super::{
    seal::{Boot, Drop, Kind, Opened, Opener},
    transport::{self, Contact, DATAGRAM_BYTES_MAX, Heard, Members, Messages, Outlet, transient},
};
use crate::{counters::Counters, findings::Findings};

/// Messages that wait for chitchat; more are lost, as datagrams may be.
const MESSAGES_MAX: usize = 256;
/// Datagrams that are read in a row before counters are seen to.
const IN_A_ROW_MAX: usize = 64;

/// Reads the socket.
pub(super) struct Reader {
    socket: Arc<UdpSocket>,
    members: Arc<ArcSwap<Members>>,
    /// The version of the members that the openers know.
    version: u64,
    gossip: Opener,
    counted: Opener,
    found: Opener,
    outlet: Outlet,
    findings_outlet: Outlet,
    metrics: transport::Metrics,
    heard: Heard,
    messages: mpsc::Sender<std::io::Result<(NodeId, ChitchatMessage)>>,
    counters: Counters,
    findings: Findings,
    node: NodeId,
    buffer: Vec<u8>,
}

impl Reader {
    /// Of this socket; and chitchat's messages as they will come.
    pub(super) fn new(
        socket: Arc<UdpSocket>,
        (node, boot): (NodeId, Boot),
        members: Arc<ArcSwap<Members>>,
        metrics: transport::Metrics,
        heard: Heard,
        (counters, findings): (Counters, Findings),
    ) -> (Self, Messages) {
        let (messages, taken) = mpsc::channel(MESSAGES_MAX);
        let reader = Self {
            outlet: Outlet::new(Kind::Counters, node, boot, socket.clone(), heard.clone()),
            findings_outlet: Outlet::new(Kind::Findings, node, boot, socket.clone(), heard.clone()),
            socket,
            members,
            version: 0,
            gossip: Opener::new(Kind::Gossip),
            counted: Opener::new(Kind::Counters),
            found: Opener::new(Kind::Findings),
            metrics,
            heard,
            messages,
            counters,
            findings,
            node,
            buffer: vec![0; DATAGRAM_BYTES_MAX + 1],
        };
        (reader, taken)
    }

    /// Reads until the socket is broken or nobody wants its messages any more.
    pub(super) async fn run(mut self) {
        let (rates, checks) = (self.counters.rates().clone(), self.findings.checks().clone());
        loop {
            let at = self.tell();
            tokio::select! {
                received = self.socket.recv_from(&mut self.buffer) => {
                    let mut received = Some(received);
                    for _ in 0..IN_A_ROW_MAX {
                        match received.take() {
                            Some(Ok((length, from))) => self.take(length, from),
                            // An ICMP answer to something sent earlier; the socket is as good as before.
                            Some(Err(error)) if transient(&error) => {}
                            Some(Err(error)) => {
                                // chitchat ends by it; if it has ended already, so has gossip.
                                let _ = self.messages.send(Err(error)).await;
                                return;
                            }
                            None => break,
                        }
                        received = match self.socket.try_recv_from(&mut self.buffer) {
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
                            other => Some(other),
                        };
                    }
                }
                () = rates.due() => self.counters.have_come_due(),
                () = checks.is_urgent() => self.findings.have_come_due(),
                () = sleep_until(at.into()) => {}
                () = self.messages.closed() => return,
            }
        }
    }

    /// Takes a datagram, or counts why not.
    fn take(&mut self, length: usize, from: std::net::SocketAddr) {
        match self.open(length, from) {
            Ok(()) => self.metrics.received.inc(),
            Err(reason) => {
                self.metrics.drop(reason);
                tracing::debug!(%from, reason = reason.as_str(), "a gossip datagram was dropped");
            }
        }
    }

    fn open(&mut self, length: usize, from: std::net::SocketAddr) -> Result<(), Drop> {
        let members = self.members.load_full();
        if members.version != self.version {
            self.version = members.version;
            let is_member = |node| members.addresses.contains_key(&node);
            self.gossip.rekey(is_member);
            self.counted.rekey(is_member);
            self.found.rekey(is_member);
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).retain(|node, _| is_member(*node));
        }
        let datagram = &mut self.buffer[..length];
        let is_member = |node| members.addresses.contains_key(&node);
        let now = Instant::now();
        let sender = match Kind::of(datagram) {
            Some(Kind::Counters) => {
                let Opened { from, boot, body } = self.counted.open(&members.keyring, datagram, is_member)?;
                self.counters.hear(from, boot.started_ms, body, now).map_err(|_| Drop::Message)?;
                from
            }
            Some(Kind::Findings) => {
                let Opened { from, body, .. } = self.found.open(&members.keyring, datagram, is_member)?;
                self.findings.hear(from, body, now).map_err(|_| Drop::Message)?;
                from
            }
            _ => {
                let opened = self.gossip.open(&members.keyring, datagram, is_member)?;
                let (from, mut body) = (opened.from, opened.body);
                let message = ChitchatMessage::deserialize(&mut body).map_err(|_| Drop::Message)?;
                match self.messages.try_send(Ok((from, message))) {
                    Ok(()) | Err(TrySendError::Closed(_)) => {}
                    Err(TrySendError::Full(_)) => return Err(Drop::Busy),
                }
                from
            }
        };
        let contact = Contact { at: now, from };
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(sender, contact);
        Ok(())
    }

    /// Tells the other members what they are to be told now. Gives when to do so again.
    fn tell(&mut self) -> Instant {
        let members = self.members.load_full();
        let Self { counters, findings, outlet, findings_outlet, node, .. } = self;
        let now = Instant::now();
        let counters_at = counters.tell(&members.addresses, now, |body, to| send(outlet, &members, body, to));
        let findings_at = findings
            .tell(*node, &members.addresses, now, |body, to| send(findings_outlet, &members, body, to));
        counters_at.min(findings_at)
    }
}

/// Sends this body to these members. What can't be sent now is as good as lost on its way, and comes again.
fn send(outlet: &mut Outlet, members: &Members, body: &[u8], to: &[NodeId]) {
    let Some(datagram) = outlet.seal(members, body) else { return };
    for node in to {
        let Some(address) = outlet.address(members, *node) else { continue };
        if let Err(error) = outlet.socket.try_send_to(&datagram, address) {
            tracing::debug!(%node, %address, %error, "a datagram was not sent");
        }
    }
}
