//! Accepting connections until told to stop, then letting what is in flight finish.

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

use super::connection::TimedStream;

/// A request's head, all headers together, at most; GitHub's has some 1.5 KiB.
const MAX_HEAD: usize = 64 << 10;
/// Connections at the same time; more wait in the kernel. All of them with half a head, and all bodies that are allowed
/// (`--max-buffered-bytes`), stay below the 256 MiB of `service.yaml`.
const CONNECTIONS: u64 = 1500;
/// Descriptors for everything else: files, the API server, a collector.
const OTHER_FILES: u64 = 64;
/// Between two lines that say that all connections are in use.
const BETWEEN_WARNINGS: Duration = Duration::from_secs(10);
/// How long new connections are still answered, with 503, once the service is to stop.
const NOTICE: Duration = Duration::from_millis(250);
/// A pause when the system has no more descriptors: accepting again at once would only burn a core.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// When the first byte of a request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstByte(pub(super) Instant);

/// Serves until `stop` is done: then answers for a moment more, closes the listener and waits for what is in flight, at
/// most for `grace`.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    mut places: Places,
    grace: Duration,
) {
    let connections = GracefulShutdown::new();
    tokio::select! {
        () = accept(&listener, &router, &connections, &mut places) => {}
        () = stop => {}
    }
    let _ = timeout(NOTICE, accept(&listener, &router, &connections, &mut places)).await;
    drop(listener);
    if timeout(grace, connections.shutdown()).await.is_err() {
        tracing::warn!("connections that did not end in time are closed");
    }
}

async fn accept(listener: &TcpListener, router: &Router, connections: &GracefulShutdown, places: &mut Places) {
    loop {
        let place = places.next().await;
        match listener.accept().await {
            Ok((stream, _)) => connection(stream, router.clone(), connections, place),
            Err(error) if is_connections_own(&error) => {}
            Err(error) => {
                tracing::error!(reason = %error, "cannot accept connections; is the limit of open files too low?");
                sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Room for connections; clones share it.
#[derive(Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    warned: Option<Instant>,
}

impl Places {
    /// As many as there may be, and as there are descriptors for.
    pub(super) fn new() -> Self {
        let count = CONNECTIONS.min(open_files().saturating_sub(OTHER_FILES)).max(1);
        Self { free: Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(1))), warned: None }
    }

    /// Waits for one.
    async fn next(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(place);
        }
        if self.warned.is_none_or(|at| at.elapsed() >= BETWEEN_WARNINGS) {
            self.warned = Some(Instant::now());
            tracing::warn!(
                "all connections are in use; new ones wait until others end, in 10 seconds at most where nothing is sent"
            );
        }
        // Closed never.
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

/// Raises the limit of open files as far as it may be; container runtimes start with 1,024 of very many.
fn open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current.unwrap_or(u64::MAX),
        Err(_) => limit.current.unwrap_or(u64::MAX),
    }
}

/// The peer gave up before it was accepted.
fn is_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn connection(stream: TcpStream, router: Router, connections: &GracefulShutdown, place: Option<OwnedSemaphorePermit>) {
    // Answers are small and whole: waiting for more to send only delays them.
    let _ = stream.set_nodelay(true);
    let (stream, clock) = TimedStream::new(stream);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        let clock = clock.clone();
        async move {
            let first_byte = FirstByte(clock.request_begins());
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(first_byte);
            let response: Result<Response, Infallible> = router.oneshot(request).await;
            clock.request_ends();
            response
        }
    });
    let connection = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        // Answers are small: copying one costs less than sending it in two parts.
        .writev(false)
        // A sender that closes its side after the request still waits for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        let _place = place;
        if let Err(error) = connection.await {
            tracing::debug!(reason = %error, "a connection ended");
        }
    });
}
