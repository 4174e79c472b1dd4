//! A connection's timeouts: for a request's head, between two requests, and for a write.
//!
//! Hand-written because hyper has one timeout for a head and for the time between two requests. A head must be short (10 s),
//! because half of one holds a connection; an idle connection must be kept longer (120 s) than a proxy keeps it, or a
//! reused connection is found closed.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Time for a request's head, from its first byte.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time between two requests of a connection, and before the first one: a proxy may open connections in advance. Knative's
/// queue-proxy keeps idle connections for 90 s (Go's default transport); it must be the one that closes them, or a request
/// meets a closing connection.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(120);
/// A connection that is idle for less than this is closed last.
const RESTING: Duration = Duration::from_secs(2);
/// A request has this time to prove something before its connection may be closed for another one.
const PROOF_TIME: Duration = Duration::from_millis(250);
/// Time in which a peer must take some of our bytes.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// The position of a connection between its requests; shared by the stream and the service on it.
#[derive(Debug)]
pub(super) struct RequestClock {
    phase: Mutex<Phase>,
    /// Whether the sender of one of its requests was authenticated.
    was_authenticated: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// A head arrives; its first byte came then.
    Head(Instant),
    /// A request is being answered that has proven nothing yet; its first byte came then.
    Unproven(Instant),
    /// The request of an authenticated sender is being answered.
    Proven,
    /// The rest of an answered request is read and discarded; its first byte came then.
    Discarding(Instant),
    /// Before the first request or between two, since then.
    Idle(Instant),
}

/// Which connection is closed first when there are too many: the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Worth {
    /// Idle since then.
    Idle(Instant),
    /// Its request, which began then, has proven nothing.
    Unproven(Instant),
    /// Idle since then, for less than [`RESTING`]: its client may just be sending the next request. A client that was
    /// authenticated on this connection before is closed after all others.
    Resting { was_authenticated: bool, since: Instant },
    /// Must not be closed yet: its request may still prove something.
    Young,
    /// Must not be closed: the request of an authenticated sender is being answered.
    Proven,
}

impl RequestClock {
    fn new() -> Arc<Self> {
        Arc::new(Self { phase: Mutex::new(Phase::Idle(Instant::now())), was_authenticated: AtomicBool::new(false) })
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called when a head is complete. Returns the time of its first byte.
    pub(super) fn begin_request(&self) -> Instant {
        let mut phase = self.phase();
        let first_byte = match *phase {
            Phase::Head(since) => since,
            // It was read together with the request before.
            Phase::Unproven(_) | Phase::Proven | Phase::Discarding(_) | Phase::Idle(_) => Instant::now(),
        };
        *phase = Phase::Unproven(first_byte);
        first_byte
    }

    /// To be called when the request's sender is authenticated.
    pub(super) fn prove(&self) {
        *self.phase() = Phase::Proven;
        self.was_authenticated.store(true, Ordering::Relaxed);
    }

    /// What the connection is worth now.
    pub(super) fn worth(&self, now: Instant) -> Worth {
        let is_within = |time: Duration, since: Instant| now.saturating_duration_since(since) < time;
        match *self.phase() {
            Phase::Idle(since) if is_within(RESTING, since) => {
                Worth::Resting { was_authenticated: self.was_authenticated.load(Ordering::Relaxed), since }
            }
            Phase::Idle(since) => Worth::Idle(since),
            Phase::Head(since) | Phase::Unproven(since) if is_within(PROOF_TIME, since) => Worth::Young,
            Phase::Head(since) | Phase::Unproven(since) | Phase::Discarding(since) => Worth::Unproven(since),
            Phase::Proven => Worth::Proven,
        }
    }

    /// To be called when the answer is ready to be sent.
    pub(super) fn end_request(&self) {
        let mut phase = self.phase();
        if !matches!(*phase, Phase::Discarding(_)) {
            *phase = Phase::Idle(Instant::now());
        }
    }

    /// To be called when a request is answered before its body was read: what arrives until [`Self::end_discard`] is no head.
    pub(super) fn begin_discard(&self) {
        let mut phase = self.phase();
        if let Phase::Unproven(since) = *phase {
            *phase = Phase::Discarding(since);
        }
    }

    /// To be called when no more of the body is read.
    pub(super) fn end_discard(&self) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Discarding(_)) {
            *phase = Phase::Idle(Instant::now());
        }
    }

    fn bytes_arrived(&self) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Idle(_)) {
            *phase = Phase::Head(Instant::now());
        }
    }

    /// The end of the time in which the peer must send; `None` while a request is being answered.
    fn deadline(&self) -> Option<Instant> {
        match *self.phase() {
            Phase::Head(since) => Some(since + HEAD_TIMEOUT),
            Phase::Idle(since) => Some(since + KEEP_ALIVE_TIMEOUT),
            Phase::Unproven(_) | Phase::Proven | Phase::Discarding(_) => None,
        }
    }
}

/// A stream with timeouts for reads and writes.
pub(super) struct TimedStream<S> {
    stream: S,
    clock: Arc<RequestClock>,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> TimedStream<S> {
    /// Wraps the stream of a new connection.
    pub(super) fn new(stream: S) -> (Self, Arc<RequestClock>) {
        let clock = RequestClock::new();
        let read_timer = Box::pin(sleep_until(Instant::now() + KEEP_ALIVE_TIMEOUT));
        (Self { stream, clock: Arc::clone(&clock), read_timer, write_timer: None }, clock)
    }

    fn timed_write<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_timer = None;
            return result;
        }
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_TIMEOUT)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(cx, buffer) {
            if buffer.filled().len() > before {
                this.clock.bytes_arrived();
            }
            return Poll::Ready(result);
        }
        let Some(deadline) = this.clock.deadline() else {
            return Poll::Pending;
        };
        if deadline < this.read_timer.deadline() {
            this.read_timer.as_mut().reset(deadline);
        }
        ready!(this.read_timer.as_mut().poll(cx));
        if this.read_timer.deadline() < deadline {
            // It was set for an earlier read.
            this.read_timer.as_mut().reset(deadline);
            ready!(this.read_timer.as_mut().poll(cx));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.timed_write(cx, result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(cx, slices);
        this.timed_write(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::advance;

    use super::*;

    fn connection() -> (TimedStream<DuplexStream>, Arc<RequestClock>, DuplexStream) {
        let (server, client) = duplex(16);
        let (stream, clock) = TimedStream::new(server);
        (stream, clock, client)
    }

    /// Reads until the stream fails; returns how long that took.
    async fn time_to_timeout(stream: &mut TimedStream<DuplexStream>) -> Duration {
        let begun = Instant::now();
        let mut buffer = [0; 16];
        loop {
            if let Err(error) = stream.read(&mut buffer).await {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                return begun.elapsed();
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn closes_a_connection_that_sends_nothing() {
        let (mut stream, _clock, _client) = connection();
        assert_eq!(time_to_timeout(&mut stream).await, KEEP_ALIVE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_worth_less_than_an_unproven_one() {
        let (mut stream, clock, mut client) = connection();
        let idle = Worth::Idle(Instant::now());
        advance(RESTING).await;
        assert_eq!(clock.worth(Instant::now()), idle);
        client.write_all(b"head").await.expect("a head");
        stream.read_exact(&mut [0; 4]).await.expect("a head");
        let unproven = Worth::Unproven(Instant::now());
        assert_eq!(clock.worth(Instant::now()), Worth::Young);
        advance(PROOF_TIME).await;
        assert_eq!(clock.worth(Instant::now()), unproven);
        clock.begin_request();
        advance(Duration::from_secs(1)).await;
        assert_eq!(clock.worth(Instant::now()), unproven);
        clock.end_request();
        let resting = clock.worth(Instant::now());
        assert_eq!(resting, Worth::Resting { was_authenticated: false, since: Instant::now() });
        clock.begin_request();
        clock.prove();
        assert_eq!(clock.worth(Instant::now()), Worth::Proven);
        clock.end_request();
        let authenticated = clock.worth(Instant::now());
        assert_eq!(authenticated, Worth::Resting { was_authenticated: true, since: Instant::now() });
        let ascending = [idle, unproven, resting, authenticated, Worth::Young, Worth::Proven];
        assert!(ascending.is_sorted_by(|less, more| less < more), "{ascending:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_a_head_from_its_first_byte_however_slowly_it_comes() {
        let (mut stream, _clock, mut client) = connection();
        advance(Duration::from_secs(9)).await;
        let sending = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let time = time_to_timeout(&mut stream).await;
        assert!(time >= HEAD_TIMEOUT && time < HEAD_TIMEOUT + Duration::from_secs(1), "{time:?}");
        sending.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_an_idle_connection_longer_than_a_proxy_does() {
        let (mut stream, clock, mut client) = connection();
        client.write_all(b"head").await.expect("a head");
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).await.expect("a head");
        clock.begin_request();
        clock.end_request();
        assert_eq!(time_to_timeout(&mut stream).await, KEEP_ALIVE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_answer_without_a_timeout() {
        let (mut stream, clock, mut client) = connection();
        client.write_all(b"head").await.expect("a head");
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).await.expect("a head");
        clock.begin_request();
        let read = tokio::time::timeout(Duration::from_secs(600), stream.read(&mut buffer)).await;
        assert!(read.is_err(), "still open");
    }

    #[tokio::test(start_paused = true)]
    async fn measures_a_request_from_its_first_byte() {
        let (mut stream, clock, mut client) = connection();
        advance(Duration::from_secs(8)).await;
        client.write_all(b"head").await.expect("a head");
        stream.read_exact(&mut [0; 4]).await.expect("a head");
        advance(Duration::from_secs(1)).await;
        assert_eq!(clock.begin_request().elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_discarded_is_no_head() {
        let (mut stream, clock, mut client) = connection();
        client.write_all(b"head").await.expect("a head");
        stream.read_exact(&mut [0; 4]).await.expect("a head");
        clock.begin_request();
        clock.begin_discard();
        clock.end_request();
        client.write_all(b"rest").await.expect("the rest");
        stream.read_exact(&mut [0; 4]).await.expect("the rest");
        clock.end_discard();
        assert_eq!(clock.worth(Instant::now()), Worth::Resting { was_authenticated: false, since: Instant::now() });
        assert_eq!(time_to_timeout(&mut stream).await, KEEP_ALIVE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn gives_up_a_write_that_the_peer_does_not_take() {
        let (mut stream, _clock, _client) = connection();
        let begun = Instant::now();
        let error = stream.write_all(&[0; 64]).await.expect_err("a full stream");
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, WRITE_TIMEOUT));
    }
}
