//! A connection that knows whether it waits for a request, so that a half-sent head cannot hold it.
//!
//! hyper has one timer for both, the time between requests and the time of a request's head. The first must be long
//! (a proxy that reuses a connection must never find it just closed), the second short. And it makes a timer for each
//! request; here is one for each connection, which is set anew only when it goes off too early.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// A request's head must be complete this long after its first byte, and a connection must send one.
pub(super) const HEAD_TIME: Duration = Duration::from_secs(10);
/// Between two requests of a connection. Knative's queue-proxy keeps connections for 90 s (Go's default transport); who
/// closes first must be the client, or a request meets a closing connection.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// A peer that takes none of our bytes for so long is gone.
const WRITE_TIME: Duration = Duration::from_secs(20);

/// Where a connection stands between its requests; shared by the stream and the service on it.
#[derive(Debug)]
pub(super) struct RequestClock(Mutex<Phase>);

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// A head is expected or under way since then.
    Head(Instant),
    /// A request is being answered.
    Busy,
    /// Between requests, since then.
    Idle(Instant),
}

impl RequestClock {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Phase::Head(Instant::now()))))
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A head is complete; returns when its first byte came.
    pub(super) fn request_begins(&self) -> Instant {
        let mut phase = self.phase();
        let first_byte = match *phase {
            Phase::Head(since) => since,
            // It was read together with the request before.
            Phase::Busy | Phase::Idle(_) => Instant::now(),
        };
        *phase = Phase::Busy;
        first_byte
    }

    /// The answer is on its way.
    pub(super) fn request_ends(&self) {
        *self.phase() = Phase::Idle(Instant::now());
    }

    fn bytes_arrived(&self) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Idle(_)) {
            *phase = Phase::Head(Instant::now());
        }
    }

    /// Until when its peer may be silent.
    fn deadline(&self) -> Option<Instant> {
        match *self.phase() {
            Phase::Head(since) => Some(since + HEAD_TIME),
            Phase::Idle(since) => Some(since + KEEP_ALIVE),
            Phase::Busy => None,
        }
    }
}

/// A TCP stream with a time for heads and a time for writes.
pub(super) struct TimedStream {
    stream: TcpStream,
    clock: Arc<RequestClock>,
    read_timer: Pin<Box<Sleep>>,
    write_timer: Option<Pin<Box<Sleep>>>,
}

impl TimedStream {
    /// Wraps a new connection. The first head is expected from now on, so that a peer that connects and says nothing
    /// is closed, too.
    pub(super) fn new(stream: TcpStream) -> (Self, Arc<RequestClock>) {
        let clock = RequestClock::new();
        let read_timer = Box::pin(sleep_until(Instant::now() + HEAD_TIME));
        (Self { stream, clock: Arc::clone(&clock), read_timer, write_timer: None }, clock)
    }

    /// A write that waits, waits for so long at most.
    fn timed_write<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_timer = None;
            return result;
        }
        let timer = self.write_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + WRITE_TIME)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for TimedStream {
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
            // It was set for an earlier wait.
            this.read_timer.as_mut().reset(deadline);
            ready!(this.read_timer.as_mut().poll(cx));
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for TimedStream {
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
