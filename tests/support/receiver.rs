//! An HTTP server that records its requests: a dead letter sink, a reply sink, an OpenTelemetry collector or an alert
//! webhook.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use flate2::read::GzDecoder;
use http::{HeaderMap, StatusCode, Uri};
use tokio::net::TcpListener;

/// A recorded request.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    /// The body, without its compression.
    pub fn content(&self) -> Vec<u8> {
        if self.header("content-encoding") != "gzip" {
            return self.body.to_vec();
        }
        let mut content = Vec::new();
        GzDecoder::new(&self.body[..]).read_to_end(&mut content).expect("a compressed body");
        content
    }

    /// Value of a header; empty if there is none or it is not ASCII text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A running receiver.
#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<Inner>,
}

struct Inner {
    received: Mutex<Vec<Received>>,
    status: StatusCode,
    body: &'static str,
}

impl Receiver {
    /// Starts a receiver that answers 200 with an empty body.
    pub async fn start() -> Self {
        Self::answering(StatusCode::OK, "").await
    }

    /// Starts a receiver that answers every request with this status and body.
    pub async fn answering(status: StatusCode, body: &'static str) -> Self {
        Self::listening(Ipv4Addr::LOCALHOST.into(), status, body).await
    }

    /// Starts a receiver at another address than loopback.
    pub async fn at(address: IpAddr) -> Self {
        Self::listening(address, StatusCode::OK, "").await
    }

    async fn listening(address: IpAddr, status: StatusCode, body: &'static str) -> Self {
        let listener = TcpListener::bind((address, 0)).await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Inner { received: Mutex::default(), status, body });
        let router = Router::new().fallback(receive).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, state }
    }

    /// `http://<address>/`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// The requests so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().expect("the state").clone()
    }

    /// Waits until at least `count` requests have come. Panics if they have not within `limit`.
    pub async fn wait_for(&self, count: usize, limit: Duration) -> Vec<Received> {
        let end = Instant::now() + limit;
        loop {
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            assert!(Instant::now() < end, "received {} of {count} requests: {received:?}", received.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn receive(State(state): State<Arc<Inner>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let path = uri.path().to_owned();
    state.received.lock().expect("the state").push(Received { path, headers, body });
    (state.status, state.body).into_response()
}
