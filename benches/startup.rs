//! From exec to the first answered `POST`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::{end, free_port, request};
use crate::support::service::PROGRAM;
use crate::support::webhook::{SECRET, SHA, merged};
use crate::{baseline, median, row};

const STARTS: usize = 60;
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_micros(50);

/// The service in a dry run against an axum server that answers `ok`.
pub fn measure() {
    let request = request(&merged("acme/web", 5, SHA));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        theirs.push(first_answer(&request, |port| baseline::spawn("ok", port)));
        ours.push(first_answer(&request, dry_run));
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    row(
        "exec to first answered POST",
        &format!("{ours:.2} ms"),
        &format!("{theirs:.2} ms (axum server that answers ok)"),
        Some(ours / theirs),
        "<= 3",
    );
}

fn dry_run(port: u16) -> Child {
    Command::new(PROGRAM)
        .env_clear()
        .env("WEBHOOK_SECRET", SECRET)
        .env("TOKIO_WORKER_THREADS", "1")
        .args(["--dry-run", "--port", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program")
}

/// Milliseconds until the request is answered with 2xx.
fn first_answer(request: &[u8], start: impl Fn(u16) -> Child) -> f64 {
    let port = free_port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let started = Instant::now();
    let mut child = start(port);
    let mut stream = loop {
        match TcpStream::connect(address) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(PAUSE),
        }
    };
    stream.write_all(request).expect("a request");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    let elapsed = started.elapsed();
    assert!(head.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&head));
    end(&mut child);
    elapsed.as_secs_f64() * 1e3
}
