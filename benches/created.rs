//! Deliveries that create runs on a real API server, compared with a loop that posts the same objects itself.
//!
//! The API server has no admission webhooks here: their time would hide the difference.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::client::{CONNECTIONS, Connection, USUAL, padded, request, rounds, runtime};
use crate::servers::Service;
use crate::support::control_plane::{self, client_of};
use crate::support::webhook::{SHA, merged};
use crate::{median, row};

const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_secs(2);
const PAIRS: usize = 600;
/// Requests prepared before a round; more than a round uses.
const PREPARED: usize = 3000;

/// Runs per second with 16 connections, and the additional time of a single delivery over a single post.
pub fn measure() {
    let Some(plane) = control_plane::without_admission() else { return };
    plane.namespace("created");
    let kubeconfig = plane.trigger_account("created");
    let service = Service { kubeconfig: Some(&kubeconfig), ..Service::default() }.start();
    drop(service.connect());
    let runtime = runtime();
    // Authorization takes time, too: use the same service account for both.
    let client = runtime.block_on(client_of(&kubeconfig));
    let numbers = AtomicU64::new(1);
    let delivery = || {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        request(&padded(merged("acme/web", number, SHA), USUAL))
    };
    runtime.block_on(async { Connection::open(service.address).await.deliver(&delivery()).await });
    let posts = Posts { client, run: plain(plane.runs("created").remove(0)), made: AtomicU64::new(0) };

    let ([ours, theirs], ratio) = rounds(ROUNDS, || {
        // Prepared in advance, so that signing is not measured.
        let made = RefCell::new((0..PREPARED).map(|_| delivery()).collect::<Vec<_>>());
        let next = || made.borrow_mut().pop().unwrap_or_else(delivery);
        let ours = runtime.block_on(per_second(
            async || Connection::open(service.address).await,
            async |connection| {
                let delivery = next();
                connection.deliver(&delivery).await;
            },
        ));
        let made = RefCell::new((0..PREPARED).map(|_| posts.next()).collect::<Vec<_>>());
        let next = || made.borrow_mut().pop().unwrap_or_else(|| posts.next());
        let theirs = runtime.block_on(per_second(
            async || (),
            async |()| {
                let object = next();
                posts.post(object).await;
            },
        ));
        [ours, theirs]
    });
    row(
        "created runs per second, 16 connections",
        &format!("{ours:.0}"),
        &format!("{theirs:.0} (a loop of posts to the same API server)"),
        Some(ratio),
        ">= 0.90",
    );

    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    runtime.block_on(async {
        let mut connection = Connection::open(service.address).await;
        for _ in 0..PAIRS {
            let delivery = delivery();
            let started = Instant::now();
            connection.deliver(&delivery).await;
            let ours = started.elapsed().as_secs_f64() * 1e3;
            let object = posts.next();
            let started = Instant::now();
            posts.post(object).await;
            let theirs = started.elapsed().as_secs_f64() * 1e3;
            times[0].push(ours);
            times[1].push(theirs);
            times[2].push(ours - theirs);
        }
    });
    let [ours, theirs, added] = times.map(|mut times| median(&mut times));
    row(
        "time of a created delivery, one at a time",
        &format!("{ours:.2} ms"),
        &format!("{theirs:.2} ms (a post); {added:.2} ms more"),
        None,
        "<= 0.5 ms more",
    );
}

/// Calls of `again` per second, by [`CONNECTIONS`] concurrent workers with a state from `begin`.
async fn per_second<T>(begin: impl AsyncFn() -> T, again: impl AsyncFn(&mut T)) -> f64 {
    let done = AtomicU64::new(0);
    let started = Instant::now();
    let workers = (0..CONNECTIONS).map(|_| async {
        let mut state = begin().await;
        loop {
            again(&mut state).await;
            done.fetch_add(1, Ordering::Relaxed);
        }
    });
    let workers = futures_util::future::join_all(workers);
    let _ = tokio::time::timeout(ROUND, async { workers.await.pop().unwrap_or(()) }).await;
    let count = u32::try_from(done.load(Ordering::Relaxed)).expect("a count");
    f64::from(count) / started.elapsed().as_secs_f64()
}

/// The comparison: the same objects, posted by kube's client without the service.
struct Posts {
    client: Client,
    run: Value,
    made: AtomicU64,
}

impl Posts {
    /// The next object, with a name of its own, as JSON.
    fn next(&self) -> Vec<u8> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let mut run = self.run.clone();
        run["metadata"]["name"] = json!(format!("posted-{number:012}"));
        run.to_string().into_bytes()
    }

    async fn post(&self, object: Vec<u8>) {
        let uri = "/apis/tekton.dev/v1/namespaces/created/pipelineruns?fieldValidation=Strict&fieldManager=bench";
        let request = Request::builder().method(Method::POST).uri(uri).header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Body::from(object)).expect("a request");
        let reply = self.client.send(request).await.expect("an answer");
        assert_eq!(reply.status(), StatusCode::CREATED);
        reply.into_body().collect().await.expect("a run");
    }
}

/// A run without the metadata that the API server sets.
fn plain(mut run: Value) -> Value {
    let metadata = run["metadata"].as_object_mut().expect("metadata");
    for key in ["creationTimestamp", "generation", "managedFields", "resourceVersion", "uid"] {
        metadata.remove(key);
    }
    run
}
