//! Everything that knows HTTP: routes, limits, answers, probes, connections.

mod accept;
mod answer;
mod budget;
mod connection;
mod flood;
mod handler;
mod intake;
pub mod lanes;
mod proof;
mod reason;
mod record;
mod reply;
mod sink;

use std::any::Any;
use std::future::Future;
use std::io;
use std::net::TcpListener as Socket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tower_http::catch_panic::CatchPanicLayer;

use accept::Places;
pub use answer::{Answer, Outcome, RunRef};
pub use budget::Budget;
pub use flood::Flood;
pub use proof::CloudEventsAuth;
pub use reason::Reason;
pub use reply::ReplyEvents;
pub use sink::{Sink, print_run};

use crate::delivery::{Key, SignaturePolicy};
use crate::reload::{self, Reloading};
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::spans::Tracer;
use crate::template::TemplateSet;

/// CEL evaluations at the same time. One that never ends holds its place for good, and the others go on.
pub const EVALUATIONS: usize = 8;

/// What can be stale.
const CONFIGS: [&str; 2] = ["webhook_secrets", "templates"];

/// What one request, and all of them, may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one body.
    pub max_body: u64,
    /// From a request's first byte to its answer.
    pub deadline: Duration,
}

/// Everything that a delivery is answered with.
pub struct App {
    /// The webhook secrets.
    pub secrets: Reloading<Vec<Key>>,
    /// The templates.
    pub templates: Reloading<TemplateSet>,
    /// Which signatures are enough.
    pub signatures: SignaturePolicy,
    /// How a CloudEvent proves itself.
    pub cloud_events: CloudEventsAuth,
    /// Whether senders of events are replied to with events.
    pub reply_events: Option<ReplyEvents>,
    /// What is counted.
    pub metrics: Metrics,
    /// What time went into, if anybody wants to know.
    pub tracer: Tracer,
    /// Where runs go.
    pub sink: Sink,
    /// Where a template without a namespace goes.
    pub namespace: String,
    /// Limits of one request.
    pub limits: Limits,
    /// The limit of all bodies together.
    pub budget: Arc<Budget>,
    /// CEL evaluations that may run at the same time, see [`EVALUATIONS`].
    pub evaluations: Arc<Semaphore>,
    /// Which lines of strangers are logged.
    pub flood: Flood,
    /// Set once the service is to stop.
    pub draining: AtomicBool,
}

impl App {
    /// All metrics, as they are now.
    pub fn metrics_text(&self) -> String {
        self.metrics.set_config(CONFIGS[0], self.secrets.state());
        self.metrics.set_config(CONFIGS[1], self.templates.state());
        self.metrics.set_buffered(self.budget.used());
        self.metrics.encode()
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// The routes of the service.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", any(root))
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .fallback(|| async { Answer::told(Reason::Path, "deliveries go to /").respond(None, false) })
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

/// Serves on this thread, and once `warm` is done on as many others as there are lanes, until `stop` is done; then
/// finishes what is in flight.
///
/// # Errors
/// When the socket cannot be served from.
pub async fn serve(
    socket: Socket,
    app: Arc<App>,
    warm: impl Future<Output = ()>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let watching = tokio::spawn(watch_files(Arc::clone(&app)));
    // An answer leaves within the deadline; a little more for the bytes to leave.
    let grace = app.limits.deadline + Duration::from_secs(1);
    let places = Places::new();
    let (told, mut hears) = watch::channel(());
    let listener = TcpListener::from_std(socket.try_clone()?)?;
    let (lane_app, lane_places) = (Arc::clone(&app), places.clone());
    let others = async move {
        // What is not warm yet is better waited for by one thread.
        tokio::select! {
            () = warm => {}
            _ = hears.changed() => return,
        }
        let begin = |_| lane(&socket, &lane_app, &lane_places, hears.clone(), grace);
        let lanes: Vec<_> = (1..lanes::count()).filter_map(begin).collect();
        // Each has its own; the last one to close it closes it for good.
        drop(socket);
        for done in lanes {
            let _ = done.await;
        }
    };
    let stop = async {
        stop.await;
        app.draining.store(true, Ordering::Relaxed);
        told.send_replace(());
    };
    let first = accept::serve(listener, router(Arc::clone(&app)), stop, places.clone(), grace);
    tokio::join!(first, others);
    watching.abort();
    app.flood.report();
    Ok(())
}

/// One more thread that serves; nothing, and a line in the log, if there can be none.
fn lane(
    socket: &Socket,
    app: &Arc<App>,
    places: &Places,
    mut hears: watch::Receiver<()>,
    grace: Duration,
) -> Option<oneshot::Receiver<()>> {
    let (app, places) = (Arc::clone(app), places.clone());
    let lane = lanes::start(socket, move |listener| async move {
        let warming = Arc::clone(&app);
        tokio::spawn(async move { warming.sink.warm().await });
        // An error says that nobody is left who could tell.
        let stop = async { drop(hears.changed().await) };
        accept::serve(listener, router(app), stop, places, grace).await;
    });
    lane.inspect_err(|error| tracing::error!(reason = %error, "cannot start a thread; the others serve")).ok()
}

/// The metrics' own listener: the one of deliveries is public.
pub async fn serve_metrics(listener: TcpListener, app: Arc<App>) {
    let router = Router::new().route("/metrics", get(metrics)).with_state(app);
    accept::serve(listener, router, std::future::pending(), Places::new(), Duration::ZERO).await;
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], app.metrics_text()).into_response()
}

/// The metrics of a service that has taken no delivery yet.
pub fn fresh_metrics() -> Metrics {
    let outcomes = Reason::ALL.map(|reason| (reason.outcome().as_str(), reason.as_str()));
    Metrics::new(&outcomes, Reason::statuses(), &CONFIGS)
}

/// Looks at the mounted files again and again, and says what was not logged; reading many templates would hold up a thread that serves.
async fn watch_files(app: Arc<App>) {
    loop {
        tokio::time::sleep(reload::INTERVAL).await;
        app.flood.report();
        let app = Arc::clone(&app);
        let looking = tokio::task::spawn_blocking(move || {
            app.secrets.refresh();
            app.templates.refresh();
        });
        if let Err(error) = looking.await {
            tracing::error!(reason = %error, "a defect ended a look at the mounted files; please report it");
        }
    }
}

async fn root(state: State<Arc<App>>, request: axum::extract::Request) -> Response {
    match *request.method() {
        Method::POST => handler::deliver(state, request).await,
        Method::OPTIONS => handshake(request.headers()),
        _ => Answer::told(Reason::Method, "deliveries are sent with POST").respond(None, false),
    }
}

/// The CloudEvents webhook handshake ("HTTP 1.1 Web Hooks for Event Delivery", section 4): any origin may send, at any
/// rate, because each delivery has to prove itself.
fn handshake(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::OK.into_response();
    let answers = response.headers_mut();
    answers.insert(ALLOW, answer::ALLOWED);
    if let Some(origin) = headers.get("webhook-request-origin") {
        answers.insert("webhook-allowed-origin", origin.clone());
        answers.insert("webhook-allowed-rate", http::HeaderValue::from_static("*"));
    }
    response
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    if app.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining").into_response();
    }
    "ok".into_response()
}

/// A defect of ours: logged as one, and the sender may try again.
fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(reason = message, "a defect ended the work on a delivery; please report it");
    Answer::unavailable(Reason::Defect, "internal error", "a defect", Vec::new()).respond(None, false)
}
