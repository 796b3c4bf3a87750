//! How a connection to a target comes to be.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{pool::Link, stream::Stream};
use crate::{
    plan::upstream::{CompiledTarget, TargetHost},
    server::KEEPALIVE,
    worker::Worker,
};

/// A new connection to this target, within `limit`; none if it can't be had.
pub(super) async fn connect(worker: &Rc<Worker>, target: &CompiledTarget, limit: Duration) -> Option<Link> {
    let connecting = async {
        let address: SocketAddr = match &target.host {
            TargetHost::Address(address) => *address,
            TargetHost::Dns(..) => worker.resolver.resolve(&target.address).await?,
        };
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
        Ok::<_, std::io::Error>(stream)
    };
    let stream = match worker.deadlines.within(limit, connecting).await {
        Some(Ok(stream)) => stream,
        Some(Err(error)) => {
            tracing::debug!(target = %target.address, %error, "a target can't be connected to");
            return None;
        }
        None => {
            tracing::debug!(target = %target.address, "a target takes no connection in time");
            return None;
        }
    };
    let (stream, held_up) = Stream::new(stream);
    let (sender, connection) = worker.client.handshake(TokioIo::new(stream)).await.ok()?;
    worker.metrics.upstream_connections_total.add(1);
    // Its failure is told to the exchange that uses it; idle, it is just gone from the pool.
    let task = tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(%error, "a connection to a target ended early");
        }
    });
    Some(Link { sender, task, held_up })
}
