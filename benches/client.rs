//! The client: prebuilt deliveries, and the rate of their answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use crate::median;
use crate::support::webhook::{SHA, headers, merged};

pub const CONNECTIONS: usize = 16;
const ROUNDS: usize = 81;
const ROUND: Duration = Duration::from_millis(250);

/// Payload size of GitHub's own examples, in bytes.
pub const USUAL: usize = 24 << 10;

/// A runtime with one thread, for the client.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The payload of a closed and unmerged pull request, padded to about `bytes`.
pub fn filtered(bytes: usize) -> Value {
    let mut payload = merged("acme/web", 5, SHA);
    payload["pull_request"]["merged"] = json!(false);
    padded(payload, bytes)
}

/// Pads a payload with requested reviewers, up to `bytes`.
pub fn padded(mut payload: Value, bytes: usize) -> Value {
    let user = json!({
        "login": "octo", "id": 21_031_067, "node_id": "MDQ6VXNlcjIxMDMxMDY3", "type": "User", "site_admin": false,
        "avatar_url": "https://avatars.example.com/u/21031067?v=4", "gravatar_id": "",
        "url": "https://api.example.com/users/octo", "repos_url": "https://api.example.com/users/octo/repos"
    });
    let missing = bytes.saturating_sub(payload.to_string().len() + "\"requested_reviewers\":[],".len());
    payload["pull_request"]["requested_reviewers"] = json!(vec![user.clone(); missing / (user.to_string().len() + 1)]);
    payload
}

/// A signed request as bytes.
pub fn request(payload: &Value) -> Vec<u8> {
    let body = payload.to_string().into_bytes();
    let mut head = String::from("POST / HTTP/1.1\r\nhost: bench\r\n");
    for (name, value) in headers("pull_request", "72d3162e-cc78-11e3-81ab-4c9367dc0958", &body) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [head.into_bytes(), body].concat()
}

/// A keep-alive connection.
pub struct Connection(TcpStream);

impl Connection {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self(stream)
    }

    /// Sends a request, reads the whole answer and returns its status.
    pub async fn exchange(&mut self, request: &[u8]) -> u16 {
        self.0.write_all(request).await.expect("a request");
        let mut seen = Vec::with_capacity(1024);
        loop {
            assert!(self.0.read_buf(&mut seen).await.expect("an answer") > 0, "the connection was closed");
            let text = String::from_utf8_lossy(&seen);
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then_some(value)
            });
            if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                return head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
            }
        }
    }

    /// Sends a request, whose answer must be 2xx.
    pub async fn deliver(&mut self, request: &[u8]) {
        let status = self.exchange(request).await;
        assert!((200..300).contains(&status), "{status}");
    }
}

/// The median rates of two servers, and the median ratio. The servers are measured in turn in many short rounds, so
/// that other load of the machine affects both alike.
pub fn alternate(addresses: [SocketAddr; 2], request: &Arc<Vec<u8>>) -> ([f64; 2], f64) {
    rounds(ROUNDS, || addresses.map(|address| rate(address, request)))
}

/// Measures `count` pairs: the median of each side, and the median of the ratios.
pub fn rounds(count: usize, mut pair: impl FnMut() -> [f64; 2]) -> ([f64; 2], f64) {
    let rounds: Vec<[f64; 2]> = (0..count).map(|_| pair()).collect();
    let middle = |value: fn(&[f64; 2]) -> f64| median(&mut rounds.iter().map(value).collect::<Vec<_>>());
    ([middle(|round| round[0]), middle(|round| round[1])], middle(|round| round[0] / round[1]))
}

/// Answers per second over one round, with [`CONNECTIONS`] connections.
fn rate(address: SocketAddr, request: &Arc<Vec<u8>>) -> f64 {
    let answered = Arc::new(AtomicU64::new(0));
    let runtime = runtime();
    let started = Instant::now();
    runtime.block_on(async {
        for _ in 0..CONNECTIONS {
            let (request, answered) = (Arc::clone(request), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut connection = Connection::open(address).await;
                loop {
                    connection.deliver(&request).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tokio::time::sleep(ROUND).await;
    });
    let count = u32::try_from(answered.load(Ordering::Relaxed)).expect("a count");
    f64::from(count) / started.elapsed().as_secs_f64()
}
