//! Threads that serve, each with a runtime, connections and an API client of its own: a delivery is answered by the thread
//! that has accepted its connection, and wakes no other.
//!
//! Work that would keep a thread from its other connections for long (large bodies, CEL) goes to threads for that.

use std::future::Future;
use std::io;
use std::net::TcpListener as Socket;
use std::thread;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// More than these would only hold memory: one answers more deliveries in a second than GitHub sends in an hour.
const MOST: usize = 4;
/// Threads of one lane for what takes long.
const BLOCKING_THREADS: usize = 32;

/// How many threads serve: as many as there are cores, within reason; `TOKIO_WORKER_THREADS` overrides.
pub fn count() -> usize {
    let wanted = std::env::var("TOKIO_WORKER_THREADS").ok().and_then(|text| text.parse().ok());
    let cores = || thread::available_parallelism().map_or(1, usize::from).min(MOST);
    wanted.unwrap_or_else(cores).max(1)
}

/// A runtime for the calling thread.
///
/// # Errors
/// When the system has no more descriptors.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()
}

/// Serves on a thread of its own; done when `serve` is.
pub(super) fn start<F>(
    socket: &Socket,
    serve: impl FnOnce(TcpListener) -> F + Send + 'static,
) -> io::Result<oneshot::Receiver<()>>
where
    F: Future<Output = ()>,
{
    let socket = socket.try_clone()?;
    let (sender, done) = oneshot::channel();
    let serve = move || -> io::Result<()> {
        let runtime = runtime()?;
        let listener = runtime.block_on(async { TcpListener::from_std(socket) })?;
        runtime.block_on(serve(listener));
        // What still runs has had its time.
        runtime.shutdown_background();
        Ok(())
    };
    thread::Builder::new().name("serve".into()).spawn(move || {
        if let Err(error) = serve() {
            tracing::error!(reason = %error, "a thread cannot serve; the others do");
        }
        // Nobody waits any more if the service has ended meanwhile.
        let _ = sender.send(());
    })?;
    Ok(done)
}
