//! A client's connection, from its first request to its end.

use std::{pin::Pin, rc::Rc, task::Poll};

use http::{Method, Response, StatusCode, Version, header};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Fault,
    encode::{self, Framing, Persistence},
    io::{Io, Rewound},
    outbox::Outbox,
    request::Head,
    wire::{Next, Wire},
};
use crate::{
    body::ResponseBody,
    connection::Connection,
    incoming::Incoming,
    proxy,
    upgrade::Tunnel,
    upload::{UNWANTED_BYTES_MAX, UPLOAD_WAIT},
    worker::Worker,
};

/// The most bytes that are read and thrown away from a client that was answered before it had sent
/// everything.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// What is to become of a connection after an exchange.
enum Then {
    /// Another request may come.
    Next,
    /// It ends.
    Close,
    /// It is another protocol's now.
    Tunnel(Box<Tunnel>),
}

/// What of a request decides how it is answered.
struct Asked {
    is_head: bool,
    version: Version,
    keep_alive: bool,
    trailers: bool,
}

/// Serves the connection to its end.
pub(crate) async fn serve(worker: &Rc<Worker>, io: Io, connection: &Rc<Connection>) {
    let wire = Rc::new(Wire::new(io, connection.watch.clone()));
    loop {
        let then = match next(worker, &wire, connection).await {
            Next::Request(head) => exchange(worker, &wire, connection, head).await,
            Next::End => Some(Then::Close),
            Next::Bad(fault) => {
                let message = connection.refuse_head(worker, fault);
                refuse(&wire, connection, fault, &message).await;
                Some(Then::Close)
            }
        };
        match then {
            Some(Then::Next) => {}
            Some(Then::Close) => {
                close(&wire, connection).await;
                break;
            }
            Some(Then::Tunnel(tunnel)) => {
                if let Some(wire) = Rc::into_inner(wire) {
                    let (io, first) = wire.into_parts();
                    tunnel.run(worker, Rewound::new(first, io)).await;
                }
                return;
            }
            None => break,
        }
    }
    match connection.watch.refused().map(Fault::limit) {
        Some(Some(limit)) => worker.metrics.limited(limit),
        Some(None) => worker.metrics.framing_refusals.add(1),
        None => {}
    }
}

/// The next request; none once the connection is to end.
async fn next(worker: &Worker, wire: &Wire, connection: &Connection) -> Next {
    std::future::poll_fn(|cx| {
        if connection.must_end() {
            return Poll::Ready(Next::End);
        }
        let next = wire.poll_next(&worker.settings.limits, cx);
        if next.is_pending() {
            // What has come already is answered before.
            if connection.is_finishing() && wire.is_between() {
                return Poll::Ready(Next::End);
            }
            connection.wake_by(cx.waker());
        }
        next
    })
    .await
}

/// Answers one request; none if the connection has ended meanwhile.
async fn exchange(
    worker: &Rc<Worker>,
    wire: &Rc<Wire>,
    connection: &Rc<Connection>,
    head: Head,
) -> Option<Then> {
    let Head { parts, decoder, keep_alive, expects, trailers } = head;
    let asked = Asked { is_head: parts.method == Method::HEAD, version: parts.version, keep_alive, trailers };
    let body = wire.begin(decoder, expects).map_or(Incoming::Empty, Incoming::H1);
    let response = {
        // In a place of its own, which a connection that waits does without.
        let mut handling = Box::pin(proxy::handle(worker.clone(), connection.clone(), parts, body, None));
        std::future::poll_fn(|cx| {
            if connection.must_end() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            connection.wake_by(cx.waker());
            wire.tell(&connection.interims.take());
            let is_gone = matches!(wire.poll_told(cx), Poll::Ready(Err(_))) || wire.poll_gone(cx).is_ready();
            if is_gone { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    };
    respond(worker, wire, connection, response?, &asked).await
}

/// Writes a response, and reads what is left of the request.
async fn respond(
    worker: &Worker,
    wire: &Rc<Wire>,
    connection: &Connection,
    response: Response<ResponseBody>,
    asked: &Asked,
) -> Option<Then> {
    wire.tell(&connection.interims.take());
    let (head, mut body) = response.into_parts();
    let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !wire.is_between() {
        // It did not wait for the 101. What it has sent may be meant as a request.
        body.answers(StatusCode::BAD_REQUEST);
        let id = body.take_tunnel().and_then(|tunnel| tunnel.id).unwrap_or_else(|| worker.ids.make());
        let message = Connection::refuse_answer(worker, Fault::Ahead, &id);
        refuse(wire, connection, Fault::Ahead, &message).await;
        return Some(Then::Close);
    }
    let has_none = head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let bare = asked.is_head || has_none;
    let framing = match body.size_hint().exact() {
        _ if bare => Framing::None,
        Some(length) => Framing::Length(length),
        None if asked.version == Version::HTTP_11 => Framing::Chunked,
        None => Framing::Close,
    };
    let closes = !asked.keep_alive
        || framing == Framing::Close
        || connection.is_finishing()
        || head.headers.get(header::CONNECTION).is_some_and(|value| value == "close");
    let persistence = match closes {
        _ if switches => Persistence::Implied,
        true => Persistence::Close,
        false if asked.version == Version::HTTP_10 => Persistence::KeepAlive,
        false => Persistence::Implied,
    };
    let mut outbox = Outbox::new(framing, |out| {
        wire.answering(out);
        // Of a body that a GET would be sent (RFC 9110, section 8.6).
        let length = if asked.is_head && !has_none { body.own_length() } else { None };
        encode::response(out, head.status, &head.headers, framing, persistence, length);
    });
    if closes && !switches {
        outbox.and_close();
    }
    // What the target's answer was read into is used again once nothing of it is in use.
    drop(head);
    let sent = std::future::poll_fn(|cx| {
        if connection.must_end() {
            return Poll::Ready(false);
        }
        let before = outbox.written_bytes();
        let sent = outbox.poll_send(&wire.io, Pin::new(&mut body), asked.trailers, cx);
        connection.wrote(outbox.written_bytes() - before, outbox.waits());
        if sent.is_pending() {
            // A target that answers early may want more of the request before it says more.
            body.poll_upload(cx);
            connection.wake_by(cx.waker());
            if wire.poll_gone(cx).is_ready() {
                return Poll::Ready(false);
            }
        }
        sent.map(|sent| {
            sent.inspect_err(|error| tracing::debug!(peer = %connection.peer, %error, "an answer broke off"))
                .is_ok()
        })
    })
    .await;
    if !sent {
        if framing == Framing::Close {
            // RFC 9112, section 8.
            wire.io.borrow().break_off();
        }
        return None;
    }
    if switches {
        connection.watch.become_tunnel();
        return body.take_tunnel().map(Then::Tunnel);
    }
    drop(outbox);
    // A target goes on to get what it has answered already, whatever comes after.
    let goes_on = !(closes && wire.is_unwanted());
    let read = wire.is_read() || (goes_on && read_rest(worker, wire, connection, &mut body).await);
    drop(body);
    Some(if read && !closes && connection.watch.refused().is_none() { Then::Next } else { Then::Close })
}

/// Reads what is left of a request that is answered: to the target that has answered it, or to nobody. False if that does not
/// come to its end, or stands still.
async fn read_rest(worker: &Worker, wire: &Wire, connection: &Connection, body: &mut ResponseBody) -> bool {
    let mut left = UNWANTED_BYTES_MAX;
    let unwanted = wire.is_unwanted();
    loop {
        let before = wire.taken_bytes();
        let reading = std::future::poll_fn(|cx| {
            if connection.must_end() {
                return Poll::Ready(false);
            }
            connection.wake_by(cx.waker());
            if unwanted {
                return wire.poll_read_away(&mut left, cx);
            }
            body.poll_upload(cx);
            wire.poll_taken(cx)
        });
        match worker.deadlines.within(UPLOAD_WAIT, reading).await {
            Some(read) => return read,
            None if before == wire.taken_bytes() => return false,
            None => {}
        }
    }
}

/// Answers what is no request with this message. It is the last answer on the connection.
async fn refuse(wire: &Wire, connection: &Connection, fault: Fault, message: &[u8]) {
    if fault != Fault::Syntax {
        connection.watch.refuse(fault);
    }
    let mut outbox = Outbox::new(Framing::None, |out| {
        wire.answering(out);
        out.extend_from_slice(message);
    });
    let mut body = std::pin::pin!(ResponseBody::empty());
    std::future::poll_fn(|cx| {
        if connection.must_end() {
            return Poll::Ready(());
        }
        let before = outbox.written_bytes();
        let sent = outbox.poll_send(&wire.io, body.as_mut(), false, cx);
        connection.wrote(outbox.written_bytes() - before, outbox.waits());
        connection.wake_by(cx.waker());
        sent.map(drop)
    })
    .await;
}

/// Ends the connection. A client that is still sending is listened to for a little, since closing on unread bytes resets the
/// connection and may take the answer with it (RFC 9112, section 9.6).
async fn close(wire: &Wire, connection: &Connection) {
    let mut shut = false;
    let mut bytes = 0;
    std::future::poll_fn(|cx| {
        if connection.must_end() {
            return Poll::Ready(());
        }
        connection.wake_by(cx.waker());
        let io = &mut *wire.io.borrow_mut();
        if matches!(io, Io::Tcp(_)) && !wire.is_sending() {
            // It ends by being closed.
            return Poll::Ready(());
        }
        if !shut {
            if std::task::ready!(Pin::new(&mut *io).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            shut = true;
            connection.watch.linger();
        }
        let mut scratch = [0; 2048];
        while wire.is_sending() && bytes < LINGER_BYTES_MAX {
            let mut buf = ReadBuf::new(&mut scratch);
            match std::task::ready!(Pin::new(&mut *io).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => bytes += buf.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    })
    .await;
}
