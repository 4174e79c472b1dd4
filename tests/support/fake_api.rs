//! A fake API server that fails on demand. See [`super::control_plane`] for a real one.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

/// What to do with a create request instead of creating the run.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Answer with a Kubernetes `Status` of this code and reason.
    Status(u16, &'static str),
    /// Answer with this code and `Retry-After` in seconds.
    RetryAfter(u16, u64),
    /// Answer with this code and plain text.
    Text(u16, &'static str),
    /// Wait for this time, then create.
    Hang(Duration),
    /// Create, then close the connection without an answer.
    CreateAndReset,
    /// Close the connection without an answer.
    Reset,
}

#[derive(Default)]
struct Inner {
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    runs: BTreeMap<String, Value>,
    creates: Vec<String>,
    traces: Vec<String>,
}

/// The running fake, and the requests that it has received.
pub struct FakeApi {
    inner: Arc<Mutex<Inner>>,
    folder: TempDir,
}

impl FakeApi {
    pub async fn start() -> Self {
        let inner = Arc::new(Mutex::new(Inner::default()));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(serve(listener, Arc::clone(&inner)));
        let folder = tempfile::tempdir().expect("a folder");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "test", "user": {"token": "test"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "builds"}}]
        });
        std::fs::write(folder.path().join("kubeconfig"), config.to_string()).expect("a file");
        Self { inner, folder }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        Path::join(self.folder.path(), "kubeconfig")
    }

    /// Fails the next create; faults are queued.
    pub fn fail(&self, fault: Fault) {
        self.inner.lock().expect("the state").faults.push_back(fault);
    }

    /// Fails every create from now on; `None` ends it.
    pub fn fail_always(&self, fault: Option<Fault>) {
        self.inner.lock().expect("the state").always = fault;
    }

    /// The created runs.
    pub fn runs(&self) -> Vec<Value> {
        self.inner.lock().expect("the state").runs.values().cloned().collect()
    }

    /// Deletes all runs.
    pub fn delete_runs(&self) {
        self.inner.lock().expect("the state").runs.clear();
    }

    /// The `traceparent` of every create that had one.
    pub fn traces(&self) -> Vec<String> {
        self.inner.lock().expect("the state").traces.clone()
    }

    /// Paths and queries of all creates so far, successful or not.
    pub fn creates(&self) -> Vec<String> {
        self.inner.lock().expect("the state").creates.clone()
    }
}

/// An error of the service makes hyper drop the connection, which simulates a reset.
async fn serve(listener: TcpListener, inner: Arc<Mutex<Inner>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let inner = Arc::clone(&inner);
        let service = service_fn(move |request: Request<Incoming>| {
            let inner = Arc::clone(&inner);
            async move {
                let (head, body) = request.into_parts();
                if let Some(trace) = head.headers.get("traceparent").and_then(|value| value.to_str().ok()) {
                    inner.lock().expect("the state").traces.push(trace.to_owned());
                }
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                answer(&inner, &head.method, &head.uri, &body).await
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(inner: &Mutex<Inner>, method: &Method, uri: &Uri, body: &[u8]) -> io::Result<Response> {
    if method != Method::POST {
        return Ok(json_body(
            &json!({"major": "1", "minor": "36", "gitVersion": "v0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        )
        .into_response());
    }
    let fault = {
        let mut inner = inner.lock().expect("the state");
        inner.creates.push(uri.to_string());
        let always = inner.always.clone();
        inner.faults.pop_front().or(always)
    };
    Ok(match fault {
        Some(Fault::Status(code, reason)) => status(code, reason, "made to fail"),
        Some(Fault::RetryAfter(code, seconds)) => {
            ([("retry-after", seconds.to_string())], status(code, "TooManyRequests", "slow down")).into_response()
        }
        Some(Fault::Text(code, text)) => (StatusCode::from_u16(code).expect("a status"), text).into_response(),
        Some(Fault::Hang(time)) => {
            tokio::time::sleep(time).await;
            create(inner, uri, body)
        }
        Some(Fault::CreateAndReset) => {
            let _ = create(inner, uri, body);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Some(Fault::Reset) => return Err(io::ErrorKind::ConnectionReset.into()),
        None => create(inner, uri, body),
    })
}

fn create(inner: &Mutex<Inner>, uri: &Uri, body: &[u8]) -> Response {
    let run: Value = serde_json::from_slice(body).expect("JSON");
    let key = format!("{}/{}", uri.path(), run["metadata"]["name"].as_str().expect("a name"));
    let mut inner = inner.lock().expect("the state");
    if inner.runs.contains_key(&key) {
        return status(409, "AlreadyExists", "already exists");
    }
    inner.runs.insert(key, run.clone());
    (StatusCode::CREATED, json_body(&run)).into_response()
}

fn status(code: u16, reason: &str, message: &str) -> Response {
    let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    (StatusCode::from_u16(code).expect("a status"), json_body(&body)).into_response()
}

fn json_body(value: &Value) -> impl IntoResponse + use<> {
    ([("content-type", "application/json")], value.to_string())
}
