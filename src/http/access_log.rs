//! The one log line of a delivery, its metrics and its span.

use std::time::SystemTime;

use http::{HeaderMap, Method};
use tokio::time::Instant;
use tracing::Level;

use super::answer::{Answer, RunRef, cut};
use super::app::App;
use crate::delivery::{
    ClaimedHook, Delivery, DeliveryId, Envelope, EventKind, claimed_hook, claimed_id, claimed_kind, trace_of,
};
use crate::github::Event;
use crate::team::Team;
use crate::telemetry::spans::Span;
use crate::telemetry::trace::TraceContext;

/// Longest part of a method or path that a line quotes, in bytes.
const MAX_QUOTED: usize = 100;
/// Longest part of a payload's field that a line quotes, in bytes.
const MAX_FIELD: usize = 1 << 10;

/// What is known about a delivery so far.
pub(super) struct Record {
    first_byte: Instant,
    bytes: Option<usize>,
    envelope: Option<Envelope>,
    /// The team of an authenticated sender.
    team: Option<Team>,
    subject: Option<String>,
    trace: Option<TraceContext>,
    span: Span,
    kind: Option<EventKind>,
    delivery: Option<DeliveryId>,
    action: Option<String>,
    repository: Option<String>,
    pull_request: Option<u64>,
    hook: Option<ClaimedHook>,
    /// Method and path of a request that is no delivery.
    request: Option<(String, String)>,
}

impl Record {
    /// Begins with the claims of the headers, so that a refused delivery is found by its id, too.
    pub(super) fn new(first_byte: Instant, headers: &HeaderMap) -> Self {
        Self {
            first_byte,
            bytes: None,
            envelope: None,
            team: None,
            subject: None,
            trace: trace_of(headers),
            span: Span::default(),
            kind: claimed_kind(headers),
            delivery: claimed_id(headers),
            action: None,
            repository: None,
            pull_request: None,
            hook: claimed_hook(headers),
            request: None,
        }
    }

    /// Takes method and path of a request that is no delivery.
    pub(super) fn request(&mut self, method: &Method, path: &str) {
        let quoted = |text: &str| cut(text, MAX_QUOTED).to_owned();
        self.request = Some((quoted(method.as_str()), quoted(path)));
    }

    pub(super) fn bytes(&mut self, bytes: usize) {
        self.bytes = Some(bytes);
    }

    pub(super) fn envelope(&mut self, envelope: Envelope) {
        self.envelope = Some(envelope);
    }

    /// Takes the team that the sender is proven to send for.
    pub(super) fn authenticated(&mut self, team: &Team) {
        self.team = Some(team.clone());
    }

    /// Takes the subject of the sender's token.
    pub(super) fn subject(&mut self, subject: &str) {
        self.subject = Some(subject.to_owned());
    }

    /// Takes id and kind from the delivery: those of a structured event are not in its headers.
    pub(super) fn decoded(&mut self, app: &App, delivery: &Delivery) {
        if self.kind.as_ref() != Some(&delivery.kind) {
            self.kind = Some(delivery.kind.clone());
        }
        if self.delivery.as_ref() != Some(&delivery.id) {
            self.delivery = Some(delivery.id.clone());
        }
        self.trace.clone_from(&delivery.trace);
        self.begin_span(app);
    }

    /// Begins the delivery's span at its first byte, in the sender's trace.
    fn begin_span(&mut self, app: &App) {
        let tracer = &app.config.tracer;
        if tracer.is_on() {
            let start = SystemTime::now() - self.first_byte.elapsed();
            self.span = tracer.server("POST /", self.trace.as_ref(), start);
            self.trace = self.span.context();
        }
    }

    /// The delivery's span.
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    pub(super) fn event(&mut self, event: &Event) {
        self.action.clone_from(&event.action);
        self.repository = event.repository_name().map(str::to_owned);
        self.pull_request = event.subject.number;
    }

    /// The delivery's id, if it has a well-formed one.
    pub(super) fn delivery(&self) -> Option<&DeliveryId> {
        self.delivery.as_ref()
    }

    /// Counts the delivery, ends its span and writes its log line. Lines about unauthenticated requests are limited,
    /// because anyone can send them without end.
    pub(super) fn write(&mut self, app: &App, answer: &Answer) {
        if !self.span.is_on() && self.request.is_none() {
            // The answer came before the event was known.
            self.begin_span(app);
        }
        self.end_span(answer);
        let took = self.first_byte.elapsed();
        app.metrics.answered(self.kind.as_ref(), answer.reason(), took);
        let reason = answer.reason();
        if let Some(team) = &self.team {
            app.teams.answered(team, reason.outcome());
        } else {
            let source = (&self.hook, self.kind.as_ref().map(EventKind::as_str), reason.code(), answer.explanation());
            if !app.log_limit.allows(source, std::time::Instant::now()) {
                return;
            }
        }
        // Claims of a sender who is not known help to find its settings.
        let hook = self.hook.as_ref().filter(|_| self.team.is_none());
        let outcome = reason.outcome().as_str();
        let field = |text| cut(text, MAX_FIELD);
        macro_rules! line {
            ($level:ident, $message:expr) => {
                tracing::$level!(
                    message = $message,
                    outcome,
                    status = reason.status().as_u16(),
                    reason = reason.code(),
                    event = self.kind.as_ref().map(EventKind::as_str).map(field),
                    action = self.action.as_deref().map(field),
                    repository = self.repository.as_deref().map(field),
                    pull_request = self.pull_request,
                    delivery = self.delivery.as_ref().map(DeliveryId::as_str),
                    hook = hook.map(|hook| hook.id.as_str()),
                    hook_target = hook.and_then(|hook| hook.target.as_deref()),
                    method = self.request.as_ref().map(|(method, _)| method.as_str()),
                    path = self.request.as_ref().map(|(_, path)| path.as_str()),
                    runs = run_names(answer.runs()),
                    via = self.envelope.map(Envelope::as_str),
                    team = self.team.as_ref().and_then(Team::name),
                    subject = self.subject.as_deref(),
                    trace_id = self.trace.as_ref().map(|trace| tracing::field::display(trace.trace_id())),
                    duration_ms = took.as_secs_f64() * 1e3,
                    bytes = self.bytes,
                )
            };
        }
        let sentence = answer.explanation().map(|explanation| format!("delivery {outcome}: {explanation}"));
        let message = sentence.as_deref().unwrap_or("delivery");
        match reason.level() {
            Level::ERROR => line!(error, message),
            Level::WARN => line!(warn, message),
            _ => line!(info, message),
        }
    }

    /// Sets the span's attributes: OpenTelemetry's conventions for HTTP servers, and our own.
    fn end_span(&self, answer: &Answer) {
        if !self.span.is_on() {
            return;
        }
        let reason = answer.reason();
        self.span.set("http.request.method", "POST");
        self.span.set("http.route", "/");
        self.span.set("url.path", "/");
        self.span.set("url.scheme", "http");
        self.span.set("http.response.status_code", i64::from(reason.status().as_u16()));
        self.span.set("github_trigger.outcome", reason.outcome().as_str());
        self.span.set("github_trigger.reason", reason.code());
        let texts = [
            ("github_trigger.event", self.kind.as_ref().map(EventKind::as_str)),
            ("github_trigger.delivery", self.delivery.as_ref().map(DeliveryId::as_str)),
            ("github_trigger.repository", self.repository.as_deref()),
            ("github_trigger.team", self.team.as_ref().and_then(Team::name)),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                self.span.set(key, text.to_owned());
            }
        }
        if reason.status().is_server_error() {
            self.span.fail(answer.explanation().unwrap_or_default());
        }
    }
}

/// `namespace/name`, separated by commas; `None` without runs.
fn run_names(runs: &[RunRef]) -> Option<String> {
    let names: Vec<String> = runs.iter().map(|run| format!("{}/{}", run.namespace, run.name)).collect();
    (!names.is_empty()).then(|| names.join(","))
}
