//! One delivery, from its bytes to its answer. Only reading the body and creating runs do I/O.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::EXPECT;
use http::request::Parts;
use tokio::time::{Instant, timeout_at};

use super::access_log::Record;
use super::answer::Answer;
use super::app::App;
use super::blocking::step;
use super::budget::Share;
use super::listener::Origin;
use super::outcome::Reason;
use super::response::ResponseForm;
use super::{authentication, body, creation};
use crate::delivery::{Credential, Envelope, EventKind, Unsupported, Unverified};
use crate::github::Event;
use crate::team::Team;
use crate::template::{Decision, Ignored, Selection, Stamp, TeamTemplates, cel_memory};

const SECONDS_A_DAY: u64 = 86_400;
/// A merge may be so much ahead of our clock.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(300);

/// `POST /`.
pub(super) async fn deliver(State(app): State<Arc<App>>, request: Request) -> Response {
    let (mut head, mut body) = request.into_parts();
    let first_byte = first_byte(&head);
    let mut record = Record::new(first_byte, &head.headers);
    let _in_flight = app.metrics.begin_request();
    let envelope = Envelope::from_headers(&head.headers);
    let form = ResponseForm::from_request(envelope.ok(), &head.headers, app.config.reply_events.as_ref());
    let answer = match receive(&app, &mut head, &mut body, envelope, first_byte, &mut record).await {
        Ok(answer) | Err(answer) => answer,
    };
    let waits_to_send = head.headers.contains_key(EXPECT);
    body::discard(body, head.extensions.get(), waits_to_send);
    record.write(&app, &answer);
    form.respond(&answer, record.delivery(), app.config.sink.is_dry_run())
}

/// Answers a request that is no delivery, and counts and logs it like one.
pub(super) fn refuse(app: &App, request: Request, reason: Reason) -> Response {
    let (head, body) = request.into_parts();
    let mut record = Record::new(first_byte(&head), &head.headers);
    record.request(&head.method, head.uri.path());
    let answer = Answer::new(reason);
    body::discard(body, head.extensions.get(), head.headers.contains_key(EXPECT));
    record.write(app, &answer);
    answer.to_response(None, false)
}

fn first_byte(head: &Parts) -> Instant {
    head.extensions.get().map_or_else(Instant::now, |origin: &Origin| origin.first_byte)
}

/// Every early answer is an `Err`.
async fn receive(
    app: &Arc<App>,
    head: &mut Parts,
    body: &mut Body,
    envelope: Result<Envelope, Unsupported>,
    first_byte: Instant,
    record: &mut Record,
) -> Result<Answer, Answer> {
    if app.is_draining() {
        return Err(Answer::new(Reason::Stopping));
    }
    let limits = app.config.limits;
    let until = first_byte + limits.deadline;
    if Instant::now() >= until {
        // The head alone took so long.
        return Err(Answer::new(Reason::Deadline));
    }
    let envelope = envelope.map_err(|error| Answer::new(Reason::MediaType).with_message(error))?;
    record.envelope(envelope);
    let declared = body::declared_length(&head.headers);
    if declared.is_some_and(|length| length > limits.max_body) {
        return Err(unread(body::BodyError::TooLarge(limits.max_body)));
    }
    let credential = authentication::check_headers(app, &head.headers, envelope, until).await?;
    if let Some(Credential::Token(proof, _)) = &credential {
        record.subject(proof.subject());
    }
    // Who waits for `100 Continue` gets it now, and sends.
    head.headers.remove(EXPECT);
    let complete = body::read(body, declared, limits.max_body, &app.budget, until).await.map_err(unread)?;
    let bytes = complete.bytes.len();
    record.bytes(bytes);
    let begun = app.config.tracer.is_on().then(SystemTime::now);
    let unverified = Unverified::new(mem::take(&mut head.headers), envelope, complete.bytes);
    let verified = authentication::verify(app, unverified, credential, until).await?;
    record.authenticated(verified.team());
    if let Some(origin) = head.extensions.get::<Origin>() {
        origin.prove();
    }
    let delivery = step(bytes, move || verified.decode()).await?;
    let delivery = delivery.map_err(|error| Answer::new((&error).into()).with_message(error))?;
    record.decoded(app, &delivery);
    if let Some(begun) = begun {
        record.span().past("verify", begun, SystemTime::now());
    }
    let event = step(bytes, move || Event::parse(delivery)).await?;
    let event = event.map_err(|error| Answer::new(Reason::Payload).with_message(error))?;
    let answer = act(app, event, until, record).await;
    drop(complete.share);
    answer
}

fn unread(error: body::BodyError) -> Answer {
    Answer::new(error.into()).with_message(error)
}

/// Selects and renders the templates of an authenticated event, and creates the runs.
async fn act(app: &App, mut event: Event, until: Instant, record: &mut Record) -> Result<Answer, Answer> {
    record.event(&event);
    if event.kind == EventKind::Ping {
        return Ok(Answer::new(Reason::Ping));
    }
    if let Some(age) = too_old(&event, app.config.limits.max_merge_age) {
        let days = age.as_secs() / SECONDS_A_DAY;
        let message = format!("the merge is {days} days old; older ones than --max-merge-age are replays, and ignored");
        return Ok(Answer::new(Reason::TooOld).with_message(message));
    }
    // The run continues our part of the trace, if there is one.
    event.trace = record.span().context().or(event.trace);
    event.deadline = Some(until.into_std());
    let rendering = record.span().child("render");
    let templates = app.config.templates.current();
    let Some(in_force) = templates.get(&event.team) else {
        let who = &event.team;
        let is_absent = *who == Team::TOP && app.config.secrets.current().keyring.of_team(who).is_empty();
        // Sending it again would change nothing.
        let reason = if is_absent { Reason::Subject } else { Reason::Team };
        let message =
            format!("{who} has no templates, and a delivery without a team's signature or subject reaches it alone");
        return Ok(Answer::new(reason).with_message(message));
    };
    if app.config.secrets.current().has_invalid_settings(&event.team) {
        let detail = format!("a setting in the folder of secrets of {} is not valid", event.team);
        return Ok(Answer::new(Reason::Team).with_detail(detail));
    }
    let Some(templates) = in_force.templates.clone() else {
        return Ok(Answer::new(Reason::Team).with_detail(format!("{} has no valid templates", event.team)));
    };
    let trace = event.trace.clone();
    let (of_step, namespace) = (Arc::clone(&templates), app.config.namespace.clone());
    let decision = match step(event.payload.len(), move || decide(&of_step, event, &namespace)).await? {
        Step::Decided(decision) => decision,
        Step::NeedsCel(event, memory) => evaluate(app, templates, *event, memory, until).await?,
    };
    drop(rendering);
    Ok(match decision {
        Decision::Ignore(ignored) => ignore(&ignored),
        Decision::Render(runs) => creation::create(&app.config.sink, runs, record.span(), trace.as_ref(), until).await,
    })
}

/// What is known without CEL.
enum Step {
    Decided(Decision),
    /// CEL decides, and may need so many bytes of memory.
    NeedsCel(Box<Event>, u64),
}

/// Decides without CEL, if that is possible.
fn decide(templates: &TeamTemplates, event: Event, namespace: &str) -> Step {
    let candidates = match templates.set.select(&event) {
        Selection::Ignore(ignored) => return Step::Decided(Decision::Ignore(ignored)),
        Selection::Candidates(candidates) => candidates,
    };
    if !candidates.need_cel() {
        let stamp = Stamp { namespace: templates.namespace(namespace) };
        return Step::Decided(candidates.decide(&event, stamp));
    }
    drop(candidates);
    let memory = cel_memory(&event).unwrap_or(0);
    Step::NeedsCel(Box::new(event), memory)
}

/// The age of a merge that is older than `limit`; `None` for any other event, and with a limit of zero.
fn too_old(event: &Event, limit: Duration) -> Option<Duration> {
    if event.merge.is_none() || limit.is_zero() {
        return None;
    }
    let delivery = event.delivery.as_str();
    let Some(merged_at) = event.time().or_else(|| event.closed_at()) else {
        tracing::warn!(delivery, "the merge has no valid merged_at, so that --max-merge-age cannot be applied");
        return None;
    };
    let Ok(age) = SystemTime::now().duration_since(SystemTime::from(merged_at)) else {
        let ahead = SystemTime::from(merged_at).duration_since(SystemTime::now()).unwrap_or_default();
        if ahead > CLOCK_DIFFERENCE {
            tracing::warn!(delivery, "the merge's time is in the future; is a clock wrong?");
        }
        return None;
    };
    (age > limit).then_some(age)
}

fn ignore(ignored: &Ignored) -> Answer {
    let reason = match ignored {
        Ignored::NotAMerge(_) => Reason::NotAMerge,
        Ignored::NoTemplate(_) => Reason::NoTemplate,
        Ignored::UnknownRepository(_) => Reason::UnknownRepository,
        Ignored::Deletion => Reason::Deletion,
    };
    Answer::new(reason).with_message(ignored).with_detail(ignored.detail())
}

/// Takes the memory that an evaluation may need out of the budget of all bodies.
fn reserve(app: &App, memory: u64) -> Result<Share, Answer> {
    // An evaluation with more than a small budget has would never be made.
    let memory = memory.min(app.config.limits.max_buffered / 2);
    let mut share = app.budget.share(memory);
    if share.grow_to(memory) { Ok(share) } else { Err(unread(body::BodyError::Busy)) }
}

/// Evaluates CEL on a blocking thread: the `cel` crate cannot be interrupted.
async fn evaluate(
    app: &App,
    templates: Arc<TeamTemplates>,
    event: Event,
    memory: u64,
    until: Instant,
) -> Result<Decision, Answer> {
    let late = || Answer::new(Reason::Deadline).with_detail("an expression took too long; lint and simplify it");
    let permit = timeout_at(until, Arc::clone(&app.evaluations).acquire_owned()).await.map_err(|_| late())?;
    // The semaphore is never closed.
    let permit = permit.map_err(|_| Answer::new(Reason::Stopping))?;
    let share = reserve(app, memory)?;
    let namespace = app.config.namespace.clone();
    let evaluation = tokio::task::spawn_blocking(move || {
        // Held until the evaluation ends, even if the delivery is answered before.
        let _held = (permit, share);
        templates.set.decide(&event, Stamp { namespace: templates.namespace(&namespace) })
    });
    let decision = timeout_at(until, evaluation).await.map_err(|_| late())?;
    // An evaluation that stops at the deadline may end just before the timer does.
    if Instant::now() >= until {
        return Err(late());
    }
    decision.map_err(|_| Answer::new(Reason::Defect))
}
