//! HTTP/1.1 on the wire, on both sides: heads, bodies and connections (RFC 9112).
//!
//! It is ours and not hyper's for three reasons (docs/adr/0022-http-1-is-ours.md): what is refused is refused where it is read, an exchange is
//! one task from its client's socket to its target's, and a connection that waits keeps no buffer.

pub(crate) mod buffers;
mod chunk;
pub(crate) mod client;
pub(crate) mod date;
pub(crate) mod decoder;
pub(crate) mod encode;
pub(crate) mod fault;
pub(crate) mod fields;
pub(crate) mod interims;
pub(crate) mod io;
pub(crate) mod lines;
pub(crate) mod outbox;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod server;
pub(crate) mod wire;

pub(crate) use fault::Fault;
