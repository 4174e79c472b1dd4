//! Functions for the fuzz targets: each runs one step of a delivery on plain data.

use std::thread;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use crate::delivery::{
    Credential, Delivery, DeliveryId, Encoding, Envelope, EventKind, NetworkTrust, SignaturePolicy, TeamKey,
    Unverified, precheck,
};
use crate::github::Event;
use crate::mounted::File;
use crate::template::{Decision, Expression, Severity, Stamp, parse};

/// Stack size for expressions, in bytes; the same as for the template check.
const STACK: usize = 32 << 20;

/// Verifies a webhook. Returns whether its signature is accepted, and whether the check of its headers alone passes.
pub fn signature(headers: &HeaderMap, body: &[u8], secret: &[u8], require_sha256: bool) -> (bool, bool) {
    let policy = if require_sha256 { SignaturePolicy::RequireSha256 } else { SignaturePolicy::AcceptSha1 };
    let envelope = Envelope::Webhook(Encoding::Json);
    let unverified = Unverified::new(headers.clone(), envelope, Bytes::copy_from_slice(body));
    (unverified.verify([&TeamKey::of_top(secret)], policy).is_ok(), precheck(headers, policy).is_ok())
}

/// Returns the payload of a signed webhook with a form as its body. `None` if the signature or the form is invalid.
pub fn form_payload(mut headers: HeaderMap, body: &[u8], secret: &[u8]) -> Option<Bytes> {
    headers.insert("x-github-event", http::HeaderValue::from_static("pull_request"));
    headers.insert("x-github-delivery", http::HeaderValue::from_static("d1"));
    let envelope = Envelope::Webhook(Encoding::Form);
    let unverified = Unverified::new(headers, envelope, Bytes::copy_from_slice(body));
    let (verified, _) = unverified.verify([&TeamKey::of_top(secret)], SignaturePolicy::RequireSha256).ok()?;
    verified.decode().ok().map(|delivery| delivery.payload)
}

/// A decoded CloudEvent.
#[derive(Debug)]
pub struct CloudEvent {
    /// `true` in structured mode, `false` in binary mode.
    pub structured: bool,
    /// Delivery id (`ce-id`).
    pub id: String,
    /// The event's data: GitHub's JSON.
    pub payload: Bytes,
}

/// Decodes a request with `--cloudevents-auth=none`, and parses its event. `None` if it is not a GitHub CloudEvent.
///
/// # Panics
/// If a webhook is accepted without a signature.
#[expect(clippy::panic, reason = "a finding of the fuzzer")]
pub fn cloud_event(headers: &HeaderMap, body: &[u8]) -> Option<CloudEvent> {
    let envelope = Envelope::from_headers(headers).ok()?;
    let unverified = Unverified::new(headers.clone(), envelope, Bytes::copy_from_slice(body));
    let accepted = unverified.accept(&Credential::Network(NetworkTrust::from_operator()));
    if accepted.is_ok() != envelope.is_cloud_event() {
        panic!("a webhook needs its signature in every mode");
    }
    let delivery = accepted.ok()?.decode().ok()?;
    let (id, payload) = (delivery.id.as_str().to_owned(), delivery.payload.clone());
    let _ = Event::parse(delivery);
    Some(CloudEvent { structured: envelope == Envelope::Structured, id, payload })
}

/// The identity of a merge.
#[derive(Debug)]
pub struct Merge {
    /// `owner/name`.
    pub repository: String,
    /// Number of the pull request.
    pub number: u64,
    /// The merge commit, 40 or 64 hex digits.
    pub commit: String,
}

/// Parses an event. Returns `None` if it is not a valid event, and `Some(None)` if it is not a merge.
pub fn event(kind: &str, payload: &[u8]) -> Option<Option<Merge>> {
    let event = parse_event(kind, payload)?;
    let _ = (event.time(), event.commit(), event.is_deletion(), event.merge().is_ok());
    Some(event.merge.map(|merge| Merge {
        repository: merge.repository,
        number: merge.number,
        commit: merge.commit.to_string(),
    }))
}

fn parse_event(kind: &str, payload: &[u8]) -> Option<Event> {
    let (id, kind) = (DeliveryId::parse("d1")?, EventKind::parse(kind)?);
    let delivery = Delivery::from_local_file(id, kind, HeaderMap::new(), Bytes::copy_from_slice(payload));
    Event::parse(delivery).ok()
}

/// Compiles an expression and evaluates it on a pull request's payload, as a value and as a condition. Returns the
/// value or the error's message, and `None` if the expression does not compile.
pub fn evaluate(source: &str, payload: &[u8]) -> Option<Result<String, String>> {
    let event = parse_event("pull_request", payload)?;
    on_a_large_stack(|| {
        let expression = Expression::compile(source).ok()?;
        let _ = expression.holds(&event);
        Some(expression.evaluate(&event).map(|value| format!("{value:?}")).map_err(|error| error.to_string()))
    })
}

/// A finding in a template file.
#[derive(Debug)]
pub struct Finding {
    /// Line and column, from 1.
    pub position: (usize, usize),
    /// `true` for an error, `false` for a warning.
    pub is_error: bool,
    /// Error and correction, in one sentence.
    pub message: String,
}

/// A rendered run.
#[derive(Debug)]
pub struct Run {
    /// `metadata.name`.
    pub name: String,
    /// The PipelineRun as JSON.
    pub object: Value,
    /// The PipelineRun as YAML, as `render` prints it.
    pub yaml: String,
}

/// Checks a template file, and renders it for the event in `payload` if it has no errors.
pub fn render(template: &[u8], payload: &[u8]) -> (Vec<Finding>, Vec<Result<Run, String>>) {
    let (templates, findings) = parse(vec![File { path: "fuzz.yaml".into(), content: template.to_vec() }]);
    let findings: Vec<Finding> = findings
        .into_iter()
        .map(|finding| Finding {
            position: (finding.at.line, finding.at.column),
            is_error: finding.severity == Severity::Error,
            message: finding.message,
        })
        .collect();
    if findings.iter().any(|finding| finding.is_error) {
        return (findings, Vec::new());
    }
    let Some(event) = parse_event("pull_request", payload) else { return (findings, Vec::new()) };
    let decision = on_a_large_stack(|| templates.decide(&event, Stamp { namespace: "builds" }));
    let runs = match decision {
        Decision::Ignore(_) => Vec::new(),
        Decision::Render(runs) => runs,
    };
    let run = |run: crate::template::PipelineRun| {
        let yaml = run.to_yaml().map_err(|error| error.to_string())?;
        Ok(Run { name: run.name, object: run.object, yaml })
    };
    let runs = runs.into_iter().map(|outcome| outcome.map_err(|error| error.to_string()).and_then(run));
    (findings, runs.collect())
}

#[expect(clippy::expect_used, reason = "without a thread there is nothing to fuzz")]
fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work).expect("a thread");
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
