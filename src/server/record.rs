//! The one log line of a delivery.

use http::HeaderMap;
use tokio::time::Instant;

use super::answer::{Answer, Outcome, RunRef};
use crate::delivery::{Delivery, DeliveryId, Envelope, EventKind, claimed_id, claimed_kind};
use crate::event::Event;

/// What is known about a delivery so far.
pub(super) struct Record {
    first_byte: Instant,
    bytes: Option<usize>,
    envelope: Option<Envelope>,
    trace_id: Option<String>,
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
            trace_id: None,
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

    /// What a structured event says about itself is known only now.
    pub(super) fn decoded(&mut self, delivery: &Delivery) {
        self.kind = Some(delivery.kind().clone());
        self.delivery = Some(delivery.id().clone());
        self.trace_id = delivery.trace().map(|trace| trace.trace_id().to_owned());
    }

    pub(super) fn event(&mut self, event: &Event) {
        self.action.clone_from(&event.action);
        self.repository = event.repository_name().map(str::to_owned);
        self.pull_request = event.subject.number;
    }

    pub(super) fn delivery(&self) -> Option<&DeliveryId> {
        self.delivery.as_ref()
    }

    /// Writes the line. An error is what an operator must mend; strangers and broken senders are warnings.
    pub(super) fn write(&self, answer: &Answer) {
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    outcome = answer.outcome.as_str(),
                    status = answer.status.as_u16(),
                    reason = answer.explanation(),
                    event = self.kind.as_ref().map(EventKind::as_str),
                    action = self.action.as_deref(),
                    repository = self.repository.as_deref(),
                    pull_request = self.pull_request,
                    delivery = self.delivery.as_ref().map(DeliveryId::as_str),
                    runs = runs(&answer.runs),
                    via = self.envelope.map(Envelope::as_str),
                    trace_id = self.trace_id.as_deref(),
                    duration_ms = self.first_byte.elapsed().as_secs_f64() * 1e3,
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

/// `namespace/name`, comma separated; nothing if there is none.
fn runs(runs: &[RunRef]) -> Option<String> {
    let names: Vec<String> = runs.iter().map(|run| format!("{}/{}", run.namespace, run.name)).collect();
    (!names.is_empty()).then(|| names.join(","))
}
