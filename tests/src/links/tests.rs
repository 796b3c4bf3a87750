use std::io::{ErrorKind, Read, Write};

use super::*;
use crate::until;

const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes, each with an IP address of its own, and the relays to them.
struct Nodes {
    links: Links,
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
    relays: Vec<SocketAddr>,
}

fn nodes() -> Nodes {
    let (links, mut tcp, mut udp) = (Links::new(1), Vec::new(), Vec::new());
    let relays = (1..=3).map(|last| {
        let (listener, socket) = bind_both(SocketAddr::from(([127, 0, 0, last], 0)));
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = listener.local_addr().unwrap();
        tcp.push(listener);
        udp.push(socket);
        links.lead_to(SocketAddr::from(([127, 0, 0, 1], 0)), address, None)
    });
    let relays = relays.collect();
    Nodes { links, tcp, udp, relays }
}

impl Nodes {
    fn send(&self, from: usize, to: usize, text: &str) {
        self.udp[from].send_to(text.as_bytes(), self.relays[to]).unwrap();
    }

    fn receive(&self, at: usize) -> String {
        let mut buffer = [0; 100];
        let length = self.udp[at].recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// A connection from the first node to the second, as both see it. What is dialled from 127.0.0.1 is the first's.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let asking = TcpStream::connect(self.relays[1]).unwrap();
        let (answering, _) = self.tcp[1].accept().unwrap();
        for stream in [&asking, &answering] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        (asking, answering)
    }
}

fn say(mut from: &TcpStream, text: &str) {
    from.write_all(text.as_bytes()).unwrap();
}

fn hears(mut at: &TcpStream, text: &str) {
    let mut buffer = vec![0; text.len()];
    at.read_exact(&mut buffer).unwrap();
    assert_eq!(String::from_utf8_lossy(&buffer), text);
}

fn hears_nothing(mut at: &TcpStream) {
    at.set_nonblocking(true).unwrap();
    let error = at.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    at.set_nonblocking(false).unwrap();
}

#[test]
fn what_is_said_where_the_way_is_cut_arrives_when_it_is_healed() {
    let nodes = nodes();
    let (asking, answering) = nodes.connect();
    nodes.links.cut(0, 1);
    say(&asking, "question");
    say(&answering, "the way back stays");
    hears(&asking, "the way back stays");
    hears_nothing(&answering);
    nodes.links.heal();
    hears(&answering, "question");
    nodes.links.cut(1, 0);
    say(&answering, "answer");
    say(&asking, "the way there stays");
    hears(&answering, "the way there stays");
    hears_nothing(&asking);
    nodes.links.mend(1, 0);
    hears(&asking, "answer");
}

#[test]
fn no_connection_is_made_where_either_way_is_cut() {
    let nodes = nodes();
    nodes.tcp[1].set_nonblocking(true).unwrap();
    for way in [[0, 1], [1, 0]] {
        nodes.links.cut(way[0], way[1]);
        let asking = TcpStream::connect(nodes.relays[1]).unwrap();
        assert_eq!(nodes.tcp[1].accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        say(&asking, "at last");
        nodes.links.mend(way[0], way[1]);
        let (answering, _) = until("the connection is made", || nodes.tcp[1].accept().ok());
        answering.set_nonblocking(false).unwrap();
        hears(&answering, "at last");
    }
}

#[test]
fn the_end_of_what_is_said_is_passed_on() {
    let nodes = nodes();
    let (asking, answering) = nodes.connect();
    say(&asking, "all");
    asking.shutdown(std::net::Shutdown::Write).unwrap();
    let mut heard = String::new();
    (&answering).read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "all");
    say(&answering, "still");
    hears(&asking, "still");
}

#[test]
fn datagrams_are_lost_where_the_way_is_cut_for_them_and_connections_go_on() {
    let nodes = nodes();
    nodes.links.cut_carrier(Carrier::Udp, 0, 1);
    nodes.send(0, 1, "lost");
    nodes.send(2, 1, "from another");
    assert_eq!(nodes.receive(1), "from another");
    let (asking, answering) = nodes.connect();
    say(&asking, "question");
    hears(&answering, "question");
    nodes.links.mend(0, 1);
    nodes.send(0, 1, "healed");
    assert_eq!(nodes.receive(1), "healed");
}

#[test]
fn weather_is_for_each_way_until_it_is_healed() {
    let nodes = nodes();
    nodes.links.set_weather(&Weather { loss_percent: 100, delay_ms: 0..0 });
    nodes.links.set_weather_on(Carrier::Udp, 2, 1, &Weather::default());
    nodes.send(0, 1, "lost");
    nodes.send(2, 1, "from another");
    assert_eq!(nodes.receive(1), "from another");
    nodes.links.heal();
    nodes.send(0, 1, "healed");
    assert_eq!(nodes.receive(1), "healed");
}

#[test]
fn a_datagram_that_is_delayed_is_overtaken() {
    let nodes = nodes();
    nodes.links.set_weather_on(Carrier::Udp, 0, 1, &Weather { loss_percent: 0, delay_ms: 1_000..1_001 });
    nodes.send(0, 1, "slow");
    nodes.send(2, 1, "fast");
    assert_eq!([nodes.receive(1), nodes.receive(1)], ["fast", "slow"]);
}

#[test]
fn a_stream_keeps_its_order_in_bad_weather() {
    let nodes = nodes();
    nodes.links.set_weather(&Weather { loss_percent: 20, delay_ms: 0..20 });
    let (asking, answering) = nodes.connect();
    for number in 10..30 {
        say(&asking, &number.to_string());
        hears(&answering, &number.to_string());
    }
    for number in 10..99 {
        say(&asking, &number.to_string());
    }
    hears(&answering, &(10..99).map(|number| number.to_string()).collect::<String>());
}

#[test]
fn relays_end_with_the_links() {
    let Nodes { links, relays, .. } = nodes();
    drop(links);
    for relay in relays {
        until("nobody listens there any more", || TcpStream::connect(relay).is_err().then_some(()));
    }
}
