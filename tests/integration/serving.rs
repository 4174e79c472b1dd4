//! Connections: slow, incomplete and many ones, and the shutdown.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::support::fake_api::{FakeApi, Fault};
use crate::support::http::{HttpClient, raw, read_until};
use crate::support::process::{eventually, free_ports};
use crate::support::service::{LOGGED, PROGRAM, Setup};
use crate::support::webhook::{SECRET, SHA, headers, merged, sha256};

/// A signed request as bytes, with `Connection: close`.
fn request(body: &[u8]) -> Vec<u8> {
    let mut request = String::from("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in headers("pull_request", "d1", body) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [request.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_incomplete_body_at_deadline() {
    let service = Setup::dry_run().arg("--deadline=1").start();
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let request = request(&body);
    let answer = raw(service.address, &request[..request.len() - 1], "unavailable").await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"), "{answer}");
    assert!(answer.contains(r#""reason":"deadline""#), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_sender_that_half_closes_connection() {
    let service = Setup::dry_run().start();
    let mut stream = TcpStream::connect(service.address).await.expect("a connection");
    stream.write_all(&request(merged("acme/web", 5, SHA).to_string().as_bytes())).await.expect("a request");
    stream.shutdown().await.expect("a half-closed connection");
    let answer = read_until(&mut stream, "").await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_garbage_with_4xx_and_goes_on() {
    let service = Setup::dry_run().start();
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], b"GET / HTTP/1.1\r\nbad header\r\n\r\n"]
    {
        let answer = raw(service.address, garbage, "").await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer:?}");
    }
    let huge = format!("POST / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    // The rest of the head is never read, so that the connection may be reset after the answer.
    if let Ok(answer) = raw(service.address, huge.as_bytes(), "").await {
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    }
    let length = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: -1\r\n\r\n";
    assert!(raw(service.address, length.as_bytes(), "").await.expect("an answer").starts_with("HTTP/1.1 400"));
    assert_eq!(service.merge("d1", &merged("acme/web", 5, SHA)).await.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn sends_answer_although_body_is_refused() {
    let service = Setup::dry_run().start();
    let body = vec![b'x'; 20 << 20];
    let unsigned = [("content-type".to_owned(), "application/json".to_owned())];
    // With a content length, then streamed.
    let reply = service.send(Method::POST, "/", &unsigned, &body).await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    let chunks = futures_util::stream::iter((0..300).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 100 << 10])));
    let streamed = axum::body::Body::from_stream(chunks);
    let signed = headers("pull_request", "d1", b"another body");
    let reply = HttpClient::new().send(Method::POST, service.address, "/", &signed, streamed).await.expect("an answer");
    assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_buffered_bytes_and_accepts_small_bodies() {
    let limits = ["--max-buffered-bytes=8388608", "--max-body-bytes=8388608"];
    let service = limits.iter().fold(Setup::dry_run(), |setup, arg| setup.arg(arg)).start();
    // Each holds 4 MiB and never ends.
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(service.address).await.expect("a connection");
        let signature = sha256("x", b"");
        let head = format!(
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-hub-signature-256: {signature}\r\ncontent-length: 8388608\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("a head");
        // Connections over the limit are answered and closed, so that the write may not finish.
        let _ = timeout(Duration::from_secs(2), stream.write_all(&vec![b'x'; 4 << 20])).await;
        held.push(stream);
    }
    let line = service.log.wait_for("too many bytes of other deliveries", LOGGED);
    assert!(line.contains("ERROR") && line.contains("status=503"), "{line}");
    let reply = service.merge("d1", &merged("acme/web", 5, SHA)).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
    assert!(service.memory("VmHWM") < 64 << 10, "{} KiB", service.memory("VmHWM"));
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_finishes_deliveries_in_flight_and_exits_0() {
    let fake = FakeApi::start().await;
    let mut service = Setup::cluster(&fake.kubeconfig()).start();
    fake.fail(Fault::Hang(Duration::from_secs(2)));
    let address = service.address;
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let in_flight = tokio::spawn(async move {
        HttpClient::new().send(Method::POST, address, "/", &headers("pull_request", "d1", &body), body).await
    });
    wait_for_create(&fake).await;
    service.signal("TERM");
    service.log.wait_for("stopping", LOGGED);
    // For a moment new connections are answered with 503; then they are refused.
    let client = HttpClient::new();
    let probe = client.send(Method::GET, address, "/readyz", &[], b"".to_vec()).await;
    let late = client.send(Method::POST, address, "/", &headers("push", "late", b"{}"), b"{}".to_vec()).await;
    for reply in [probe, late].into_iter().flatten() {
        assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.body);
    }
    let closed = || std::net::TcpStream::connect(address).is_err().then_some(());
    eventually(LOGGED, closed).expect("a closed listener");

    let reply = in_flight.await.expect("a task").expect("an answer");
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);
    let status = service.wait(LOGGED).expect("the end");
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stops_idle_service_at_once_and_second_one_aborts() {
    let mut idle = Setup::dry_run().start();
    assert_eq!(idle.send(Method::GET, "/healthz", &[], b"").await.status, StatusCode::OK);
    let asked = Instant::now();
    idle.signal("TERM");
    assert_eq!(idle.wait(LOGGED).and_then(|status| status.code()), Some(0), "an idle connection delays the shutdown");
    assert!(asked.elapsed() < Duration::from_secs(4));

    let fake = FakeApi::start().await;
    fake.fail(Fault::Hang(Duration::from_secs(60)));
    let mut busy = Setup::cluster(&fake.kubeconfig()).arg("--deadline=60").start();
    let address = busy.address;
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    tokio::spawn(async move {
        HttpClient::new().send(Method::POST, address, "/", &headers("pull_request", "d1", &body), body).await.ok()
    });
    wait_for_create(&fake).await;
    busy.signal("TERM");
    busy.log.wait_for("stopping", LOGGED);
    busy.signal("TERM");
    assert_eq!(busy.wait(LOGGED).and_then(|status| status.code()), Some(1));
}

/// Waits until the API server has been asked for a run.
async fn wait_for_create(fake: &FakeApi) {
    let asked = async {
        while fake.creates().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LOGGED, asked).await.expect("a create");
}

/// Starts the program with unread pipes for stdout and stderr, and waits until it accepts connections.
fn start_unread(args: &[&str], port: u16) -> Child {
    let mut command = Command::new(PROGRAM);
    command.env_clear().env("WEBHOOK_SECRET", SECRET).env("RUST_LOG", "trace").args(["--dry-run", "--port"]);
    command.arg(port.to_string()).args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("the program");
    let listens = || std::net::TcpStream::connect(("127.0.0.1", port)).ok();
    eventually(LOGGED, listens).expect("a listener");
    child
}

fn terminate(child: &Child) {
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(status.expect("kill").success());
}

#[tokio::test(flavor = "multi_thread")]
async fn stops_in_time_although_output_is_not_read() {
    let [port] = free_ports();
    let mut child = start_unread(&["--deadline=2"], port);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    // More output than a pipe buffers.
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let headers = headers("pull_request", &"d".repeat(128), &body);
    let mut last = StatusCode::CREATED;
    for _ in 0..400 {
        let client = HttpClient::new();
        last = client.send(Method::POST, address, "/", &headers, body.clone()).await.expect("an answer").status;
        if last != StatusCode::CREATED {
            break;
        }
    }
    assert_eq!(last, StatusCode::SERVICE_UNAVAILABLE, "a run that cannot be printed is not acknowledged");
    let asked = Instant::now();
    terminate(&child);
    let status = eventually(LOGGED, || child.try_wait().expect("a status")).expect("the end");
    // The drain time (deadline + 1 s), 1 s for the exit, and 2 s for a busy machine.
    assert!(asked.elapsed() <= Duration::from_secs(2 + 1 + 1 + 2), "{:?}", asked.elapsed());
    assert_eq!(status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_stops_at_once_although_output_is_not_read() {
    let [port] = free_ports();
    let mut child = start_unread(&["--deadline=60"], port);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let signed = headers("pull_request", &"d".repeat(128), &body);
    // Runs are printed until the pipe is full; the next one waits for its deadline.
    let client = HttpClient::new();
    let stuck = async {
        loop {
            let sent = client.send(Method::POST, address, "/", &signed, body.clone());
            if timeout(Duration::from_secs(2), sent).await.is_err() {
                return;
            }
        }
    };
    timeout(LOGGED, stuck).await.expect("a full pipe");
    terminate(&child);
    let drains = || {
        let answer = std::net::TcpStream::connect(address).ok();
        answer.is_none().then_some(())
    };
    eventually(LOGGED, drains).expect("a closed listener");
    assert_eq!(child.try_wait().expect("a status"), None, "the delivery in flight keeps its deadline");
    terminate(&child);
    let status = eventually(LOGGED, || child.try_wait().expect("a status")).expect("the end");
    assert_eq!(status.code(), Some(1));
}
