//! The sample application.

#[path = "../../examples/hello-sample/main.rs"]
#[allow(dead_code)]
mod application;

use axum::Router;
use http::{Method, StatusCode};
use tokio::net::TcpListener;

use crate::support::http::{HttpClient, Reply};
use crate::support::receiver::Receiver;
use application::{Settings, router};

fn settings() -> Settings {
    Settings { target: "Knative".to_owned(), fail_percent: 0, next: None, revision: "hello-00001".to_owned() }
}

async fn ask(router: Router, headers: &[(String, String)]) -> Reply {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    HttpClient::new().send(Method::GET, address, "/", headers, Vec::new()).await.expect("an answer")
}

#[tokio::test]
async fn greets_and_fails_by_percentage() {
    let reply = ask(router(settings()), &[]).await;
    assert_eq!((reply.status, reply.body.as_str()), (StatusCode::OK, "Hello Knative from hello-00001!\n"));
    let reply = ask(router(Settings { fail_percent: 100, ..settings() }), &[]).await;
    assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn forwards_trace_headers_only() {
    let next = Receiver::answering(StatusCode::OK, "and from me\n").await;
    let trace = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=b"),
        ("baggage", "user=x"),
        ("x-request-id", "r1"),
        ("authorization", "Bearer secret"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let reply = ask(router(Settings { next: Some(next.url()), ..settings() }), &trace).await;
    assert!(reply.body.ends_with("!\nand from me\n"), "{}", reply.body);
    let received = &next.received()[0];
    for (name, value) in &trace[..4] {
        assert_eq!(received.header(name), value);
    }
    assert_eq!(received.header("authorization"), "");
    let nobody = ask(router(Settings { next: Some("http://127.0.0.1:1/".to_owned()), ..settings() }), &[]).await;
    assert_eq!(nobody.status, StatusCode::BAD_GATEWAY);
}
