//! Deliveries per second: one server core, one client core, 16 connections.

use std::fs;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::service::{PROGRAM, TEMPLATE};
use crate::support::webhook::{SECRET, SHA, headers, merged};
use crate::{baseline, median, row};

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_secs(1);

/// Filtered deliveries against a bare handler, and with many templates against one.
pub fn measure() {
    let unmerged = Arc::new(request(&filtered()));
    let service = start(1);
    let port = free_port();
    let mut bare = baseline::spawn("verify", port);
    let bare_address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(bare_address);
    pin(std::process::id(), 0);
    pin(bare.id(), 1);
    let ([ours, theirs], ratio) = alternate([service.address, bare_address], &unmerged);
    end(&mut bare);
    row(
        "filtered deliveries per second (24 KiB, signed, one core)",
        &format!("{ours:.0}"),
        &format!("{theirs:.0} (bare axum handler that verifies and parses)"),
        Some(ratio),
        ">= 0.85",
    );

    // A merge for a repository that none of the templates is for: each of them is asked.
    let elsewhere = Arc::new(request(&padded(merged("other/web", 5, SHA))));
    for (count, target) in [(100, ">= 0.90"), (1000, ">= 0.80")] {
        let many = start(count);
        let ([with_many, with_one], ratio) = alternate([many.address, service.address], &elsewhere);
        row(
            &format!("filtered deliveries per second with {count} templates"),
            &format!("{with_many:.0}"),
            &format!("{with_one:.0} (one template)"),
            Some(ratio),
            target,
        );
    }
}

/// The service with so many templates, on the second core; its log goes to a file, as a container's does.
struct Server {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn start(templates: usize) -> Server {
    let folder = tempfile::tempdir().expect("a folder");
    let template = folder.path().join("templates.yaml");
    fs::write(&template, many_templates(templates)).expect("a file");
    let log = fs::File::create(folder.path().join("log")).expect("a file");
    let port = free_port();
    let child = Command::new(PROGRAM)
        .env_clear()
        .env("WEBHOOK_SECRET", SECRET)
        .env("TOKIO_WORKER_THREADS", "1")
        .args(["--dry-run", "--port", &port.to_string(), "--trigger-config"])
        .arg(template)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the program");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for(address);
    pin(child.id(), 1);
    Server { child, address, _folder: folder }
}

/// Templates with conditions, a repository each.
pub fn many_templates(count: usize) -> String {
    let template = |index: usize| {
        TEMPLATE.replace("generateName: build-", &format!("generateName: build-{index}-")).replace(
            "\"*/*\"",
            &format!(
                "\"acme/service-{index}, acme/all-*\"\n    github-trigger.dev/on-target-branch: \"main, release/*\""
            ),
        )
    };
    (0..count).map(template).collect::<Vec<_>>().join("---")
}

/// The median rates of many short rounds, taken in turn, and the median of the rounds' ratios: what else the machine
/// does then meets both alike.
fn alternate(addresses: [SocketAddr; 2], request: &Arc<Vec<u8>>) -> ([f64; 2], f64) {
    let rounds: Vec<[f64; 2]> = (0..ROUNDS).map(|_| addresses.map(|address| rate(address, request))).collect();
    let middle = |value: fn(&[f64; 2]) -> f64| median(&mut rounds.iter().map(value).collect::<Vec<_>>());
    ([middle(|round| round[0]), middle(|round| round[1])], middle(|round| round[0] / round[1]))
}

/// A closed and unmerged pull request of 24 KiB, the size of GitHub's own examples.
fn filtered() -> Value {
    let mut payload = merged("acme/web", 5, SHA);
    payload["pull_request"]["merged"] = json!(false);
    padded(payload)
}

/// The payload with more and more of what GitHub's have, up to 24 KiB.
fn padded(mut payload: Value) -> Value {
    let user = json!({
        "login": "octo", "id": 21_031_067, "node_id": "MDQ6VXNlcjIxMDMxMDY3", "type": "User", "site_admin": false,
        "avatar_url": "https://avatars.example.com/u/21031067?v=4", "gravatar_id": "",
        "url": "https://api.example.com/users/octo", "repos_url": "https://api.example.com/users/octo/repos"
    });
    let mut people = Vec::new();
    while payload.to_string().len() < 24 << 10 {
        people.push(user.clone());
        payload["pull_request"]["requested_reviewers"] = json!(people);
    }
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

/// Answers per second over one round.
fn rate(address: SocketAddr, request: &Arc<Vec<u8>>) -> f64 {
    let answered = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let started = Instant::now();
    runtime.block_on(async {
        for _ in 0..CONNECTIONS {
            let (request, answered) = (Arc::clone(request), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.expect("a connection");
                stream.set_nodelay(true).expect("no delay");
                loop {
                    exchange(&mut stream, &request).await;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        tokio::time::sleep(ROUND).await;
    });
    let count = u32::try_from(answered.load(Ordering::Relaxed)).expect("a count");
    f64::from(count) / started.elapsed().as_secs_f64()
}

/// Sends a request and reads its 200.
async fn exchange(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).await.expect("a request");
    let mut seen = Vec::with_capacity(1024);
    loop {
        assert!(stream.read_buf(&mut seen).await.expect("an answer") > 0, "the connection was closed");
        let text = String::from_utf8_lossy(&seen);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
            assert!(head.starts_with("HTTP/1.1 20"), "{text}");
            return;
        }
    }
}

/// Waits until somebody listens.
pub fn wait_for(address: SocketAddr) {
    while std::net::TcpStream::connect(address).is_err() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// All threads of a process on one core, where `taskset` is at hand.
fn pin(process: u32, core: usize) {
    let _ = Command::new("taskset").args(["-a", "-c", "-p", &core.to_string(), &process.to_string()]).output();
}

/// Kills a server.
pub fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
