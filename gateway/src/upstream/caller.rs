//! For whom a request is sent to targets, and what is told of it before it is answered.

use http::{StatusCode, Version, response::Parts};

use crate::{connection::Connection, h1::encode, headers, worker::Worker};

/// For whom a request is sent to targets.
#[derive(Debug)]
pub(crate) struct Caller<'a> {
    /// The connection that it has come on.
    pub(crate) connection: &'a Connection,
    /// Whether there is somebody to be told of interim responses.
    hears: bool,
}

impl<'a> Caller<'a> {
    /// The connection's client, which has asked in this version. It hears of interim responses in HTTP/1.1 alone: in HTTP/1.0 there are none
    /// (RFC 9110, section 15.2), and in HTTP/2 hyper can't send them.
    pub(crate) fn client(connection: &'a Connection, version: Version) -> Self {
        Self { connection, hears: version == Version::HTTP_11 }
    }

    /// The gateway itself, on account of the connection.
    pub(crate) fn gateway(connection: &'a Connection) -> Self {
        Self { connection, hears: false }
    }

    /// Passes an interim response on (RFC 9110, section 15.2), without what is of one hop. A 100 is not: whoever waits for one gets it from the
    /// gateway, which asks no target for it.
    pub(super) fn hear(&self, worker: &Worker, mut head: Parts) {
        if !self.hears || head.status == StatusCode::CONTINUE {
            return;
        }
        headers::clean_response(&mut head.headers, false);
        self.connection.interims.push(|out| encode::interim(out, head.status, &head.headers));
        worker.metrics.interims.add(1);
    }
}
