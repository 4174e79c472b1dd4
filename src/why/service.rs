//! The Knative Service that a merge was deployed to: its stamp, the revision, and how many users see it.

use serde_json::Value;

use super::{State, Step, condition, text};

/// What a run's deploy task says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeployTask {
    /// Name of the Knative Service.
    pub(super) service: String,
    /// Its namespace; empty for the run's own.
    pub(super) namespace: String,
    /// The outcome of the deployment; empty if there is none yet.
    outcome: String,
    /// The revision that it made.
    pub(super) revision: String,
}

impl DeployTask {
    /// Finds the deploy task among the tasks of a run, by its param `service-name`.
    pub(super) fn find(tasks: &[Value]) -> Option<Self> {
        tasks.iter().find_map(|task| {
            let named = |list: &Value, name: &str| {
                let mut entries = list.as_array().into_iter().flatten();
                let entry = entries.find(|entry| entry["name"] == name);
                entry.and_then(|entry| entry["value"].as_str()).unwrap_or_default().trim().to_owned()
            };
            let (params, results) = (&task["spec"]["params"], &task["status"]["results"]);
            let service = named(params, "service-name");
            (!service.is_empty()).then(|| Self {
                service,
                namespace: named(params, "service-namespace"),
                outcome: named(results, "outcome"),
                revision: named(results, "revision"),
            })
        })
    }
}

/// The Service and its revision, as the API server has them; `name` is `namespace/name`, `commit` the merge commit.
pub(super) fn service_steps(
    name: &str,
    task: &DeployTask,
    commit: &str,
    service: Option<&Value>,
    revision: Option<&Value>,
) -> Vec<Step> {
    let short_name = name.rsplit('/').next().unwrap_or(name);
    let namespace = name.split('/').next().unwrap_or(name);
    let Some(service) = service else {
        return vec![Step::with(
            State::Wrong,
            "service",
            format!("there is no Service {name}"),
            "was it deleted? github-trigger rerun makes it anew",
        )];
    };
    let deployed = service["metadata"]["annotations"]["github-trigger.dev/commit"].as_str().unwrap_or_default();
    if task.outcome == "superseded" || (!deployed.is_empty() && deployed != commit) {
        let newer = service["metadata"]["annotations"]["github-trigger.dev/pull-request-url"].as_str();
        let newer = newer.map(|url| format!(" of {url}")).unwrap_or_default();
        let advice = match task.revision.as_str() {
            "" => "nothing: the newest merge wins".to_owned(),
            revision => format!(
                "nothing, if that is newer; to go back to this one: github-trigger deploy --rollback --to {revision} \
                 --service-name {short_name} --namespace {namespace}"
            ),
        };
        return vec![Step::with(
            State::Ended,
            "service",
            format!("{name} was deployed from the commit {deployed}{newer}, and not from this one"),
            advice,
        )];
    }
    let mut steps = vec![Step::ok("service", format!("{name} was deployed from this commit"))];
    let latest = text(service, "/status/latestCreatedRevisionName");
    let revision_name = if task.revision.is_empty() { latest } else { &task.revision };
    let ready = revision.and_then(|revision| condition(revision, "Ready"));
    match ready.map(|ready| (text(ready, "/status"), ready)) {
        Some(("True", _)) => steps.push(Step::ok("revision", format!("{revision_name} is ready"))),
        Some(("False", ready)) => {
            let (reason, message) = (text(ready, "/reason"), text(ready, "/message"));
            // A revision that nobody uses any more is scaled to zero, which is no fault.
            if reason == "NoTraffic" {
                steps.push(Step::ok("revision", format!("{revision_name} has no traffic, and no pods")));
            } else {
                let advice =
                    format!("mend it and merge again: kubectl -n {namespace} describe revision {revision_name}");
                steps.push(Step::with(
                    State::Wrong,
                    "revision",
                    format!("{revision_name} is not ready ({reason}): {message}"),
                    advice,
                ));
                return steps;
            }
        }
        Some((_, ready)) => {
            let (reason, message) = (text(ready, "/reason"), text(ready, "/message"));
            steps.push(Step::with(
                State::Waiting,
                "revision",
                format!("{revision_name} is not ready yet ({reason}) {message}").trim_end().to_owned(),
                format!("kubectl -n {namespace} get pods -l serving.knative.dev/revision={revision_name}"),
            ));
            return steps;
        }
        None => {
            steps.push(Step::with(
                State::Wrong,
                "revision",
                format!("there is no revision {revision_name}"),
                format!("kubectl -n {namespace} describe ksvc {short_name}"),
            ));
            return steps;
        }
    }
    steps.push(traffic(namespace, short_name, revision_name, service));
    steps
}

/// How many users see a revision.
fn traffic(namespace: &str, service_name: &str, revision: &str, service: &Value) -> Step {
    let targets = service["status"]["traffic"].as_array().into_iter().flatten();
    let ours = targets.filter(|target| target["revisionName"] == revision);
    let percent: u64 = ours.filter_map(|target| target["percent"].as_u64()).sum();
    let url = text(service, "/status/url");
    if percent >= 100 {
        return Step::ok("traffic", format!("all users of {url} see {revision}"));
    }
    let containers = service["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
    let image = containers.clone().find(|container| !container["ports"].is_null()).or(containers.clone().next());
    let image = image.map(|container| text(container, "/image")).unwrap_or_default();
    Step::with(
        State::Wrong,
        "traffic",
        format!("{percent} % of the users of {url} see {revision}"),
        format!(
            "to show it to all: github-trigger deploy --to-latest --image {image} --service-name {service_name} \
             --namespace {namespace}"
        ),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COMMIT: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

    fn last(service: Option<&Value>, outcome: &str, revision: Option<&Value>) -> Step {
        let task = DeployTask { outcome: outcome.to_owned(), revision: "hello-2".to_owned(), ..DeployTask::default() };
        super::service_steps("default/hello", &task, COMMIT, service, revision).pop().expect("a step")
    }

    fn stamped(commit: &str, percent: u64) -> Value {
        json!({"metadata": {"annotations": {"github-trigger.dev/commit": commit}},
            "status": {"url": "http://hello", "latestCreatedRevisionName": "hello-2", "traffic": [
                {"revisionName": "hello-2", "percent": percent}, {"revisionName": "hello-2", "tag": "t", "url": "http://t"},
                {"revisionName": "hello-1", "percent": 100 - percent}]}})
    }

    fn ready(status: &str, reason: &str) -> Value {
        json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": "m"}]}})
    }

    #[test]
    fn the_road_ends_with_the_users() {
        let (all, ready_now) = (stamped(COMMIT, 100), ready("True", ""));
        let some = stamped(COMMIT, 10);
        for (step, place, state, text) in [
            (last(None, "deployed", None), "service", State::Wrong, "no Service default/hello"),
            (last(Some(&stamped("0b", 100)), "deployed", None), "service", State::Ended, "from the commit 0b"),
            (last(Some(&all), "superseded", None), "service", State::Ended, "not from this one"),
            (last(Some(&all), "deployed", None), "revision", State::Wrong, "no revision hello-2"),
            (
                last(Some(&all), "deployed", Some(&ready("False", "ExitCode1"))),
                "revision",
                State::Wrong,
                "(ExitCode1): m",
            ),
            (
                last(Some(&all), "deployed", Some(&ready("Unknown", "Deploying"))),
                "revision",
                State::Waiting,
                "not ready yet",
            ),
            (last(Some(&some), "deployed", Some(&ready_now)), "traffic", State::Wrong, "10 % of the users"),
            (last(Some(&all), "deployed", Some(&ready_now)), "traffic", State::Ok, "all users"),
        ] {
            assert_eq!((step.place, step.state), (place, state), "{step:?}");
            assert!(step.message.contains(text), "{step:?}");
        }
    }

    #[test]
    fn finds_the_deploy_task_by_its_param() {
        let tasks = [
            json!({"spec": {"params": [{"name": "image", "value": "x"}]}}),
            json!({"spec": {"params": [{"name": "service-name", "value": "hello"}, {"name": "service-namespace", "value": "web"}]},
                "status": {"results": [{"name": "outcome", "value": "deployed"}, {"name": "revision", "value": "hello-2\n"}]}}),
        ];
        let task = DeployTask::find(&tasks).expect("a task");
        assert_eq!((task.service.as_str(), task.namespace.as_str()), ("hello", "web"));
        assert_eq!((task.outcome.as_str(), task.revision.as_str()), ("deployed", "hello-2"));
        assert_eq!(DeployTask::find(&tasks[..1]), None);
    }
}
