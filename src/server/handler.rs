//! One delivery, from its bytes to its answer: every step is a plain function, only intake and create do I/O.

use std::mem;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use http::header::EXPECT;
use http::request::Parts;
use tokio::time::{Instant, timeout_at};

use super::App;
use super::accept::FirstByte;
use super::answer::{Answer, RunRef};
use super::intake::{self, IntakeError};
use super::proof;
use super::reason::Reason;
use super::record::Record;
use super::reply::Wanted;
use crate::cluster::{CreateError, Creation};
use crate::delivery::{DecodeError, Envelope, Unsupported, Unverified};
use crate::event::Event;
use crate::telemetry::spans::Span;
use crate::template::{Decision, PipelineRun, RenderError, Stamp, TemplateSet};
use crate::trace::TraceContext;

/// A body from this size on is read where it holds nobody up: verifying and parsing it takes more than a millisecond.
const LARGE: usize = 1 << 20;
/// Runs of one delivery that are created at the same time.
const CONCURRENT_CREATES: usize = 8;

/// `POST /`.
pub(super) async fn deliver(State(app): State<Arc<App>>, request: Request) -> Response {
    let (mut head, mut body) = request.into_parts();
    let first_byte = head.extensions.get().map_or_else(Instant::now, |FirstByte(at)| *at);
    let mut record = Record::new(first_byte, &head.headers);
    let _in_flight = app.metrics.begin_request();
    let waits_to_send = head.headers.contains_key(EXPECT);
    let envelope = Envelope::of(&head.headers);
    let wanted = Wanted::of(envelope.ok(), &head.headers, app.reply_events.as_ref());
    let answer = match receive(&app, &mut head, &mut body, envelope, first_byte, &mut record).await {
        Ok(answer) | Err(answer) => answer,
    };
    intake::discard(body, waits_to_send);
    record.write(&app, &answer);
    wanted.respond(&answer, record.delivery(), app.sink.is_dry_run())
}

/// Everything that leaves early leaves as an `Err`.
async fn receive(
    app: &Arc<App>,
    head: &mut Parts,
    body: &mut Body,
    envelope: Result<Envelope, Unsupported>,
    first_byte: Instant,
    record: &mut Record,
) -> Result<Answer, Answer> {
    if app.is_draining() {
        return Err(Answer::unavailable(Reason::Stopping, "the service is stopping", "stopping", Vec::new()));
    }
    let until = first_byte + app.limits.deadline;
    let envelope = envelope.map_err(|error| Answer::told(Reason::MediaType, error.to_string()))?;
    record.envelope(envelope);
    let declared = intake::declared_length(&head.headers);
    if declared.is_some_and(|length| length > app.limits.max_body) {
        return Err(intake_answer(IntakeError::TooLarge(app.limits.max_body)));
    }
    let credential = proof::before_body(app, &head.headers, envelope, until).await?;
    let taken = intake::take(body, declared, app.limits.max_body, &app.budget, until).await.map_err(intake_answer)?;
    let large = taken.bytes.len() >= LARGE;
    record.bytes(taken.bytes.len());
    let begun = app.tracer.is_on().then(SystemTime::now);
    let unverified = Unverified::new(mem::take(&mut head.headers), envelope, taken.bytes);
    let keys = Arc::clone(app);
    let verified = read(large, move || proof::verify(&keys, unverified, credential)).await??;
    record.proven();
    let delivery = read(large, move || verified.decode()).await?.map_err(|error| undecodable(&error))?;
    record.decoded(app, &delivery);
    if let Some(begun) = begun {
        record.span().past("verify", begun, SystemTime::now());
    }
    let event = read(large, move || Event::parse(delivery)).await?;
    let event = event.map_err(|error| Answer::told(Reason::Payload, error.to_string()))?;
    let answer = act(app, event, until, record).await;
    drop(taken.share);
    answer
}

/// Does a step of reading here, or where it takes its time.
async fn read<T: Send + 'static>(large: bool, step: impl FnOnce() -> T + Send + 'static) -> Result<T, Answer> {
    if !large {
        return Ok(step());
    }
    tokio::task::spawn_blocking(step)
        .await
        .map_err(|error| defect(format!("a defect ended the reading of a body: {error}")))
}

fn defect(detail: String) -> Answer {
    Answer::unavailable(Reason::Defect, "internal error", detail, Vec::new())
}

/// What a proven delivery leads to.
async fn act(app: &App, mut event: Event, until: Instant, record: &mut Record) -> Result<Answer, Answer> {
    record.event(&event);
    if event.kind.is_ping() {
        return Ok(Answer::pong());
    }
    // What follows from it belongs to our part of the trace, if there is one.
    event.trace = record.span().context().or(event.trace);
    let rendering = record.span().child("render");
    let templates = app.templates.current();
    let candidates = templates.candidates(&event);
    if let Some(reason) = candidates.none() {
        let code = if event.merge.is_some() { Reason::NoTemplate } else { Reason::NotAMerge };
        return Ok(Answer::told(code, reason));
    }
    let trace = event.trace.clone();
    let decision = if candidates.need_cel() {
        drop(candidates);
        evaluate(app, templates, event, until).await?
    } else {
        candidates.decide(&event, Stamp { namespace: &app.namespace })
    };
    if decision.runs.is_empty() {
        return Ok(Answer::told(Reason::NoTemplate, decision.reason));
    }
    drop(rendering);
    Ok(create(app, decision.runs, record.span(), trace.as_ref(), until).await)
}

/// Lets CEL run where it holds nobody up: the `cel` crate cannot be told to stop.
async fn evaluate(app: &App, templates: Arc<TemplateSet>, event: Event, until: Instant) -> Result<Decision, Answer> {
    let late = |_| {
        Answer::unavailable(
            Reason::Deadline,
            "deadline",
            "an expression took too long; lint and simplify it",
            Vec::new(),
        )
    };
    // Closed never: the semaphore lives as long as the service.
    let Ok(permit) = timeout_at(until, Arc::clone(&app.evaluations).acquire_owned()).await.map_err(late)? else {
        return Err(Answer::unavailable(Reason::Stopping, "the service is stopping", "stopping", Vec::new()));
    };
    let namespace = app.namespace.clone();
    let evaluation = tokio::task::spawn_blocking(move || {
        // Held until the evaluation ends, not until somebody stops waiting for it.
        let _permit = permit;
        templates.decide(&event, Stamp { namespace: &namespace })
    });
    let evaluated = timeout_at(until, evaluation).await.map_err(late)?;
    evaluated.map_err(|error| defect(format!("a defect ended an expression: {error}")))
}

/// Creates what was rendered; what one template cannot do does not keep the others from it.
async fn create(
    app: &App,
    rendered: Vec<Result<PipelineRun, RenderError>>,
    span: &Span,
    trace: Option<&TraceContext>,
    until: Instant,
) -> Answer {
    let mut tally = Tally::default();
    let outcomes: Vec<_> = stream::iter(rendered)
        .map(|rendered| async {
            match rendered {
                Ok(run) => {
                    let call = span.call("create");
                    let traced = call.context();
                    let created = app.sink.create(&run, traced.as_ref().or(trace), until).await;
                    describe(&call, &run, &created);
                    Ok((RunRef { namespace: run.namespace, name: run.name }, created))
                }
                Err(error) => Err(error),
            }
        })
        .buffered(CONCURRENT_CREATES)
        .collect()
        .await;
    for outcome in outcomes {
        match outcome {
            Ok((run, Ok(creation))) => tally.exists(run, creation),
            Ok((run, Err(error))) => tally.failed(&run, &error),
            Err(error) => tally.invalid.push(error.to_string()),
        }
    }
    tally.answer()
}

fn describe(call: &Span, run: &PipelineRun, created: &Result<Creation, CreateError>) {
    if !call.is_on() {
        return;
    }
    call.set("k8s.namespace.name", run.namespace.clone());
    call.set("github_trigger.pipeline_run", run.name.clone());
    match created {
        Ok(creation) => call.set("github_trigger.existed", *creation == Creation::Existed),
        Err(error) => call.fail(&error.to_string()),
    }
}

/// What became of the runs of one delivery.
#[derive(Default)]
struct Tally {
    runs: Vec<RunRef>,
    created: bool,
    invalid: Vec<String>,
    /// Whether it was the API server that called something invalid.
    refused: bool,
    unavailable: Vec<String>,
}

impl Tally {
    fn exists(&mut self, run: RunRef, creation: Creation) {
        self.created |= creation == Creation::Created;
        self.runs.push(run);
    }

    fn failed(&mut self, run: &RunRef, error: &CreateError) {
        let message = format!("{}/{}: {error}", run.namespace, run.name);
        match error {
            CreateError::Invalid(_) => {
                self.refused = true;
                self.invalid.push(message);
            }
            CreateError::Unavailable(_) => self.unavailable.push(message),
        }
    }

    /// One answer for all: a 2xx only if every run exists, and a retry is asked for while one could still help.
    fn answer(mut self) -> Answer {
        if !self.unavailable.is_empty() {
            self.unavailable.append(&mut self.invalid);
            let reason = "not every PipelineRun could be created; send the delivery again";
            return Answer::unavailable(Reason::ApiServer, reason, self.unavailable.join("; "), self.runs);
        }
        if !self.invalid.is_empty() {
            let reason = if self.refused { Reason::Object } else { Reason::Template };
            return Answer::invalid(reason, self.invalid.join("; "), self.runs);
        }
        if self.created { Answer::created(self.runs) } else { Answer::duplicate(self.runs) }
    }
}

fn undecodable(error: &DecodeError) -> Answer {
    match error {
        DecodeError::DataType => Answer::told(Reason::MediaType, error.to_string()),
        DecodeError::Foreign(_) => Answer::told(Reason::ForeignEvent, error.to_string()),
        _ => Answer::told(Reason::Envelope, error.to_string()),
    }
}

fn intake_answer(error: IntakeError) -> Answer {
    match error {
        IntakeError::TooLarge(_) => Answer::told(Reason::TooLarge, error.to_string()),
        IntakeError::Broken => Answer::told(Reason::Truncated, error.to_string()),
        IntakeError::Busy => Answer::unavailable(Reason::Busy, "too much in flight", error.to_string(), Vec::new()),
        IntakeError::TooSlow => Answer::unavailable(Reason::Deadline, "deadline", error.to_string(), Vec::new()),
    }
}
