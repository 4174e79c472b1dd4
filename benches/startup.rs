//! Time from exec to the first answer: to a probe, to a delivery, and to one that creates a run on a real API server.

use std::io::{Read, Write};
use std::time::Instant;

use crate::client::request;
use crate::servers::{Server, Service, bare};
use crate::support::control_plane;
use crate::support::webhook::{SHA, merged};
use crate::{median, row};

const STARTS: usize = 60;
const PROBE: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: bench\r\n\r\n";
const OK: &[u8] = b"POST /ok HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n\r\n";

/// Compares the service with an axum server that answers `ok`.
pub fn measure() {
    crate::servers::baseline();
    let delivery = request(&merged("acme/web", 5, SHA));
    let dry_run = |request: &[u8]| {
        let setup = Service::default();
        let folder = setup.prepare();
        first_answer(request, || setup.spawn(folder))
    };
    compare("exec to the first answered probe", "", |_| dry_run(PROBE), || first_answer(PROBE, bare));
    compare("exec to the first answered delivery (dry run)", "<= 3", |_| dry_run(&delivery), || first_answer(OK, bare));

    let Some(plane) = control_plane::without_admission() else { return };
    plane.namespace("startup");
    let kubeconfig = plane.trigger_account("startup");
    let created = |number: u64| {
        let setup = Service { kubeconfig: Some(&kubeconfig), ..Service::default() };
        let folder = setup.prepare();
        let delivery = request(&merged("acme/web", number, SHA));
        first_answer(&delivery, || setup.spawn(folder))
    };
    // Warm up the API server: its own first request is slower.
    created(0);
    compare("exec to the first created run (real API server)", "<= 6", created, || first_answer(OK, bare));
    assert_eq!(plane.runs("startup").len(), STARTS + 1);
}

fn compare(figure: &str, target: &str, ours: impl Fn(u64) -> f64, theirs: impl Fn() -> f64) {
    let (mut our_times, mut their_times) = (Vec::new(), Vec::new());
    for number in 1..=STARTS {
        their_times.push(theirs());
        our_times.push(ours(number as u64));
    }
    let (ours, theirs) = (median(&mut our_times), median(&mut their_times));
    row(
        figure,
        &format!("{ours:.2} ms"),
        &format!("{theirs:.2} ms (static axum server that answers ok)"),
        Some(ours / theirs),
        target,
    );
}

/// Milliseconds until the request is answered with 2xx.
fn first_answer(request: &[u8], start: impl FnOnce() -> Server) -> f64 {
    let started = Instant::now();
    let server = start();
    let mut stream = server.connect();
    stream.write_all(request).expect("a request");
    let mut head = [0; 12];
    stream.read_exact(&mut head).expect("an answer");
    let elapsed = started.elapsed();
    assert!(head.starts_with(b"HTTP/1.1 20"), "{}", String::from_utf8_lossy(&head));
    elapsed.as_secs_f64() * 1e3
}
