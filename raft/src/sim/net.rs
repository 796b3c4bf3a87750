//! A network between nodes of one process, whose faults a seed decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use model::NodeId;
use tonic::{body::Body, service::Routes};
use tower::{ServiceExt, service_fn};

use super::runtime::{ms, percent};
use crate::{CallError, Channel, Error, PeerId, dial::Dial};

/// For how long a call hangs that gets no answer: longer than whoever called waits.
const FOREVER: Duration = Duration::from_secs(3_600);

/// How messages fare on their way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Of a hundred messages, so many are lost, with the connection they were on.
    pub(crate) loss: u64,
    /// The longest that a message takes.
    pub(crate) delay_ms: u64,
}

#[derive(Clone)]
struct Listener {
    node: NodeId,
    alive: Arc<AtomicBool>,
    routes: Routes,
}

#[derive(Default)]
struct State {
    listeners: BTreeMap<String, Listener>,
    /// From whom to whom nothing gets.
    cut: BTreeSet<(NodeId, NodeId)>,
    weather: Weather,
}

/// The network.
#[derive(Default)]
pub(crate) struct Net {
    state: Mutex<State>,
}

fn failed(what: &str) -> CallError {
    CallError(Box::new(tonic::Status::unavailable(what)))
}

impl Net {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Has this process of a node answer at this address for as long as it is alive.
    pub(crate) fn listen(&self, address: &str, node: NodeId, alive: Arc<AtomicBool>, routes: Routes) {
        // axum builds its table of routes with the first call otherwise, for each clone anew.
        let routes = routes.prepare();
        self.lock().listeners.insert(address.to_owned(), Listener { node, alive, routes });
    }

    /// Forgets who answers where. Nodes hold the network, and it holds them: else neither would ever be freed.
    pub(crate) fn close(&self) {
        self.lock().listeners.clear();
    }

    /// Lets nothing from these to those.
    pub(crate) fn cut(&self, from: &[NodeId], to: &[NodeId]) {
        let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (*from, *to)));
        self.lock().cut.extend(pairs);
    }

    /// Lets everything through again.
    pub(crate) fn heal(&self) {
        self.lock().cut.clear();
    }

    /// From now on.
    pub(crate) fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// One message on its way; an error where its connection broke.
    async fn travel(&self, from: NodeId, to: NodeId) -> Result<(), CallError> {
        let weather = self.lock().weather;
        tokio::time::sleep(ms(0, weather.delay_ms.max(1))).await;
        if self.lock().cut.contains(&(from, to)) {
            tokio::time::sleep(FOREVER).await;
        }
        if percent(weather.loss) { Err(failed("the connection broke")) } else { Ok(()) }
    }

    async fn call(
        &self,
        from: (NodeId, &AtomicBool),
        address: &str,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        let (from, alive) = from;
        let listener = self.lock().listeners.get(address).cloned();
        let Some(listener) = listener.filter(|listener| listener.alive.load(Ordering::SeqCst)) else {
            let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
            return Err(CallError(Box::new(tonic::ConnectError(Box::new(refused)))));
        };
        self.travel(from, listener.node).await?;
        let dead = |alive: &AtomicBool| !alive.load(Ordering::SeqCst);
        if dead(alive) || dead(&listener.alive) {
            return Err(failed("the process ended"));
        }
        request.extensions_mut().insert(PeerId(Some(from)));
        let routes = listener.routes;
        // On its own, for what has arrived is worked on whether or not the caller still waits.
        let answering = tokio::spawn(async move { routes.oneshot(request).await });
        let answer = match answering.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(CallError(error.into())),
            Err(_) => return Err(failed("the process ended")),
        };
        if dead(&listener.alive) {
            return Err(failed("the process ended"));
        }
        self.travel(listener.node, from).await?;
        Ok(answer)
    }
}

/// How one process of a node calls the others.
pub(crate) struct SimDial {
    pub(crate) net: Arc<Net>,
    pub(crate) node: NodeId,
    pub(crate) alive: Arc<AtomicBool>,
}

impl Dial for SimDial {
    fn dial(&self, _: NodeId, address: &str) -> Result<Channel, Error> {
        let (net, node, alive, address) =
            (self.net.clone(), self.node, self.alive.clone(), address.to_owned());
        Ok(Channel::new(service_fn(move |request: Request<Body>| {
            let (net, alive, address) = (net.clone(), alive.clone(), address.clone());
            async move { net.call((node, &alive), &address, request).await }
        })))
    }
}
