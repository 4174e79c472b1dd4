//! HTTP: routes, limits, answers, probes and connections.

mod access_log;
mod answer;
mod app;
mod authentication;
mod blocking;
mod body;
mod budget;
mod config;
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
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

use answer::Answer;
pub(crate) use app::App;
pub(crate) use config::{CloudEventsAuth, Config, Limits};
use listener::ConnectionLimit;
use outcome::Reason;
pub(crate) use response::ReplyEvents;
pub(crate) use sink::{Sink, print_run};

use crate::delivery::Envelope;
use crate::mounted::reload;
use crate::telemetry::metrics::CONTENT_TYPE as PROMETHEUS_TEXT;

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
