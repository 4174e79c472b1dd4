//! Creating the runs of one delivery, and the one answer for all of them.

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::answer::{Answer, RunRef};
use super::outcome::{Outcome, Reason};
use super::sink::{Sink, SinkError};
use crate::kube::Creation;
use crate::telemetry::spans::Span;
use crate::telemetry::trace::TraceContext;
use crate::template::{PipelineRun, RenderError};

/// Runs of one delivery that are created at the same time.
const CONCURRENT_CREATES: usize = 8;

/// Creates the rendered runs. A failure of one does not keep the others from being created.
pub(super) async fn create(
    sink: &Sink,
    rendered: Vec<Result<PipelineRun, RenderError>>,
    span: &Span,
    trace: Option<&TraceContext>,
    until: Instant,
) -> Answer {
    let create = async |rendered: Result<PipelineRun, RenderError>| {
        let run = match rendered {
            Ok(run) => run,
            Err(error) => return RunResult::Failed(Reason::Template, error.to_string()),
        };
        let call = span.call("create");
        let traced = call.context();
        let created = sink.create(&run, traced.as_ref().or(trace), until).await;
        describe(&call, &run, &created);
        let PipelineRun { namespace, name, .. } = run;
        match created {
            Ok(creation) => RunResult::Exists(RunRef { namespace, name }, creation),
            Err(error) => RunResult::Failed(error.reason(), format!("{namespace}/{name}: {error}")),
        }
    };
    let results = stream::iter(rendered).map(create).buffered(CONCURRENT_CREATES).collect::<Vec<_>>().await;
    answer(results)
}

fn describe(call: &Span, run: &PipelineRun, created: &Result<Creation, SinkError>) {
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

/// The result of one run.
enum RunResult {
    Exists(RunRef, Creation),
    Failed(Reason, String),
}

/// The answer for all runs: a success only if every run exists, and 503 if another delivery may still create one.
fn answer(results: Vec<RunResult>) -> Answer {
    let mut runs = Vec::new();
    let mut success = Reason::Existed;
    let mut failures: Vec<(Reason, String)> = Vec::new();
    for result in results {
        match result {
            RunResult::Exists(run, creation) => {
                if creation == Creation::Created {
                    success = Reason::Created;
                }
                runs.push(run);
            }
            RunResult::Failed(reason, detail) => failures.push((reason, detail)),
        }
    }
    // Temporary failures come first, in the log as well.
    failures.sort_by_key(|(reason, _)| reason.outcome() != Outcome::Unavailable);
    let Some(&(reason, _)) = failures.first() else { return Answer::new(success).with_runs(runs) };
    let details: Vec<String> = failures.into_iter().map(|(_, detail)| detail).collect();
    Answer::new(reason).with_detail(details.join("; ")).with_runs(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(creation: Creation) -> RunResult {
        RunResult::Exists(RunRef { namespace: "ci".into(), name: "build-1".into() }, creation)
    }

    fn failed(reason: Reason) -> RunResult {
        RunResult::Failed(reason, reason.code().to_owned())
    }

    #[test]
    fn is_a_success_only_if_every_run_exists() {
        let reason = |results| answer(results).reason();
        let (created, existed) = (|| exists(Creation::Created), || exists(Creation::Existed));
        assert_eq!(reason(vec![created(), existed()]), Reason::Created);
        assert_eq!(reason(vec![existed(), existed()]), Reason::Existed);
        assert_eq!(reason(vec![created(), failed(Reason::Object)]), Reason::Object);
        assert_eq!(reason(vec![failed(Reason::Template), failed(Reason::Forbidden), created()]), Reason::Forbidden);
    }

    #[test]
    fn names_every_failure_and_the_runs_that_exist() {
        let answer = answer(vec![failed(Reason::Template), exists(Creation::Created), failed(Reason::ApiServer)]);
        assert_eq!(answer.explanation(), Some("api_server; template"));
        assert_eq!(answer.runs().len(), 1);
    }
}
