//! Accepts connections until the service stops, then lets requests in flight finish.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
use tokio::task::{AbortHandle, Id, yield_now};
use tokio::time::{Instant, sleep, timeout};
use tower::ServiceExt;

use super::timeouts::{RequestClock, TimedStream, Worth};

/// Longest request head, all headers together; GitHub's has some 1.5 KiB.
const MAX_HEAD: usize = 64 << 10;
/// Connections at the same time. That many half-sent heads, and all bodies that are
/// allowed (`--max-buffered-bytes`), stay below the 256 MiB of `service.yaml`.
const CONNECTIONS: u64 = 1500;
/// One of so many connections is kept for probes and deliveries when all others are those of authenticated senders.
const SPARE: usize = 15;
/// Time after which closing another connection is tried again, when none could be closed.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Descriptors reserved for files, the API server and a collector.
const RESERVED_FILES: u64 = 64;
/// Shortest time between two warnings that all connections are in use.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// How long a stopping service still accepts connections, to answer them with 503.
const DRAIN_NOTICE: Duration = Duration::from_millis(250);
/// Pause after a failed accept: without descriptors, accepting again at once would only burn a core.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// Time of its first byte.
    pub(super) first_byte: Instant,
    clock: Arc<RequestClock>,
}

impl Origin {
    /// Keeps the connection when there are too many: the request's sender is authenticated.
    pub(super) fn prove(&self) {
        self.clock.prove();
    }

    /// Tells that the rest of the request is discarded, until the result is dropped.
    pub(super) fn discard(&self) -> Discarding {
        self.clock.begin_discard();
        Discarding(Arc::clone(&self.clock))
    }
}

/// The rest of a request is being discarded.
#[derive(Debug)]
pub(super) struct Discarding(Arc<RequestClock>);

impl Drop for Discarding {
    fn drop(&mut self) {
        self.0.end_discard();
    }
}

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
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(permit) = limit.acquire().await else { return };
                connection(stream, router.clone(), connections, limit, permit);
            }
            Err(error) if is_peers(&error) => {}
            Err(error) => {
                tracing::error!(error = %error, "cannot accept connections; is the limit of open files too low?");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// The connections, and the limit of their number.
///
/// At the limit the longest idle one is closed for a new one, else the oldest whose request has proven nothing: strangers
/// cannot keep deliveries or probes out.
pub(super) struct ConnectionLimit {
    allowed: usize,
    free: Arc<Semaphore>,
    open: Arc<Mutex<HashMap<Id, Open>>>,
    warned: Option<Instant>,
}

struct Open {
    clock: Arc<RequestClock>,
    task: AbortHandle,
}

impl ConnectionLimit {
    /// As many as are allowed and have descriptors.
    pub(super) fn new() -> Self {
        let count = CONNECTIONS.min(open_files().saturating_sub(RESERVED_FILES)).max(1);
        Self::of(usize::try_from(count).unwrap_or(1))
    }

    fn of(count: usize) -> Self {
        let allowed = count - count / SPARE;
        Self { allowed, free: Arc::new(Semaphore::new(count)), open: Arc::default(), warned: None }
    }

    /// Waits for a place for one more connection, and closes another one if none is left. `None` never happens.
    async fn acquire(&mut self) -> Option<OwnedSemaphorePermit> {
        loop {
            if lock(&self.open).len() >= self.allowed {
                // What has arrived is read first, or clients whose bytes are waiting would count as idle.
                yield_now().await;
                self.make_room();
            }
            // The semaphore is never closed.
            if let Ok(permit) = timeout(RETRY_INTERVAL, Arc::clone(&self.free).acquire_owned()).await {
                return permit.ok();
            }
        }
    }

    fn make_room(&mut self) {
        let open = lock(&self.open).len();
        if open >= self.allowed {
            self.close_one();
            if self.warned.is_none_or(|at| at.elapsed() >= WARNING_INTERVAL) {
                self.warned = Some(Instant::now());
                tracing::warn!(
                    open,
                    "all connections are in use; idle and unauthenticated ones are closed for new ones"
                );
            }
        }
    }

    /// Closes the connection that is worth least. One that rests is spared while most others are young: unauthenticated
    /// clients that reconnect at once must not displace it, and some of theirs can be closed in a moment.
    fn close_one(&self) {
        let mut open = lock(&self.open);
        let (mut least, mut young, now) = (None, 0, Instant::now());
        for (id, open) in open.iter() {
            let worth = open.clock.worth(now);
            young += usize::from(worth == Worth::Young);
            if least.is_none_or(|(other, _)| worth < other) {
                least = Some((worth, *id));
            }
        }
        let Some((worth, id)) = least else { return };
        let is_closable = match worth {
            Worth::Idle(_) | Worth::Unproven(_) => true,
            Worth::Resting { .. } => 2 * young <= open.len(),
            Worth::Young | Worth::Proven => false,
        };
        if is_closable && let Some(closed) = open.remove(&id) {
            closed.task.abort();
        }
    }
}

fn lock(open: &Mutex<HashMap<Id, Open>>) -> MutexGuard<'_, HashMap<Id, Open>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
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

fn connection(
    stream: TcpStream,
    router: Router,
    connections: &GracefulShutdown,
    limit: &ConnectionLimit,
    permit: OwnedSemaphorePermit,
) {
    // Answers are small and complete: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    let (stream, clock) = TimedStream::new(stream);
    let clock_of_service = Arc::clone(&clock);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        let clock = Arc::clone(&clock_of_service);
        async move {
            let origin = Origin { first_byte: clock.begin_request(), clock: Arc::clone(&clock) };
            let mut request = request.map(axum::body::Body::new);
            request.extensions_mut().insert(origin);
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
    let open = Arc::clone(&limit.open);
    // Locked until the connection is listed: its task may end before.
    let mut listed = lock(&limit.open);
    let task = tokio::spawn(async move {
        let _permit = permit;
        if let Err(error) = connection.await {
            tracing::debug!(error = %error, "connection failed");
        }
        if let Some(id) = tokio::task::try_id() {
            lock(&open).remove(&id);
        }
    });
    listed.insert(task.id(), Open { clock, task: task.abort_handle() });
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Extension;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// With paused time, timers fire as soon as nothing else is left to do.
    #[tokio::test(start_paused = true)]
    async fn closes_half_sent_heads_and_keeps_idle_connections() {
        let address = serve_with(ConnectionLimit::new()).await;
        let mut answer = Vec::new();
        for (half, seconds) in [("", 120), ("GET / HTTP/1.1\r\n", 10)] {
            let begun = Instant::now();
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            stream.write_all(half.as_bytes()).await.expect("half a head");
            stream.read_to_end(&mut answer).await.expect("the end");
            let took = begun.elapsed().as_secs();
            assert!((seconds..2 * seconds).contains(&took) && answer.is_empty(), "{half:?}: {took} s, {answer:?}");
        }
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        for _ in 0..2 {
            is_answered(&mut stream).await;
            sleep(Duration::from_secs(90)).await;
        }
    }

    async fn serve_with(limit: ConnectionLimit) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let authenticated = async |Extension(origin): Extension<Origin>| {
            origin.prove();
            "hello"
        };
        let router = Router::new().route("/", get(async || "hello")).route("/authenticated", get(authenticated));
        tokio::spawn(serve(listener, router, std::future::pending(), limit, Duration::ZERO));
        address
    }

    async fn is_answered(client: &mut TcpStream) {
        is_answered_at("/", client).await;
    }

    async fn is_answered_at(path: &str, client: &mut TcpStream) {
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("a request");
        read_answer(client).await;
    }

    async fn read_answer(client: &mut TcpStream) {
        let mut answer = Vec::new();
        while !answer.ends_with(b"hello") {
            assert_ne!(client.read_buf(&mut answer).await.expect("an answer"), 0, "closed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn spares_a_resting_client_when_unauthenticated_ones_reconnect_at_once() {
        let address = serve_with(ConnectionLimit::of(30)).await;
        let mut client = TcpStream::connect(address).await.expect("a connection");
        let mut others = Vec::new();
        for _ in 0..2 {
            is_answered(&mut client).await;
            for _ in 0..60 {
                let mut other = TcpStream::connect(address).await.expect("a connection");
                other.write_all(b"GET / HTTP/1.1\r\n").await.expect("half a head");
                others.push(other);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn resting_clients_delay_no_new_one() {
        let address = serve_with(ConnectionLimit::of(30)).await;
        let mut clients = Vec::new();
        let begun = Instant::now();
        for _ in 0..90 {
            let mut client = TcpStream::connect(address).await.expect("a connection");
            is_answered(&mut client).await;
            clients.push(client);
        }
        assert!(begun.elapsed() < RETRY_INTERVAL, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn closes_unauthenticated_resting_clients_before_authenticated_ones() {
        let address = serve_with(ConnectionLimit::of(30)).await;
        let mut client = TcpStream::connect(address).await.expect("a connection");
        is_answered_at("/authenticated", &mut client).await;
        sleep(Duration::from_millis(1)).await;
        let mut others = Vec::new();
        for _ in 0..60 {
            let mut other = TcpStream::connect(address).await.expect("a connection");
            is_answered(&mut other).await;
            others.push(other);
        }
        is_answered(&mut client).await;
    }

    #[tokio::test(start_paused = true)]
    async fn reads_what_has_arrived_before_it_closes_an_idle_client() {
        let address = serve_with(ConnectionLimit::of(1)).await;
        let mut client = TcpStream::connect(address).await.expect("a connection");
        client.write_all(b"GET / HTTP/1.1\r\n").await.expect("half a head");
        sleep(Duration::from_secs(1)).await;
        // Without a pause, so that both arrive at once, the new connection first.
        let _new = std::net::TcpStream::connect(address).expect("a connection");
        let sent = client.try_write(b"host: x\r\n\r\n").expect("the rest");
        assert_eq!(sent, 11);
        read_answer(&mut client).await;
    }
}
