//! Creating a PipelineRun.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::client::{CALL_TIMEOUT, Call};
use super::error::{ApiError, ApiErrorKind};
use super::{Cluster, FIELD_MANAGER};
use crate::telemetry::trace::TraceContext;
use crate::template::PipelineRun;

/// First pause before another attempt, doubled each time up to [`MAX_BACKOFF`], with jitter.
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
/// Longest pause chosen here; the API server may ask for a longer one.
const MAX_BACKOFF: Duration = Duration::from_secs(1);
/// An attempt without an answer for so long gets a second one beside it, on another connection: the first may be stuck,
/// or wait for a slow admission webhook. Whichever is answered first decides.
const HEDGE_AFTER: Duration = Duration::from_millis(2500);

/// The result of a create; the run exists in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creation {
    /// This call created it.
    Created,
    /// A run of this name existed: the same event was delivered before.
    Existed,
}

/// Whether the API server stores the object or only checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Create,
    DryRun,
}

impl Cluster {
    /// Creates a run. Temporary failures are retried until `until`; every repetition is safe, because the name follows
    /// from the event.
    /// Errors: the last failure, when the run was not created or that is not known.
    pub(crate) async fn create(
        &self,
        run: &PipelineRun,
        trace: Option<&TraceContext>,
        until: Instant,
    ) -> Result<Creation, ApiError> {
        let body = Bytes::from(serde_json::to_vec(&run.object)?);
        let mut backoff = FIRST_BACKOFF;
        let mut last: Option<ApiError> = None;
        loop {
            let error = match self.hedged_post(run, &body, trace, until).await {
                Ok(()) => return Ok(Creation::Created),
                Err(error) if error.kind() == ApiErrorKind::AlreadyExists => return Ok(Creation::Existed),
                Err(error) if !error.kind().is_temporary() => return Err(error),
                Err(error) => error,
            };
            let pause = error.retry_after().unwrap_or_else(|| backoff.mul_f64(0.5 + fastrand::f64() / 2.0));
            let now = Instant::now();
            if now >= until && error.kind() == ApiErrorKind::Timeout {
                // That the last attempt was cut off says less than why the one before it failed.
                return Err(last.unwrap_or(error));
            }
            if now + pause >= until {
                return Err(error);
            }
            tracing::debug!(run = run.name, error = %error, "retrying the create");
            last = Some(error);
            sleep(pause).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    /// Creates a run in one attempt.
    /// Fails when the run was not created, or that is not known.
    pub(crate) async fn create_once(&self, run: &PipelineRun) -> Result<Creation, ApiError> {
        let body = Bytes::from(serde_json::to_vec(&run.object)?);
        match self.post(run, &body, Mode::Create, None, Instant::now() + CALL_TIMEOUT).await {
            Ok(()) => Ok(Creation::Created),
            Err(error) if error.kind() == ApiErrorKind::AlreadyExists => Ok(Creation::Existed),
            Err(error) => Err(error),
        }
    }

    /// Reads a run; `None` if there is none of this name.
    /// Fails when it cannot be read.
    pub(crate) async fn pipeline_run(&self, namespace: &str, name: &str) -> Result<Option<Value>, ApiError> {
        self.read(&format!("/apis/tekton.dev/v1/namespaces/{namespace}/pipelineruns/{name}")).await
    }

    /// Asks the API server whether it would take a run; nothing is created.
    /// Fails when it would not, or there is no answer.
    pub(crate) async fn dry_run(&self, run: &PipelineRun) -> Result<(), ApiError> {
        let body = Bytes::from(serde_json::to_vec(&run.object)?);
        self.post(run, &body, Mode::DryRun, None, Instant::now() + CALL_TIMEOUT).await
    }

    /// Posts once, and a second time beside it if the first is not answered soon.
    async fn hedged_post(
        &self,
        run: &PipelineRun,
        body: &Bytes,
        trace: Option<&TraceContext>,
        until: Instant,
    ) -> Result<(), ApiError> {
        let post = || Box::pin(self.post(run, body, Mode::Create, trace, until));
        let first = post();
        let hedge = Box::pin(sleep_until(Instant::now() + HEDGE_AFTER));
        let first = match select(first, hedge).await {
            Either::Left((answer, _)) => return answer,
            Either::Right(((), first)) => first,
        };
        match select(first, post()).await {
            // A failed or refused attempt says nothing about the other one, which may still create the run: the first one may
            // be the cause of the refusal, by a quota or an admission that counts.
            Either::Left((Err(error), other)) | Either::Right((Err(error), other))
                if error.kind() != ApiErrorKind::AlreadyExists =>
            {
                match other.await {
                    Err(second) if second.kind().is_temporary() && !error.kind().is_temporary() => Err(error),
                    answer => answer,
                }
            }
            Either::Left((answer, _)) | Either::Right((answer, _)) => answer,
        }
    }

    /// Posts the run once. `fieldValidation=Strict` makes an unknown field an error instead of dropping it.
    async fn post(
        &self,
        run: &PipelineRun,
        body: &Bytes,
        mode: Mode,
        trace: Option<&TraceContext>,
        until: Instant,
    ) -> Result<(), ApiError> {
        let dry_run = match mode {
            Mode::Create => "",
            Mode::DryRun => "&dryRun=All",
        };
        let uri = format!(
            "/apis/tekton.dev/v1/namespaces/{}/pipelineruns?fieldValidation=Strict&fieldManager={FIELD_MANAGER}{dry_run}",
            run.namespace
        );
        let call = Call { method: Method::POST, uri, content_type: "application/json", body: body.clone(), trace };
        let answer = self.api.send(call, until).await?;
        if is_run(&answer, &run.name) { Ok(()) } else { Err(ApiError::not_an_api_server(&answer)) }
    }
}

/// Whether a successful answer is the API server's, with the run that was sent. A login page in front of it, or another server
/// at its address, answers with a success, too.
fn is_run(answer: &[u8], name: &str) -> bool {
    let Ok(Value::Object(answer)) = serde_json::from_slice(answer) else { return false };
    let named = answer.get("metadata").and_then(|metadata| metadata.get("name"));
    let found: Vec<bool> = [(answer.get("kind"), "PipelineRun"), (named, name)]
        .into_iter()
        .filter_map(|(value, expected)| value.map(|value| value == expected))
        .collect();
    !found.is_empty() && found.into_iter().all(|is_expected| is_expected)
}

/// What an operator can do about a failed create; empty where the API server's message says it.
pub(crate) fn advice(kind: ApiErrorKind) -> &'static str {
    match kind {
        ApiErrorKind::Forbidden => " (the Role needs the verb create on pipelineruns.tekton.dev)",
        ApiErrorKind::NamespaceNotFound => " (create the namespace, or set --namespace)",
        ApiErrorKind::NotInstalled => " (is Tekton Pipelines installed?)",
        _ => "",
    }
}
