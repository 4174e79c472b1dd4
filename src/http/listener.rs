//! Accepts connections until the service stops, then lets requests in flight finish.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

use super::timeouts::TimedStream;

/// Longest request head, all headers together; GitHub's has some 1.5 KiB.
const MAX_HEAD: usize = 64 << 10;
/// Connections at the same time; further ones wait in the kernel. That many half-sent heads, and all bodies that are
/// allowed (`--max-buffered-bytes`), stay below the 256 MiB of `service.yaml`.
const CONNECTIONS: u64 = 1500;
/// Descriptors reserved for files, the API server and a collector.
const RESERVED_FILES: u64 = 64;
/// Shortest time between two warnings that all connections are in use.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// How long a stopping service still accepts connections, to answer them with 503.
const DRAIN_NOTICE: Duration = Duration::from_millis(250);
/// Pause after a failed accept: without descriptors, accepting again at once would only burn a core.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Time of a request's first byte.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstByte(pub(super) Instant);

/// Serves until `stop` is done, then closes the listener and waits for requests in flight, at most for `grace`.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    mut limit: ConnectionLimit,
    grace: Duration,
) {
    let connections = GracefulShutdown::new();
    tokio::select! {
        () = accept(&listener, &router, &connections, &mut limit) => {}
        () = stop => {}
    }
    let _ = timeout(DRAIN_NOTICE, accept(&listener, &router, &connections, &mut limit)).await;
    drop(listener);
    if timeout(grace, connections.shutdown()).await.is_err() {
        tracing::warn!("closing connections that did not end in time");
    }
}

async fn accept(listener: &TcpListener, router: &Router, connections: &GracefulShutdown, limit: &mut ConnectionLimit) {
    loop {
        let permit = limit.acquire().await;
        match listener.accept().await {
            Ok((stream, _)) => connection(stream, router.clone(), connections, permit),
            Err(error) if is_peers(&error) => {}
            Err(error) => {
                tracing::error!(error = %error, "cannot accept connections; is the limit of open files too low?");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// The number of connections at the same time.
pub(super) struct ConnectionLimit {
    free: Arc<Semaphore>,
    warned: Option<Instant>,
}

impl ConnectionLimit {
    /// As many as are allowed and have descriptors.
    pub(super) fn new() -> Self {
        let count = CONNECTIONS.min(open_files().saturating_sub(RESERVED_FILES)).max(1);
        Self { free: Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(1))), warned: None }
    }

    /// Waits for a free connection.
    async fn acquire(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        if self.warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
            self.warned = Some(Instant::now());
            tracing::warn!("all connections are in use; new ones wait until others end");
        }
        // The semaphore is never closed.
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

/// Raises the soft limit of open files to the hard one, and returns it; container runtimes start with 1,024.
fn open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// Whether the peer gave up before its connection was accepted.
fn is_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn connection(stream: TcpStream, router: Router, connections: &GracefulShutdown, permit: Option<OwnedSemaphorePermit>) {
    // Answers are small and complete: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let (stream, clock) = TimedStream::new(stream);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        let clock = clock.clone();
        async move {
            let first_byte = FirstByte(clock.begin_request());
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(first_byte);
            let response: Result<Response, Infallible> = router.oneshot(request).await;
            clock.end_request();
            response
        }
    });
    let connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        // Copying a small answer takes less time than sending it in two parts.
        .writev(false)
        // A sender may close its side after the request, and still waits for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        let _permit = permit;
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "connection failed");
        }
    });
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// With paused time, timers fire as soon as nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn closes_half_sent_heads_and_keeps_idle_connections() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/", get(|| async { "hello" }));
        tokio::spawn(serve(listener, router, std::future::pending(), ConnectionLimit::new(), Duration::ZERO));
        let mut answer = Vec::new();
        for half in ["", "GET / HTTP/1.1\r\n"] {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(half.as_bytes()).await.expect("half a head");
            stream.read_to_end(&mut answer).await.expect("the end");
            let took = begun.elapsed().as_secs();
            assert!((10..20).contains(&took) && answer.is_empty(), "{half:?}: {took} s, {answer:?}");
        }
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
            let mut answer = Vec::new();
            while !answer.ends_with(b"hello") {
                assert_ne!(stream.read_buf(&mut answer).await.expect("an answer"), 0, "closed");
            }
            sleep(Duration::from_secs(90)).await;
        }
    }
}
