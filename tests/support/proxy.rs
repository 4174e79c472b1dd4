//! A network that fails on demand: a TCP proxy on loopback.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the proxy does with data, on new and existing connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Forwards everything.
    Fair,
    /// Delays every piece by a random time up to this many milliseconds.
    Slow(u64),
    /// Resets the connection at one piece in so many, in either direction.
    Resets(u32),
    /// Resets the connection instead of forwarding one answer in so many: the request has been processed.
    Swallows(u32),
}

/// A running proxy, stopped when dropped.
pub struct Proxy {
    /// Listening address.
    pub address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

struct State {
    upstream: Mutex<SocketAddr>,
    weather: Mutex<Weather>,
    random: Mutex<fastrand::Rng>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Answer,
}

/// What to do with a piece.
enum Fate {
    Pass(Duration),
    Reset,
}

impl Proxy {
    /// Starts a proxy to `upstream` that forwards everything. `seed` determines its random choices.
    pub async fn start(upstream: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            upstream: Mutex::new(upstream),
            weather: Mutex::new(Weather::Fair),
            random: Mutex::new(fastrand::Rng::with_seed(seed)),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// Sets the upstream of new connections.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.state.upstream.lock().expect("the state") = upstream;
    }

    pub fn set(&self, weather: Weather) {
        *self.state.weather.lock().expect("the state") = weather;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn fate(&self, direction: Direction) -> Fate {
        let weather = *self.weather.lock().expect("the state");
        let mut random = self.random.lock().expect("the state");
        match weather {
            Weather::Slow(most) => Fate::Pass(Duration::from_millis(random.u64(0..=most))),
            Weather::Resets(one_in) if random.u32(0..one_in) == 0 => Fate::Reset,
            Weather::Swallows(one_in) if direction == Direction::Answer && random.u32(0..one_in) == 0 => Fate::Reset,
            _ => Fate::Pass(Duration::ZERO),
        }
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(connect(near, Arc::clone(&state)));
    }
}

/// Forwards both directions until both have ended; an error of either resets both connections.
async fn connect(mut near: TcpStream, state: Arc<State>) -> io::Result<()> {
    let upstream = *state.upstream.lock().expect("the state");
    let Ok(mut far) = TcpStream::connect(upstream).await else { return near.set_zero_linger() };
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
    let requests = forward(&state, Direction::Request, near_read, far_write);
    let answers = forward(&state, Direction::Answer, far_read, near_write);
    if tokio::try_join!(requests, answers).is_err() {
        near.set_zero_linger()?;
        far.set_zero_linger()?;
    }
    Ok(())
}

async fn forward(state: &State, direction: Direction, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    let mut piece = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        match state.fate(direction) {
            Fate::Pass(after) => tokio::time::sleep(after).await,
            Fate::Reset => return Err(io::ErrorKind::ConnectionReset.into()),
        }
        to.write_all(&piece[..count]).await?;
    }
}
