//! The Knative Service that a merge was deployed to: its stamp, the revision, and how many users see it.

use jiff::Timestamp;
use serde_json::Value;

use super::run::MadeRun;
use super::{State, Step, condition, text};

/// The outcome of a deployment that left something newer in place.
const SUPERSEDED: &str = "superseded";

/// What a run's deploy task says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct DeployTask {
    /// Name of the Knative Service.
    pub(super) service: String,
    /// Its namespace; empty for the run's own.
    pub(super) namespace: String,
    /// The outcome of the deployment; empty if there is none yet.
    outcome: String,
    /// The revision that it made; empty if there is none, or something newer was deployed.
    pub(super) revision: String,
}

impl DeployTask {
    /// Finds the deploy task among the tasks of a run, by its param `service-name`. A task that only checks (`deploy --check`)
    /// has that, too: it counts if it says that something newer is deployed, which ends the run's part.
    pub(super) fn find(tasks: &[Value]) -> Option<Self> {
        let mut found = tasks.iter().filter_map(|task| {
            let named = |list: &Value, name: &str| {
                let mut entries = list.as_array().into_iter().flatten();
                let entry = entries.find(|entry| entry["name"] == name);
                entry.and_then(|entry| entry["value"].as_str()).unwrap_or_default().trim().to_owned()
            };
            let (params, results) = (&task["spec"]["params"], &task["status"]["results"]);
            let service = named(params, "service-name");
            let (outcome, mut revision) = (named(results, "outcome"), named(results, "revision"));
            if outcome == SUPERSEDED {
                // Older versions of the task name the newer one's.
                revision.clear();
            }
            let namespace = named(params, "service-namespace");
            (!service.is_empty()).then_some(Self { service, namespace, outcome, revision })
        });
        found.find(|task| task.outcome != "needed")
    }
}

/// The Service and its revision, as the API server has them; `name` is `namespace/name`.
pub(super) fn service_steps(
    name: &str,
    task: &DeployTask,
    run: &MadeRun,
    service: Option<&Value>,
    revision: Option<&Value>,
) -> Vec<Step> {
    let (namespace, short_name) = name.split_once('/').unwrap_or(("default", name));
    let rerun = format!("github-trigger rerun {}", run.reference());
    let Some(service) = service else {
        let message = format!("there is no Service {name}");
        return vec![Step::with(State::Wrong, "service", message, format!("was it deleted? {rerun} makes it anew"))];
    };
    let annotation = |name: &str| service["metadata"]["annotations"][format!("github-trigger.dev/{name}")].as_str();
    let latest = text(service, "/status/latestCreatedRevisionName");
    let deployed = annotation("commit").unwrap_or_default();
    let is_other = !deployed.is_empty() && deployed != run.annotation("commit");
    if task.outcome == SUPERSEDED || is_other {
        let of = annotation("pull-request-url").map(|url| format!(" of {url}")).unwrap_or_default();
        let message = format!("{name} was deployed from the commit {deployed}{of}, and not from this one");
        let time = |text: &str| text.parse::<Timestamp>().ok();
        let is_older = time(annotation("merged-at").unwrap_or_default())
            .zip(time(run.annotation("merged-at")))
            .is_some_and(|(deployed, ours)| deployed < ours);
        if is_older {
            let advice = format!("that merge is older; if it was not deployed on purpose: {rerun}");
            return vec![Step::with(State::Wrong, "service", message, advice)];
        }
        let advice = match task.revision.as_str() {
            "" => "nothing: the newest merge wins".to_owned(),
            revision => format!(
                "nothing: the newest merge wins; to go back to this one: github-trigger deploy --rollback --to {revision} \
                 --service-name {short_name} --namespace {namespace}"
            ),
        };
        return vec![Step::with(State::Ended, "service", message, advice)];
    }
    if deployed.is_empty() && !task.revision.is_empty() && latest != task.revision {
        return vec![Step::with(
            State::Wrong,
            "service",
            format!("{name} has no stamp, and its newest revision is {latest}, which this run has not made"),
            format!(
                "something else changes the Service, for example Argo CD or Flux (docs/first-release.md says how to live with \
                 them); then: {rerun}"
            ),
        )];
    }
    if deployed.is_empty() && task.revision.is_empty() {
        let message = format!("{name} has no stamp, so that it is not known which commit runs there");
        return vec![Step::unknown("service", message)];
    }
    let mut steps = vec![Step::ok("service", format!("{name} was deployed from this commit"))];
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
    const PLACE: &str = "traffic";
    let users = service["status"]["traffic"].as_array().into_iter().flatten();
    let users = users.filter_map(|target| Some((text(target, "/revisionName"), target["percent"].as_u64()?)));
    let percent: u64 = users.clone().filter(|(name, _)| *name == revision).map(|(_, percent)| percent).sum();
    let url = text(service, "/status/url");
    if let Some(ready) = condition(service, "Ready").filter(|ready| ready["status"] != "True") {
        let state = if ready["status"] == "False" { State::Wrong } else { State::Waiting };
        let message = format!(
            "the Service is not ready ({}): {}; users may not reach {url}",
            text(ready, "/reason"),
            text(ready, "/message")
        );
        return Step::with(state, PLACE, message, format!("kubectl -n {namespace} describe ksvc {service_name}"));
    }
    if percent >= 100 {
        return Step::ok(PLACE, format!("all users of {url} see {revision}"));
    }
    let containers = service["spec"]["template"]["spec"]["containers"].as_array().into_iter().flatten();
    let image = containers.clone().find(|container| !container["ports"].is_null()).or(containers.clone().next());
    let image = image.map(|container| text(container, "/image")).unwrap_or_default();
    let promote = format!(
        "github-trigger deploy --to-latest --image {image} --service-name {service_name} --namespace {namespace}"
    );
    match users.clone().find(|(name, percent)| *percent == 100 && *name != revision) {
        // After a rollback, or with --no-traffic, which somebody has wanted.
        Some((pinned, _)) => Step::with(
            State::Ended,
            PLACE,
            format!("all users of {url} are kept on {pinned}, by a rollback or by --no-traffic; none sees {revision}"),
            format!("when that is over: {promote}"),
        ),
        None => Step::with(
            State::Waiting,
            PLACE,
            format!("{percent} % of the users of {url} see {revision}"),
            format!("to show it to all: {promote}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COMMIT: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

    fn last(service: Option<&Value>, outcome: &str, revision: Option<&Value>) -> Step {
        let task = DeployTask { outcome: outcome.to_owned(), revision: "hello-2".to_owned(), ..DeployTask::default() };
        last_after(&task, service, revision)
    }

    fn last_after(task: &DeployTask, service: Option<&Value>, revision: Option<&Value>) -> Step {
        let run = json!({"metadata": {"namespace": "ci", "name": "web-0", "annotations": {
            "github-trigger.dev/commit": COMMIT, "github-trigger.dev/merged-at": "2026-11-22T12:00:00Z"}}});
        let run = MadeRun::from_object(run).expect("a run");
        super::service_steps("default/hello", task, &run, service, revision).pop().expect("a step")
    }

    fn stamped(commit: &str, percent: u64) -> Value {
        json!({"metadata": {"annotations": {"github-trigger.dev/commit": commit}},
            "spec": {"template": {"spec": {"containers": [{"image": "hello:2"}]}}},
            "status": {"url": "http://hello", "latestCreatedRevisionName": "hello-2", "traffic": [
                {"revisionName": "hello-2", "percent": percent}, {"revisionName": "hello-2", "tag": "t", "url": "http://t"},
                {"revisionName": "hello-1", "percent": 100 - percent}]}})
    }

    fn ready(status: &str, reason: &str) -> Value {
        json!({"status": {"conditions": [{"type": "Ready", "status": status, "reason": reason, "message": "m"}]}})
    }

    #[test]
    fn the_road_ends_with_the_users() {
        let (all, some, none, ready_now) =
            (stamped(COMMIT, 100), stamped(COMMIT, 10), stamped(COMMIT, 0), ready("True", ""));
        let at = |time: &str| {
            let mut other = stamped("0b", 100);
            other["metadata"]["annotations"]["github-trigger.dev/merged-at"] = time.into();
            other
        };
        let mut taken_back = stamped("", 100);
        taken_back["status"]["latestCreatedRevisionName"] = "hello-3".into();
        let mut unready = all.clone();
        unready["status"]["conditions"] = ready("False", "IngressNotConfigured")["status"]["conditions"].clone();
        for (step, place, state, text) in [
            (last(None, "deployed", None), "service", State::Wrong, "no Service default/hello"),
            (last(Some(&at("2026-11-22T13:00:00Z")), "deployed", None), "service", State::Ended, "from the commit 0b"),
            (last(Some(&at("2026-11-22T11:00:00Z")), "deployed", None), "service", State::Wrong, "from the commit 0b"),
            (last(Some(&stamped("0b", 100)), "deployed", None), "service", State::Ended, "from the commit 0b"),
            (last(Some(&all), "superseded", None), "service", State::Ended, "not from this one"),
            (last(Some(&taken_back), "deployed", Some(&ready_now)), "service", State::Wrong, "has no stamp"),
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
            (last(Some(&unready), "deployed", Some(&ready_now)), "traffic", State::Wrong, "IngressNotConfigured"),
            (last(Some(&some), "deployed", Some(&ready_now)), "traffic", State::Waiting, "10 % of the users"),
            (last(Some(&none), "deployed", Some(&ready_now)), "traffic", State::Ended, "kept on hello-1"),
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
        // What checks has the same param.
        let check = |outcome: &str| {
            json!({"spec": {"params": [{"name": "service-name", "value": "hello"}]},
                "status": {"results": [{"name": "outcome", "value": outcome}, {"name": "revision", "value": "hello-3"}]}})
        };
        let [needed, superseded] = [check("needed"), check("superseded")];
        assert_eq!(DeployTask::find(&[needed.clone(), tasks[1].clone()]), Some(task.clone()));
        assert_eq!(DeployTask::find(&[needed]), None);
        let superseded = DeployTask::find(&[superseded]).expect("a task");
        // There is nothing of its own to go back to.
        assert_eq!((superseded.outcome.as_str(), superseded.revision.as_str()), ("superseded", ""));
        let advice = |task: &DeployTask| last_after(task, Some(&stamped("0b", 100)), None).advice.unwrap_or_default();
        assert_eq!(advice(&superseded), "nothing: the newest merge wins");
        assert!(advice(&task).contains("--rollback --to hello-2"));
        assert_eq!((task.service.as_str(), task.namespace.as_str()), ("hello", "web"));
        assert_eq!((task.outcome.as_str(), task.revision.as_str()), ("deployed", "hello-2"));
        assert_eq!(DeployTask::find(&tasks[..1]), None);
    }
}
