//! The life of one exchange: checked, routed, allowed, changed, forwarded, and answered.

use std::{borrow::Cow, net::IpAddr, rc::Rc, sync::Arc, time::SystemTime};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request::Parts,
};

use crate::{
    access::Note,
    after::{About, After, Permit},
    authority::{self, Addressed},
    body::{Ending, ResponseBody},
    connection::Connection,
    error::{Fault, X_REQUEST_ID},
    exchange::{Exchange, Refusal, Reply, Verdict},
    forwarded,
    grpc::{self, Call},
    headers, http2,
    incoming::Incoming,
    path,
    plan::{Action, CompiledRoute, Head, Plan},
    settings::Limit,
    streams::Open,
    upgrade,
    upload::{RequestBody, Upload},
    upstream::{self, Answer, Times, caller::Caller, mirror::Copies, pace::Pace},
    websocket,
    worker::Worker,
};

const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
const TE: HeaderValue = HeaderValue::from_static("te");

/// Why the gateway itself says no.
enum No {
    Fault(Fault),
    Refusal(Refusal),
}

impl From<Fault> for No {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Answers one request; of HTTP/2, it has a stream.
pub(crate) async fn handle(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    mut head: Box<Parts>,
    body: Incoming,
    stream: Option<Open>,
) -> Response<ResponseBody> {
    let mut ending = Box::new(Ending::of(worker.clone(), connection.clone(), stream));
    let id = worker.ids.of(&head.headers, connection.trusted);
    let malformed = if head.version == Version::HTTP_2 { http2::as_http1(&mut head).err() } else { None };
    let is_websocket = head.extensions.get::<websocket::Key>().is_some();
    let mut upload = Upload::of(&head, body);
    if let Some((stream, upload)) = ending.stream.as_ref().zip(upload.as_ref()) {
        upload.progress().tell(stream);
    }
    if worker.access.is_some() {
        let client = client(&worker, &connection, &head.headers);
        ending.note = Note::of(client, &head, &id, upload.as_ref().map(Upload::progress));
    }
    let call = Call::of(&head.method, &head.headers);
    let mut after = After { call, ..After::default() };
    let answer = match malformed {
        Some(fault) => Err(No::Fault(fault)),
        None => answer(&worker, &connection, head, &mut upload, &id, &mut ending.note, &mut after).await,
    };
    let say = |fault: &Fault| match &after.call {
        Some(call) => call.refusal(fault, &id),
        None => fault.response(&id),
    };
    let mut problem = None;
    let mut response = match answer {
        // To the client a success would be the tunnel that it has asked for.
        Ok(response) if is_websocket && websocket::is_false_success(&response) => {
            worker.metrics.refused(Fault::BAD_GATEWAY.code);
            problem = Fault::BAD_GATEWAY.problem();
            Fault::BAD_GATEWAY.response(&id)
        }
        Ok(response) => response,
        Err(No::Fault(fault)) => {
            worker.metrics.refused(fault.code);
            problem = fault.problem();
            say(&fault)
        }
        Err(No::Refusal(refusal)) => {
            worker.metrics.refused(refusal.code);
            tracing::debug!(reason = refusal.reason, ?id, "a request is refused");
            let fault = Fault::refusal(refusal.code, refusal.detail, refusal.form);
            problem = fault.problem();
            let mut response = say(&fault);
            response
                .headers_mut()
                .extend(refusal.headers.into_iter().map(|(name, value)| (Some(name), value)));
            response
        }
    };
    ending.permits = std::mem::take(&mut after.permits);
    let about = About { problem, id: &id, metrics: &worker.metrics, encoders: &worker.encoders };
    after.finish(&mut response, &about, &worker.settings.rate_limits, now_us);
    match (upload, &ending.stream) {
        // What is not read of a stream's body takes nothing from others; the client is told to keep it (RFC 9113, section 8.1).
        (_, Some(stream)) => stream.answered(),
        (Some(upload), None) => upload.leave(response.headers_mut()),
        (None, None) => {}
    }
    ending.status = response.status();
    response.body_mut().ends(ending);
    response
}

/// The answer; an `upload` that is there at the end is one that no target has answered.
async fn answer(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    mut head: Box<Parts>,
    upload: &mut Option<Upload>,
    id: &HeaderValue,
    note: &mut Note,
    after: &mut After,
) -> Result<Response<ResponseBody>, No> {
    let limits = &worker.settings.limits;
    if head.headers.len() > limits.headers_max {
        return Err(Fault::headers_too_many().into());
    }
    let Addressed { authority, host } = authority::of(&head, limits.target_bytes_max, &connection.host)?;
    let found = headers::clean_request(&mut head.headers, connection.trusted);
    if found.expects_more {
        return Err(Fault::expectation().into());
    }
    if head.method == Method::TRACE && upload.is_some() {
        // RFC 9110, section 9.3.8.
        return Err(Fault::bad_request("A TRACE has no body").into());
    }
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        // It asks of the server as a whole, which is not any target (RFC 9112, section 3.2.4).
        return Ok(Response::new(ResponseBody::empty()));
    }
    if let Some((bytes_max, upload)) = limits.body_bytes_max.zip(upload.as_ref())
        && let Err(fault) = upload.limit(bytes_max)
    {
        worker.metrics.limited(Limit::BodyBytes);
        return Err(fault.into());
    }
    let plan = worker.plan();
    if !connection.may_ask(&host, &plan.certificates) {
        // The next one begins with a handshake for the host that it is for.
        connection.finish();
        return Err(Fault::MISDIRECTED.into());
    }

    let path = path::normalise(head.uri.path())
        .map_err(|_| Fault::bad_request("The path is not one that is safe to forward"))?;
    let query = head.uri.query();
    if query.is_some_and(|query| !query.is_ascii()) {
        return Err(Fault::bad_request("The query is not ASCII").into());
    }
    let wanted = Head { method: &head.method, host: &host, path: &path, query, headers: &head.headers };
    let matched = plan.route(&wanted).ok_or(Fault::NO_ROUTE)?;
    let (route, index) = (matched.route, matched.index);
    note.route(&route.name);

    let mut changed_query = None;
    if !route.policies.is_empty() {
        let caller = client(worker, connection, &head.headers);
        let mut exchange = Exchange {
            plan: &plan,
            route,
            method: &head.method,
            host: &host,
            path: &path,
            query: query.map(Cow::Borrowed),
            headers: &mut head.headers,
            id,
            client: caller,
            certificate: connection.certificate(),
            now_us: now_us(),
            lease: &worker.settings.lease,
            rates: &worker.settings.rate_limits,
            consumer: None,
            groups: &[],
            key: None,
            after,
        };
        let allowed = allow(&plan, route, &mut exchange);
        note.consumer(exchange.consumer.as_ref());
        if let Some(Cow::Owned(query)) = exchange.query {
            changed_query = Some(query);
        } else if exchange.query.is_none() && query.is_some() {
            changed_query = Some(String::new());
        }
        if let Some(delay) = after.delay {
            worker.metrics.delays.add(1);
            worker.deadlines.within(delay, std::future::pending::<()>()).await;
        }
        if let Some(reply) = allowed? {
            return Ok((*reply).into());
        }
        if let Some((bytes_max, upload)) = after.body_bytes_max.zip(upload.as_ref()) {
            upload.limit(bytes_max)?;
        }
    }

    let weighted = match &route.action {
        Action::Forward(weighted) => weighted,
        Action::Redirect(redirect) => {
            let scheme = forwarded::scheme(&head.headers, connection.trusted, connection.scheme());
            let to = authority.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
            let location = route.location(redirect, index, scheme, to, &path, query);
            let location = HeaderValue::try_from(location)
                .map_err(|_| Fault::bad_request("The request can't be redirected"))?;
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = redirect.status;
            response.headers_mut().insert(header::LOCATION, location);
            return Ok(finished(route, response));
        }
        Action::Respond(fixed) => {
            let mut response = Response::new(ResponseBody::full(fixed.body.clone()));
            *response.status_mut() = fixed.status;
            *response.headers_mut() = fixed.headers.clone();
            return Ok(finished(route, response));
        }
    };
    if !may_go_further(&head.method, &mut head.headers) {
        return Ok(finished(route, Response::new(ResponseBody::empty())));
    }
    // Not counted as used once more: all cores write that count, and the Plan is pinned.
    let mut upstream =
        weighted.pick(worker.turn()).and_then(|name| plan.upstream(name)).ok_or(Fault::UNAVAILABLE)?;
    let resolved;
    if upstream.is_awaited {
        resolved = Box::pin(upstream::resolved(worker, upstream.clone())).await;
        upstream = &resolved;
    }
    if let Some(binding) = &upstream.binding {
        let query = changed_query.as_deref().or(query);
        let affinity = binding.of(&head.headers, query, || client(worker, connection, &head.headers));
        head.extensions.insert(affinity);
    }

    // From here on the head is the target's.
    let forward_path = route.forward_path(index, &path);
    let query = changed_query.as_deref().or(query).filter(|query| !query.is_empty());
    let unchanged = changed_query.is_none()
        && head.uri.authority().is_none()
        && matches!((&path, &forward_path), (Cow::Borrowed(_), Cow::Borrowed(to)) if *to == head.uri.path());
    let uri = if unchanged { None } else { Some(target(&forward_path, query)?) };
    if let Some(uri) = uri {
        head.uri = uri;
    }
    let version = std::mem::replace(&mut head.version, Version::HTTP_11);
    route.request.apply(&mut head.headers);
    if !forwarded::add(
        &mut head.headers,
        &connection.peer_value,
        connection.trusted,
        authority.as_ref(),
        version,
        connection.secure,
    ) {
        return Err(Fault::LOOP.into());
    }
    if let Some(certificate) = connection.certificate() {
        certificate.tell(&mut head.headers);
    }
    head.headers.insert(X_REQUEST_ID, id.clone());
    if let Some(host) = route.forward_host() {
        head.headers.insert(header::HOST, host.clone());
    } else if authority.is_none() {
        head.headers.insert(header::HOST, HeaderValue::from_static(""));
    }
    if found.trailers || after.wants_trailers {
        head.headers.insert(header::TE, TRAILERS);
        head.headers.insert(header::CONNECTION, TE);
    }
    send(worker, connection, &plan, route, upstream, head, version, upload, found, note, after).await
}

#[expect(clippy::too_many_arguments, reason = "the parts of one exchange, in one place")]
async fn send(
    worker: &Rc<Worker>,
    connection: &Rc<Connection>,
    plan: &Plan,
    route: &CompiledRoute,
    upstream: &Arc<crate::plan::CompiledUpstream>,
    head: Box<Parts>,
    version: Version,
    upload: &mut Option<Upload>,
    found: headers::Found,
    note: &mut Note,
    after: &mut After,
) -> Result<Response<ResponseBody>, No> {
    after.permits.extend(upstream::enter(worker, upstream)?.map(Permit::Upstream));
    let has_body = upload.is_some();
    let mut body = upload.as_mut().map_or(RequestBody::Empty, Upload::take);
    if after.from_base64 {
        body = body.decoded();
    }
    let mut request = Box::new(Request::from_parts(*head, body));
    let mut upgrade = None;
    if found.upgrade {
        *request.version_mut() = version;
        upgrade = upgrade::asked(&mut request, found, has_body);
        *request.version_mut() = Version::HTTP_11;
    }
    let given = after.call.as_ref().and_then(|call| call.timeout);
    let times = Times::of(upstream, route.timeout()).within(given);
    let mut copies = Copies::of(worker, plan, route.mirrors(), &mut request);
    if let Some(copies) = copies.take_if(|copies| copies.is_ready()) {
        copies.send(worker, connection);
    }
    let caller = Caller::client(connection, version);
    let forwarded = upstream::forward(worker, upstream, times, &caller, request, note).await;
    if let Some(copies) = copies {
        copies.send(worker, connection);
    }
    // How long a body took to come says nothing of the target, and a failure nothing of how fast it is; but that it is too slow.
    let is_telling = match &forwarded {
        Ok(answer) => !has_body && !answer.response.status().is_server_error(),
        Err(fault) => *fault == Fault::TIMEOUT,
    };
    if is_telling {
        after.answered(now_us);
    }
    let Answer { response, lease, .. } = forwarded?;
    *upload = None;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(asked) = upgrade.filter(|asked| asked.agreed(&response)) else {
            return Err(Fault::BAD_GATEWAY.into());
        };
        let permits = std::mem::take(&mut after.permits);
        return upgrade::tunnel(worker, connection, asked, response, (lease, permits))
            .ok_or(Fault::BAD_GATEWAY.into());
    }
    let (mut head, body) = response.into_parts();
    // To what a 426 wants its client to upgrade is part of the answer; HTTP/2 has no field for it.
    let is_wanted = head.status == StatusCode::UPGRADE_REQUIRED && version == Version::HTTP_11;
    let wanted = if is_wanted { upgrade::wanted(&head.headers) } else { None };
    headers::clean_response(&mut head.headers, false);
    if let Some(protocols) = wanted {
        head.headers.insert(header::UPGRADE, protocols);
        head.headers.insert(header::CONNECTION, upgrade::UPGRADE);
    }
    head.version = Version::HTTP_11;
    let pace = Pace::new(worker.clone(), upstream.spec.timeout.idle, times.end_ms);
    let mut response = Response::from_parts(head, ResponseBody::upstream(body, pace, lease));
    // In HTTP/1.1 trailers may be lost on the way, and what broke off must not pass for whole.
    if after.call.is_some() && (version == Version::HTTP_2 || after.wants_trailers) {
        response.body_mut().wrap(grpc::Ends::new);
    }
    Ok(finished(route, response))
}

/// The response with the route's changes made.
fn finished(route: &CompiledRoute, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    route.response.apply(response.headers_mut());
    response
}

impl From<Reply> for Response<ResponseBody> {
    fn from(Reply { status, headers, body }: Reply) -> Self {
        let mut response = Response::new(ResponseBody::full(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

/// Runs the route's policies, up to one that answers. One that is missing refuses: a route is never served without a policy it names.
fn allow(plan: &Plan, route: &CompiledRoute, exchange: &mut Exchange<'_>) -> Result<Option<Box<Reply>>, No> {
    for policy in plan.policies(route) {
        let policy = policy.ok_or(Fault::UNAVAILABLE)?.of(exchange.groups);
        match policy.request(exchange) {
            Ok(Verdict::Pass) => {}
            Ok(Verdict::Answer(reply)) => return Ok(Some(reply)),
            Err(refusal) => {
                exchange.after.take_back(exchange.rates, exchange.now_us);
                // What others would have told of a request that is refused after all is not so.
                exchange.after.headers.clear();
                exchange.after.permits.clear();
                return Err(No::Refusal(refusal));
            }
        }
    }
    Ok(None)
}

/// Counts down how often an OPTIONS or TRACE may be forwarded (RFC 9110, section 7.6.2); false if it is to be answered
/// here.
fn may_go_further(method: &Method, headers: &mut HeaderMap) -> bool {
    if !matches!(*method, Method::OPTIONS | Method::TRACE) {
        return true;
    }
    match headers.get(header::MAX_FORWARDS).and_then(|hops| hops.to_str().ok()?.parse::<u32>().ok()) {
        None => true,
        Some(0) => false,
        Some(hops) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(hops - 1));
            true
        }
    }
}

/// The request target that is sent on, in origin form.
fn target(path: &str, query: Option<&str>) -> Result<Uri, Fault> {
    let mut text = String::with_capacity(path.len() + query.map_or(0, |query| query.len() + 1));
    text.push_str(path);
    if let Some(query) = query {
        text.push('?');
        text.push_str(query);
    }
    Uri::from_maybe_shared(Bytes::from(text))
        .map_err(|_| Fault::bad_request("The path is not one that is safe to forward"))
}

/// Who calls: the peer, or the nearest address that the trusted proxies before us don't answer for themselves.
fn client(worker: &Worker, connection: &Connection, headers: &HeaderMap) -> IpAddr {
    let peer = connection.peer.ip().to_canonical();
    if !connection.trusted {
        return peer;
    }
    let chain: Vec<&str> = headers
        .get_all(forwarded::X_FORWARDED_FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    let mut nearest = peer;
    for address in chain.iter().rev() {
        let Ok(address) = address.parse::<IpAddr>() else { break };
        nearest = address.to_canonical();
        if !worker.settings.trusted_proxies.iter().any(|range| range.contains(nearest)) {
            break;
        }
    }
    nearest
}

/// Microseconds since the Unix epoch.
fn now_us() -> u64 {
    let passed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_micros()).unwrap_or(u64::MAX)
}
