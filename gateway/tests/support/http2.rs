//! Origins of HTTP/2: one that answers as it should, and one that says frames as it is told.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::tls::head;

/// An origin in clear that speaks HTTP/2 from the first byte. It answers with a request's head and its body, and with the
/// trailers that the request had and one more; `/held` once it is told to, and `/never` never.
#[derive(Clone)]
pub struct Http2Origin {
    pub address: SocketAddr,
    /// Connections ever.
    pub connections: Arc<AtomicUsize>,
    /// Requests that are being answered.
    pub busy: Arc<AtomicUsize>,
    pub release: watch::Sender<bool>,
}

struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Http2Origin {
    pub async fn start(streams_max: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            busy: Arc::default(),
            release: watch::channel(false).0,
        };
        let serving = origin.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.connections.fetch_add(1, SeqCst);
                let origin = serving.clone();
                let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                server.max_concurrent_streams(streams_max);
                let service = service_fn(move |request| answer(origin.clone(), request));
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        origin
    }
}

async fn answer(
    origin: Http2Origin,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    origin.busy.fetch_add(1, SeqCst);
    let _busy = Busy(origin.busy.clone());
    let mut text = head(&request);
    match request.uri().path() {
        "/held" => {
            let _ = origin.release.subscribe().wait_for(|released| *released).await;
        }
        "/never" => std::future::pending().await,
        _ => {}
    }
    let body = request.into_body().collect().await?;
    let mut trailers = body.trailers().cloned().unwrap_or_default();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    text.push_str(&String::from_utf8_lossy(&body.to_bytes()));
    Ok(Response::new(with_trailers(text, trailers)))
}

/// A body of this text, and these trailers after it.
pub fn with_trailers(text: String, trailers: HeaderMap) -> BoxBody<Bytes, Infallible> {
    let frames = [Ok(Frame::data(Bytes::from(text))), Ok(Frame::trailers(trailers))];
    StreamBody::new(futures::stream::iter(frames)).boxed()
}

/// One connection of an origin that says frames by hand (RFC 9113, section 4.1).
pub struct Frames(TcpStream);

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

impl Frames {
    /// Takes a connection, and says that there are no settings.
    pub async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE.as_bytes());
        let mut frames = Self(stream);
        frames.write(SETTINGS, 0, 0, &[]).await;
        frames
    }

    /// The next frame: its type, flags and stream.
    pub async fn read(&mut self) -> Option<(u8, u8, u32)> {
        let (head, _) = self.take().await?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]])))
    }

    /// The next frame: its type, flags and length.
    pub async fn frame(&mut self) -> Option<(u8, u8, usize)> {
        let (head, payload) = self.take().await?;
        Some((head[3], head[4], payload.len()))
    }

    async fn take(&mut self) -> Option<([u8; 9], Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.ok()?;
        Some((head, payload))
    }

    /// The stream of the next request's head.
    pub async fn request(&mut self) -> Option<u32> {
        loop {
            match self.read().await? {
                (HEADERS, _, stream) => return Some(stream),
                (SETTINGS, 0, _) => self.write(SETTINGS, 1, 0, &[]).await,
                _ => {}
            }
        }
    }

    pub async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.0.write_all(&frame).await.unwrap();
    }

    /// Answers with 200 and nothing more.
    pub async fn ok(&mut self, stream: u32) {
        // END_STREAM and END_HEADERS; `:status: 200` of HPACK's static table.
        self.write(HEADERS, 5, stream, &[0x88]).await;
    }
}
