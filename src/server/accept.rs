//! Accepting connections until told to stop, then letting what is in flight finish.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

use super::connection::TimedStream;

/// Between two requests of a connection. Knative's queue-proxy keeps connections for 90 s (Go's default transport); who
/// closes first must be the client, or a request meets a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// A request's head, all headers together, at most; GitHub's has some 1.5 KiB.
const MAX_HEAD: usize = 64 << 10;
/// How long new connections are still answered, with 503, once the service is to stop.
const NOTICE: Duration = Duration::from_millis(250);
/// A pause when the system has no more descriptors: accepting again at once would only burn a core.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// When the first byte of a request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct FirstByte(pub(super) Instant);

/// Serves until `stop` is done: then calls `draining`, answers for a moment more, closes the listener and waits for
/// what is in flight, at most for `grace`.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    draining: impl FnOnce(),
    grace: Duration,
) {
    let connections = GracefulShutdown::new();
    tokio::select! {
        () = accept(&listener, &router, &connections) => {}
        () = stop => {}
    }
    draining();
    let _ = timeout(NOTICE, accept(&listener, &router, &connections)).await;
    drop(listener);
    if timeout(grace, connections.shutdown()).await.is_err() {
        tracing::warn!("connections that did not end in time are closed");
    }
}

async fn accept(listener: &TcpListener, router: &Router, connections: &GracefulShutdown) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => connection(stream, router.clone(), connections),
            Err(error) if is_connections_own(&error) => {}
            Err(error) => {
                tracing::error!(reason = %error, "cannot accept connections; is the limit of open files too low?");
                sleep(EXHAUSTED).await;
            }
        }
    }
}

/// The peer gave up before it was accepted.
fn is_connections_own(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn connection(stream: TcpStream, router: Router, connections: &GracefulShutdown) {
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
        .timer(TokioTimer::new())
        .header_read_timeout(KEEP_ALIVE)
        .max_buf_size(MAX_HEAD)
        // A sender that closes its side after the request still waits for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(reason = %error, "a connection ended");
        }
    });
}
