//! The one log line of a delivery.

use std::time::SystemTime;

use http::HeaderMap;
use tokio::time::Instant;

use super::App;
use super::answer::{Answer, Outcome, RunRef};
use crate::delivery::{Delivery, DeliveryId, Envelope, EventKind, claimed_id, claimed_kind};
use crate::event::Event;
use crate::telemetry::spans::Span;
use crate::trace::TraceContext;

/// What is known about a delivery so far.
pub(super) struct Record {
    first_byte: Instant,
    bytes: Option<usize>,
    envelope: Option<Envelope>,
    proven: bool,
    trace: Option<TraceContext>,
    span: Span,
    kind: Option<EventKind>,
    delivery: Option<DeliveryId>,
    action: Option<String>,
    repository: Option<String>,
    pull_request: Option<u64>,
}

impl Record {
    /// Begins with what the headers claim, so that even a refused delivery is found by its id.
    pub(super) fn new(first_byte: Instant, headers: &HeaderMap) -> Self {
        Self {
            first_byte,
            bytes: None,
            envelope: None,
            proven: false,
            trace: TraceContext::of_headers(headers),
            span: Span::default(),
            kind: claimed_kind(headers),
            delivery: claimed_id(headers),
            action: None,
            repository: None,
            pull_request: None,
        }
    }

    pub(super) fn bytes(&mut self, bytes: usize) {
        self.bytes = Some(bytes);
    }

    pub(super) fn envelope(&mut self, envelope: Envelope) {
        self.envelope = Some(envelope);
    }

    /// Its sender is who it claims to be.
    pub(super) fn proven(&mut self) {
        self.proven = true;
    }

    /// What a structured event says about itself is known only now.
    pub(super) fn decoded(&mut self, app: &App, delivery: &Delivery) {
        if self.kind.as_ref() != Some(delivery.kind()) {
            self.kind = Some(delivery.kind().clone());
        }
        if self.delivery.as_ref() != Some(delivery.id()) {
            self.delivery = Some(delivery.id().clone());
        }
        self.trace = delivery.trace().cloned();
        self.begin_span(app);
    }

    /// Begins the delivery's span at its first byte, in its sender's trace.
    fn begin_span(&mut self, app: &App) {
        if app.tracer.is_on() {
            let start = SystemTime::now() - self.first_byte.elapsed();
            self.span = app.tracer.server("POST /", self.trace.as_ref(), start);
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

    pub(super) fn delivery(&self) -> Option<&DeliveryId> {
        self.delivery.as_ref()
    }

    /// Counts the delivery and writes the line. An error is what an operator must mend; strangers and broken senders are
    /// warnings. Anybody can be turned away as often as they like, by a wrong signature, half a body or a slow one: lines
    /// about who is not proven are limited.
    pub(super) fn write(&mut self, app: &App, answer: &Answer) {
        if !self.span.is_on() {
            // It ended before anybody knew what it was.
            self.begin_span(app);
        }
        let (metrics, trace) = (&app.metrics, self.trace.as_ref());
        self.end_span(answer);
        let took = self.first_byte.elapsed();
        let event = self.kind.as_ref().map(EventKind::as_str);
        metrics.delivery(event, answer.outcome.as_str(), answer.code.as_str());
        metrics.request(answer.status.as_u16(), took);
        if !self.proven && !app.flood.admits(std::time::Instant::now()) {
            return;
        }
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    outcome = answer.outcome.as_str(),
                    status = answer.status.as_u16(),
                    reason = answer.explanation(),
                    event,
                    action = self.action.as_deref(),
                    repository = self.repository.as_deref(),
                    pull_request = self.pull_request,
                    delivery = self.delivery.as_ref().map(DeliveryId::as_str),
                    runs = runs(&answer.runs),
                    via = self.envelope.map(Envelope::as_str),
                    trace_id = trace.map(TraceContext::trace_id),
                    duration_ms = took.as_secs_f64() * 1e3,
                    bytes = self.bytes,
                    "delivery"
                )
            };
        }
        match answer.outcome {
            Outcome::Created | Outcome::Duplicate | Outcome::Ignored | Outcome::Pong => line!(info),
            Outcome::Rejected | Outcome::Refused | Outcome::Malformed => line!(warn),
            Outcome::Invalid | Outcome::Unavailable => line!(error),
        }
    }
}

impl Record {
    /// Writes into the span what its readers look for; OpenTelemetry's conventions for HTTP servers, and our own words.
    fn end_span(&self, answer: &Answer) {
        if !self.span.is_on() {
            return;
        }
        self.span.set("http.request.method", "POST");
        self.span.set("http.route", "/");
        self.span.set("url.path", "/");
        self.span.set("url.scheme", "http");
        self.span.set("http.response.status_code", i64::from(answer.status.as_u16()));
        self.span.set("github_trigger.outcome", answer.outcome.as_str());
        self.span.set("github_trigger.reason", answer.code.as_str());
        let texts = [
            ("github_trigger.event", self.kind.as_ref().map(EventKind::as_str)),
            ("github_trigger.delivery", self.delivery.as_ref().map(DeliveryId::as_str)),
            ("github_trigger.repository", self.repository.as_deref()),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                self.span.set(key, text.to_owned());
            }
        }
        if answer.status.is_server_error() {
            self.span.fail(answer.explanation().unwrap_or_default());
        }
    }
}

/// `namespace/name`, comma separated; nothing if there is none.
fn runs(runs: &[RunRef]) -> Option<String> {
    let names: Vec<String> = runs.iter().map(|run| format!("{}/{}", run.namespace, run.name)).collect();
    (!names.is_empty()).then(|| names.join(","))
}
