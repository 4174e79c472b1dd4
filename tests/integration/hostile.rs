//! Hostile senders: memory, log and answer times stay within their limits.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Method, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::support::http::{raw, read_until};
use crate::support::process::{alone, eventually};
use crate::support::service::{LOGGED, Service, Setup};
use crate::support::webhook::{SHA, headers, merged};

/// Memory limit of the container in `service.yaml`, in KiB.
const CONTAINER: u64 = 256 << 10;
const MIB: usize = 1 << 20;

/// A request head with a well-formed but wrong signature.
fn head(more: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-github-event: pull_request\r\n\
         x-github-delivery: d0\r\nx-hub-signature-256: sha256={}\r\n{more}",
        "0".repeat(64)
    )
}

/// A valid delivery as it is sent.
fn signed_delivery() -> String {
    let body = merged("acme/web", 1, SHA).to_string();
    let mut delivery = "POST / HTTP/1.1\r\nhost: x\r\n".to_owned();
    for (name, value) in headers("pull_request", "d1", body.as_bytes()) {
        delivery.push_str(&format!("{name}: {value}\r\n"));
    }
    delivery.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    delivery
}

/// Sends a valid delivery, which must succeed within 8 s.
async fn is_answered(service: &Service, number: u64) {
    let reply = timeout(Duration::from_secs(8), service.merge("real", &merged("acme/web", number, SHA))).await;
    assert_eq!(reply.expect("an answer in time").status, StatusCode::CREATED, "{}", service.log.text());
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
}

/// Sends 25 MiB, with a length or chunked, and reads the status.
async fn send_large(address: SocketAddr, chunked: bool) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let length =
        if chunked { "transfer-encoding: chunked".to_owned() } else { format!("content-length: {}", 25 * MIB) };
    stream.write_all(head(&format!("{length}\r\n\r\n")).as_bytes()).await?;
    let piece = vec![b'x'; MIB];
    for _ in 0..25 {
        if chunked {
            stream.write_all(b"100000\r\n").await?;
        }
        stream.write_all(&piece).await?;
        if chunked {
            stream.write_all(b"\r\n").await?;
        }
    }
    if chunked {
        stream.write_all(b"0\r\n\r\n").await?;
    }
    let answer = read_until(&mut stream, "\r\n\r\n").await?;
    Ok(answer.get(9..12).unwrap_or_default().to_owned())
}

async fn two_hundred_large_bodies(chunked: bool) {
    let _alone = alone().await;
    let service = Setup::dry_run().start();
    let address = service.address;
    let senders: Vec<JoinHandle<_>> = (0..200).map(|_| tokio::spawn(send_large(address, chunked))).collect();
    let mut answered = 0;
    while !senders.iter().all(JoinHandle::is_finished) {
        is_answered(&service, answered + 1).await;
        answered += 1;
    }
    let statuses: Vec<String> =
        join_all(senders).await.into_iter().filter_map(|sent| sent.expect("a sender").ok()).collect();
    let count = |status: &str| statuses.iter().filter(|seen| *seen == status).count();
    // 401 for the wrong signature, or 503 if the buffers were full. A slow sender may get a closed connection instead.
    assert_eq!(count("401") + count("503"), statuses.len(), "{statuses:?}");
    assert!(count("401") > 0 && answered > 1, "{statuses:?}");
    let peak = service.memory("VmHWM");
    assert!(peak <= CONTAINER, "{peak} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_memory_for_large_bodies_with_length() {
    two_hundred_large_bodies(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bounds_memory_for_large_chunked_bodies() {
    two_hundred_large_bodies(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_despite_a_thousand_unfinished_heads() {
    let _alone = alone().await;
    let service = Setup::dry_run().start();
    // Nearly the largest head that is accepted.
    let beginning = head(&format!("x-filler: {}", "x".repeat(60 << 10)));
    let senders = (0..1000).map(|_| async {
        let mut stream = connect(service.address).await;
        stream.write_all(beginning.as_bytes()).await.expect("a beginning");
        stream
    });
    let streams = join_all(senders).await;
    for number in 1..=20 {
        is_answered(&service, number).await;
    }
    let peak = service.memory("VmHWM");
    assert!(peak <= CONTAINER, "{peak} KiB");
    drop(streams);
    is_answered(&service, 21).await;
}

/// More connections than the service holds at the same time: memory stays bounded, and it answers again afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn bounds_memory_for_unlimited_connections() {
    let _alone = alone().await;
    let service = Setup::dry_run().start();
    let beginning = head(&format!("x-filler: {}", "x".repeat(60 << 10)));
    let mut streams = Vec::new();
    for _ in 0..2200 {
        let mut stream = connect(service.address).await;
        // A connection that is not accepted yet takes only what the kernel buffers.
        let _ = timeout(Duration::from_millis(20), stream.write_all(beginning.as_bytes())).await;
        streams.push(stream);
    }
    sleep(Duration::from_secs(1)).await;
    let peak = service.memory("VmHWM");
    assert!(peak <= CONTAINER, "{peak} KiB");
    drop(streams);
    is_answered(&service, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_slow_bodies_at_deadline() {
    let service = Setup::dry_run().arg("--deadline=2").start();
    let drip = async || {
        let mut stream = connect(service.address).await;
        stream.write_all(head("content-length: 1000\r\n\r\n").as_bytes()).await.expect("a head");
        let (mut answers, mut bytes) = stream.into_split();
        let dripping = tokio::spawn(async move {
            while bytes.write_all(b"x").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        });
        let mut answer = [0; 12];
        timeout(Duration::from_secs(10), answers.read_exact(&mut answer)).await.expect("an answer").expect("an answer");
        dripping.abort();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let (statuses, ()) = tokio::join!(join_all((0..100).map(|_| drip())), is_answered(&service, 1));
    assert!(statuses.iter().all(|status| status == "HTTP/1.1 503"), "{statuses:?}");
}

/// The rest of a refused body is no beginning of the next request, whose time would run out before it comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_body_takes_no_time_from_the_next_request() {
    let service = Setup::dry_run().arg("--deadline=1").start();
    let mut stream = connect(service.address).await;
    let refused = "POST / HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nx-github-event: pull_request\r\n\
        x-github-delivery: d0\r\ncontent-length: 100000\r\n\r\n";
    stream.write_all(refused.as_bytes()).await.expect("a head");
    stream.write_all(&vec![b'x'; 100_000]).await.expect("a body");
    let answer = read_until(&mut stream, "}").await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    // Longer than the deadline: what is tested is that this time does not count.
    sleep(Duration::from_millis(1_500)).await;
    let delivery = signed_delivery();
    stream.write_all(delivery.as_bytes()).await.expect("a delivery");
    let answer = read_until(&mut stream, "}").await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_pipelined_requests_in_order_until_garbage() {
    let service = Setup::dry_run().start();
    let delivery = signed_delivery();
    let garbage = "\0\x01\x02 not HTTP at all \r\n\r\n";
    let answers = raw(service.address, format!("{delivery}{delivery}{garbage}{delivery}").as_bytes(), "").await;
    let answers = answers.expect("answers");
    let statuses: Vec<&str> =
        answers.match_indices("HTTP/1.1 ").filter_map(|(at, _)| answers.get(at + 9..at + 12)).collect();
    assert_eq!(statuses, ["201", "201", "400"], "{answers}");

    for garbage in [
        "\r\n\r\n\r\n".repeat(10_000),
        "\0".repeat(100_000),
        "GET ".repeat(100_000),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        head("content-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
        head("transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"),
        head("transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
        head("content-length: -1\r\n\r\n"),
        head("content-length: 99999999999999999999999\r\n\r\n"),
    ] {
        let answer = timeout(Duration::from_secs(30), raw(service.address, garbage.as_bytes(), "")).await;
        // Either 4xx or a closed connection.
        let answer = answer.expect("an end").unwrap_or_default();
        let statuses = answer.match_indices("HTTP/1.1 ").filter_map(|(at, _)| answer.get(at + 9..at + 10));
        assert!(statuses.into_iter().all(|class| class == "4"), "{answer}");
    }
    is_answered(&service, 2).await;
    assert!(!service.log.text().contains("report it"), "{}", service.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_too_many_or_too_long_headers() {
    let _alone = alone().await;
    let service = Setup::dry_run().start();
    let many: String = (0..5_000).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let long = format!("x-long: {}\r\n", "x".repeat(MIB));
    let small: String = (0..400).map(|number| format!("x-{number}: {number}\r\n")).collect();
    for headers in [many, long, small] {
        let request = head(&format!("{headers}content-length: 2\r\n\r\n{{}}"));
        let senders = join_all((0..100).map(|_| raw(service.address, request.as_bytes(), ""))).await;
        // A sender that is still writing when the connection closes may not see the answer.
        for answer in senders.into_iter().flatten().filter(|answer| !answer.is_empty()) {
            assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        }
    }
    is_answered(&service, 1).await;
    let peak = service.memory("VmHWM");
    assert!(peak <= CONTAINER, "{peak} KiB");
}

/// `WRONG_SIGNATURES=1000000 cargo test --release wrong_signatures` sends a million.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_signatures_are_counted_but_not_all_logged() {
    let _alone = alone().await;
    let count = std::env::var("WRONG_SIGNATURES").ok().and_then(|count| count.parse().ok()).unwrap_or(20_000_u64);
    let service = Setup::dry_run().arg("--metrics-addr=127.0.0.1:0").start();
    let request = head("content-length: 2\r\n\r\n{}");
    let started = Instant::now();
    let senders = (0..16).map(|sender| {
        let (request, address) = (request.clone(), service.address);
        tokio::spawn(async move {
            let mut stream = connect(address).await;
            let share = count / 16 + u64::from(sender < count % 16);
            for _ in 0..share {
                stream.write_all(request.as_bytes()).await.expect("a request");
                let answer = read_until(&mut stream, "true}").await.expect("an answer");
                assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
            }
        })
    });
    let (sent, ()) = tokio::join!(join_all(senders), is_answered(&service, 1));
    sent.into_iter().for_each(|sender| sender.expect("a sender"));
    // The number of left out lines is reported each second.
    let counted = || {
        let lines = service.log.all();
        let written = lines.iter().filter(|line| line.contains("outcome=rejected")).count() as u64;
        let left_out = lines.iter().filter_map(|line| line.split("left_out=").nth(1)?.trim().parse::<u64>().ok());
        (written + left_out.sum::<u64>() == count).then_some(written)
    };
    let written = eventually(LOGGED, counted).unwrap_or_else(|| panic!("not {count}:\n{}", service.log.text()));
    let seconds = started.elapsed().as_secs() + 1;
    assert!(written <= 20 * seconds, "{written} lines in {seconds} s");
    let lines = service.log.all();
    let metrics = lines.iter().find_map(|line| line.split("127.0.0.1:").nth(1).filter(|_| line.contains("metrics")));
    let port: u16 = metrics.and_then(|port| port.trim().parse().ok()).expect("the address of the metrics");
    let metrics = raw(
        SocketAddr::from(([127, 0, 0, 1], port)),
        b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        "",
    );
    let text = metrics.await.expect("metrics");
    let line = format!("signature_checks_total{{algorithm=\"sha256\",result=\"mismatch\"}} {count}");
    assert!(text.contains(&line), "{text}");
    assert_eq!(service.send(Method::GET, "/readyz", &[], b"").await.status, StatusCode::OK);
}

/// A probe must be answered within 2 s, as kubelet asks for.
async fn probes_are_answered(service: &Service) {
    for path in ["/healthz", "/readyz"] {
        let mut stream = connect(service.address).await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("a probe");
        let answer = timeout(Duration::from_secs(2), read_until(&mut stream, "ok")).await;
        assert!(answer.expect("an answer in time").expect("an answer").starts_with("HTTP/1.1 200"), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_despite_idle_connections_at_the_limit() {
    let _alone = alone().await;
    let service = Setup::dry_run().start();
    let mut streams = Vec::new();
    for index in 0..2_000 {
        let mut stream = connect(service.address).await;
        if index % 2 == 0 {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
            read_until(&mut stream, "ok").await.expect("an answer");
        }
        streams.push(stream);
    }
    for number in 1..=5 {
        is_answered(&service, number).await;
        probes_are_answered(&service).await;
    }
    // The ones that were idle for the longest time are closed, the others stay.
    let last = streams.last_mut().expect("a stream");
    last.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
    read_until(last, "ok").await.expect("an answer");
    assert_eq!(streams.first_mut().expect("a stream").read(&mut [0; 16]).await.ok(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_despite_slow_bodies_with_invented_signatures_at_the_limit() {
    let _alone = alone().await;
    let service = Setup::dry_run().start();
    let address = service.address;
    let begun = Arc::new(AtomicUsize::new(0));
    let slow: Vec<_> = (0..1_800)
        .map(|_| {
            let begun = Arc::clone(&begun);
            tokio::spawn(async move {
                loop {
                    let Ok(mut stream) = TcpStream::connect(address).await else { return };
                    let beginning = head("content-length: 1000\r\n\r\n");
                    let mut sent = stream.write_all(beginning.as_bytes()).await;
                    begun.fetch_add(1, Ordering::Relaxed);
                    while sent.is_ok() {
                        sleep(Duration::from_millis(500)).await;
                        sent = stream.write_all(b"x").await;
                    }
                }
            })
        })
        .collect();
    let all_begun = async {
        while begun.load(Ordering::Relaxed) < slow.len() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), all_begun).await.expect("as many connections as were begun");
    for number in 1..=10 {
        probes_are_answered(&service).await;
        is_answered(&service, number).await;
    }
    slow.iter().for_each(JoinHandle::abort);
}
