//! HTTP: routes, limits, answers, probes and connections.

mod access_log;
mod answer;
mod authentication;
mod body;
mod budget;
mod creation;
mod listener;
mod log_limit;
mod metrics;
mod outcome;
mod response;
mod secret_search;
mod sink;
mod teams;
mod timeouts;
mod webhook;

use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use answer::Answer;
pub(crate) use authentication::CloudEventsAuth;
use budget::Budget;
use listener::ConnectionLimit;
use log_limit::LogLimit;
use metrics::HttpMetrics;
use outcome::Reason;
pub(crate) use response::ReplyEvents;
use secret_search::SecretSearch;
pub(crate) use sink::{Sink, print_run};
use teams::TeamReports;

use crate::delivery::{Envelope, SignaturePolicy};
use crate::mounted::reload::{self, Reloading};
use crate::mounted::secrets::SecretSources;
use crate::telemetry::metrics::{CONTENT_TYPE as PROMETHEUS_TEXT, Registry};
use crate::telemetry::spans::Tracer;
use crate::template::TemplateSource;

/// CEL evaluations at the same time. One that does not end keeps its place, and the others go on.
const CONCURRENT_EVALUATIONS: usize = 4;

/// Limits of one request, and of all together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of one body.
    pub(crate) max_body: u64,
    /// Bytes of all bodies in memory.
    pub(crate) max_buffered: u64,
    /// Time from a request's first byte to its answer.
    pub(crate) deadline: Duration,
    /// Age of a merge from which on it is ignored; zero takes merges of any age.
    pub(crate) max_merge_age: Duration,
}

/// What the service is started with.
pub(crate) struct Config {
    /// The webhook secrets.
    pub(crate) secrets: Reloading<SecretSources>,
    /// The templates.
    pub(crate) templates: Reloading<TemplateSource>,
    /// Accepted signature algorithms.
    pub(crate) signatures: SignaturePolicy,
    /// The proof that CloudEvents need.
    pub(crate) cloud_events: CloudEventsAuth,
    /// Replies to CloudEvents with CloudEvents, if set.
    pub(crate) reply_events: Option<ReplyEvents>,
    /// The tracer of deliveries.
    pub(crate) tracer: Tracer,
    /// The destination of runs.
    pub(crate) sink: Sink,
    /// Namespace of runs whose template names none.
    pub(crate) namespace: String,
    /// Limits of requests.
    pub(crate) limits: Limits,
}

/// The running service.
pub(crate) struct App {
    config: Config,
    registry: Registry,
    metrics: HttpMetrics,
    teams: TeamReports,
    search: SecretSearch,
    budget: Arc<Budget>,
    evaluations: Arc<Semaphore>,
    log_limit: LogLimit,
    draining: AtomicBool,
}

impl App {
    /// A service that has not taken a delivery yet. Its metrics go into `registry`.
    pub(crate) fn new(config: Config, registry: Registry) -> Arc<Self> {
        Arc::new(Self {
            metrics: HttpMetrics::register(&registry),
            teams: TeamReports::register(&registry),
            search: SecretSearch::default(),
            registry,
            budget: Budget::new(config.limits.max_buffered),
            evaluations: Arc::new(Semaphore::new(CONCURRENT_EVALUATIONS)),
            log_limit: LogLimit::default(),
            draining: AtomicBool::new(false),
            config,
        })
    }

    /// Reads the keys of tokens before the first event needs them.
    pub(crate) async fn prefetch_keys(&self) {
        if let CloudEventsAuth::Oidc { issuer, .. } = &self.config.cloud_events {
            issuer.prefetch().await;
        }
    }

    /// Sets the metrics that are not counted where they change.
    pub(crate) fn update_metrics(&self) {
        self.config.secrets.update_metrics();
        self.config.templates.update_metrics();
        self.teams.update_metrics(&self.config);
        self.metrics.set_buffered(self.budget.used());
    }

    /// Whether secrets should be mounted, and none is usable.
    fn lacks_secret(&self) -> bool {
        let secrets = &self.config.secrets;
        secrets.is_mounted() && secrets.current().keyring.is_empty()
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// Serves until `stop` is done, then finishes the requests in flight.
pub(crate) async fn serve(listener: TcpListener, app: Arc<App>, stop: impl Future<Output = ()>) {
    let polling = tokio::spawn(poll_files(Arc::clone(&app)));
    // An answer is decided within the deadline; one second more to send it.
    let grace = app.config.limits.deadline + Duration::from_secs(1);
    let stop = async {
        stop.await;
        app.draining.store(true, Ordering::Relaxed);
    };
    listener::serve(listener, router(Arc::clone(&app)), stop, ConnectionLimit::new(), grace).await;
    polling.abort();
    app.log_limit.report();
}

/// Serves the metrics on a listener of their own, because the one of deliveries is public.
pub(crate) async fn serve_metrics(listener: TcpListener, app: Arc<App>) {
    let router = Router::new().route("/metrics", get(prometheus_text)).with_state(app);
    listener::serve(listener, router, std::future::pending(), ConnectionLimit::new(), Duration::ZERO).await;
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", any(root))
        .route("/healthz", get(|| async { "ok" }).fallback(probe_method))
        .route("/readyz", get(readyz).fallback(probe_method))
        .fallback(other_path)
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

async fn prometheus_text(State(app): State<Arc<App>>) -> Response {
    app.update_metrics();
    ([(CONTENT_TYPE, PROMETHEUS_TEXT)], app.registry.to_text()).into_response()
}

/// Reads changed files again, and reports log lines that were left out. On a blocking thread, because many templates take
/// their time.
async fn poll_files(app: Arc<App>) {
    app.teams.log(&app.config, Instant::now());
    loop {
        tokio::time::sleep(reload::POLL_INTERVAL).await;
        app.log_limit.report();
        let app = Arc::clone(&app);
        let polling = tokio::task::spawn_blocking(move || {
            app.config.secrets.refresh();
            app.config.templates.refresh();
            app.teams.log(&app.config, Instant::now());
        });
        // A panic is logged by its hook, and the next poll tries again.
        let _ = polling.await;
    }
}

async fn root(state: State<Arc<App>>, request: Request) -> Response {
    match *request.method() {
        Method::POST => webhook::deliver(state, request).await,
        Method::OPTIONS => handshake(request.headers()),
        _ => webhook::refuse(&state.0, request, Reason::Method),
    }
}

/// Any path but those of this service. Knative would send an event again that is answered 404, so that events get 400.
async fn other_path(State(app): State<Arc<App>>, request: Request) -> Response {
    let is_event = Envelope::from_headers(request.headers()).is_ok_and(Envelope::is_cloud_event);
    webhook::refuse(&app, request, if is_event { Reason::EventPath } else { Reason::Path })
}

async fn probe_method(State(app): State<Arc<App>>, request: Request) -> Response {
    let mut response = webhook::refuse(&app, request, Reason::Method);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

/// The CloudEvents webhook handshake ("HTTP 1.1 Web Hooks for Event Delivery", section 4). Any origin may send at any
/// rate, because each delivery is authenticated.
fn handshake(headers: &HeaderMap) -> Response {
    let mut response = StatusCode::OK.into_response();
    let answers = response.headers_mut();
    answers.insert(ALLOW, answer::ALLOWED_METHODS);
    if let Some(origin) = headers.get("webhook-request-origin") {
        answers.insert("webhook-allowed-origin", origin.clone());
        answers.insert("webhook-allowed-rate", HeaderValue::from_static("*"));
    }
    response
}

async fn readyz(State(app): State<Arc<App>>) -> Response {
    if app.is_draining() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining").into_response();
    }
    if app.lacks_secret() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no usable webhook secret is mounted").into_response();
    }
    if !teams::any_is_ready(&app.config) {
        return (StatusCode::SERVICE_UNAVAILABLE, "no team has both valid templates and a usable webhook secret")
            .into_response();
    }
    "ok".into_response()
}

/// A panic in a handler. The panic hook has logged it, and the sender may try again.
fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    Answer::new(Reason::Defect).to_response(None, false)
}
