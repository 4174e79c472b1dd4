//! The PipelineRun of a merge and its tasks.

use serde_json::Value;

use super::{State, Step, condition, text};

/// A PipelineRun in the cluster.
#[derive(Debug, Clone)]
pub(super) struct MadeRun {
    pub(super) namespace: String,
    pub(super) name: String,
    object: Value,
}

impl MadeRun {
    /// Reads it out of the API server's object; `None` if that has no name.
    pub(super) fn from_object(object: Value) -> Option<Self> {
        let (namespace, name) = (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
        (!name.is_empty()).then(|| Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            object: object.clone(),
        })
    }

    /// `namespace/name`.
    pub(super) fn reference(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Value of one of our annotations; empty if there is none.
    pub(super) fn annotation(&self, name: &str) -> &str {
        self.object["metadata"]["annotations"][format!("github-trigger.dev/{name}")].as_str().unwrap_or_default()
    }

    /// When it was made, RFC 3339.
    pub(super) fn created(&self) -> &str {
        text(&self.object, "/metadata/creationTimestamp")
    }

    /// Names of the tasks that were left out.
    pub(super) fn skipped(&self) -> Vec<&str> {
        let skipped = self.object["status"]["skippedTasks"].as_array().into_iter().flatten();
        skipped.map(|task| text(task, "/name")).collect()
    }
}

/// The run itself.
pub(super) fn run_step(run: &MadeRun) -> Step {
    const PLACE: &str = "run";
    let (reference, created) = (run.reference(), run.created());
    let Some(succeeded) = condition(&run.object, "Succeeded") else {
        let pending = text(&run.object, "/spec/status");
        let advice = match pending {
            "PipelineRunPending" => "it was made to wait: remove spec.status",
            _ => "is Tekton's controller running? kubectl -n tekton-pipelines get pods",
        };
        let message = format!("{reference} exists since {created}, and Tekton has not begun it");
        return Step::with(State::Waiting, PLACE, message, advice);
    };
    let (reason, message) = (text(succeeded, "/reason"), one_line(text(succeeded, "/message")));
    match text(succeeded, "/status") {
        "True" => Step::ok(PLACE, format!("{reference} succeeded ({reason})")),
        "False" => Step::with(
            State::Wrong,
            PLACE,
            format!("{reference} failed ({reason}): {message}"),
            format!("mend what failed, then: github-trigger rerun {reference}"),
        ),
        _ => Step::with(
            State::Waiting,
            PLACE,
            format!("{reference} is under way since {created} ({reason}): {message}"),
            format!("follow it: kubectl -n {} get taskruns -l tekton.dev/pipelineRun={}", run.namespace, run.name),
        ),
    }
}

/// The tasks of a run that have not succeeded.
pub(super) fn task_steps(run: &MadeRun, tasks: &[Value]) -> Vec<Step> {
    tasks.iter().filter_map(|task| task_step(&run.namespace, task)).collect()
}

fn task_step(namespace: &str, task: &Value) -> Option<Step> {
    const PLACE: &str = "task";
    let name = task["metadata"]["labels"]["tekton.dev/pipelineTask"].as_str().unwrap_or(text(task, "/metadata/name"));
    let pod = text(task, "/status/podName");
    let Some(succeeded) = condition(task, "Succeeded") else {
        return Some(Step::with(State::Waiting, PLACE, format!("{name} has not begun"), "wait for it"));
    };
    let (reason, message) = (text(succeeded, "/reason"), one_line(text(succeeded, "/message")));
    let state = match text(succeeded, "/status") {
        "True" => return None,
        "False" => State::Wrong,
        _ => State::Waiting,
    };
    let steps = task["status"]["steps"].as_array().into_iter().flatten();
    let failed = steps.filter(|step| step["terminated"]["exitCode"].as_i64().is_some_and(|code| code != 0));
    let failed: Vec<&str> = failed.map(|step| text(step, "/container")).collect();
    let advice = match (pod, failed.first()) {
        ("", _) => "the message says why it has no pod".to_owned(),
        // Without a container that ended, there is no log: the pod says why.
        (pod, None) => format!("kubectl -n {namespace} describe pod {pod}"),
        (pod, Some(container)) => format!("kubectl -n {namespace} logs {pod} -c {container}"),
    };
    let what = if state == State::Wrong { "failed" } else { "is under way" };
    Some(Step::with(state, PLACE, format!("{name} {what} ({reason}): {message}"), advice))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(status: &Value) -> MadeRun {
        let object = json!({"metadata": {"namespace": "ci", "name": "web-0", "creationTimestamp": "2026-11-22T12:00:00Z",
            "annotations": {"github-trigger.dev/commit": "0a"}}, "spec": {}, "status": status});
        MadeRun::from_object(object).expect("a run")
    }

    fn succeeded(status: &str, reason: &str) -> Value {
        json!({"conditions": [{"type": "Succeeded", "status": status, "reason": reason, "message": "a\nmessage"}]})
    }

    #[test]
    fn a_run_says_what_to_do() {
        for (status, state, text, advice) in [
            (json!({}), State::Waiting, "has not begun", "tekton-pipelines"),
            (succeeded("Unknown", "Running"), State::Waiting, "under way", "get taskruns"),
            (succeeded("True", "Succeeded"), State::Ok, "succeeded", ""),
            (
                succeeded("False", "CouldntGetPipeline"),
                State::Wrong,
                "(CouldntGetPipeline): a message",
                "rerun ci/web-0",
            ),
        ] {
            let step = run_step(&made(&status));
            assert!(step.state == state && step.message.contains(text), "{step:?}");
            assert!(step.advice.unwrap_or_default().contains(advice));
        }
        assert_eq!(made(&json!({})).annotation("commit"), "0a");
        assert_eq!(made(&json!({"skippedTasks": [{"name": "deploy"}]})).skipped(), ["deploy"]);
    }

    #[test]
    fn a_task_names_the_log_to_read() {
        let task = |mut status: Value, pod: &str, steps: Value| {
            (status["podName"], status["steps"]) = (pod.into(), steps);
            json!({"metadata": {"name": "web-0-build", "labels": {"tekton.dev/pipelineTask": "build"}}, "status": status})
        };
        let exited = json!([{"container": "step-clone", "terminated": {"exitCode": 0}},
            {"container": "step-build", "terminated": {"exitCode": 1}}]);
        for (task, advice) in [
            (task(succeeded("False", "Failed"), "pod-1", exited), "kubectl -n ci logs pod-1 -c step-build"),
            (
                task(succeeded("False", "TaskRunImagePullFailed"), "pod-1", json!([])),
                "kubectl -n ci describe pod pod-1",
            ),
            (task(succeeded("Unknown", "Pending"), "pod-1", json!([])), "kubectl -n ci describe pod pod-1"),
            (task(succeeded("False", "TaskRunValidationFailed"), "", json!([])), "the message says why it has no pod"),
        ] {
            let steps = task_steps(&made(&json!({})), &[task]);
            assert_eq!(steps[0].advice.as_deref().unwrap_or_default(), advice, "{steps:?}");
            assert!(steps[0].message.starts_with("build "), "{steps:?}");
        }
        let done = task(succeeded("True", "Succeeded"), "pod-1", json!([]));
        assert_eq!(task_steps(&made(&json!({})), &[done]), []);
    }
}
