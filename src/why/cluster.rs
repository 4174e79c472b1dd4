//! The part of the road in the cluster: runs, tasks, Service, revision.

use std::collections::BTreeSet;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::road::Road;
use super::run::{MadeRun, run_step, task_steps};
use super::service::{DeployTask, service_steps};
use super::{About, State, Step};
use crate::github::api::RepositoryName;
use crate::kube::{ApiError, ApiErrorKind, Cluster};
use crate::names::{check_dns_label, check_service_name, is_dns_label};

impl Road {
    /// The runs of the merge, newest first. What cannot be read is told.
    pub(super) async fn runs(&mut self) -> Vec<MadeRun> {
        let Ok((cluster, own)) = &self.cluster else { return Vec::new() };
        let (cluster, own) = (cluster.clone(), own.clone());
        let label = match (self.number, self.commit.get(..8)) {
            (_, Some(short)) => format!("github-trigger.dev/commit={short}"),
            (Some(number), None) => format!("github-trigger.dev/pull-request={number}"),
            (None, None) => return Vec::new(),
        };
        self.steps.retain(|step| step.place != "run");
        let mut runs = Vec::new();
        let everywhere = match self.namespace {
            Some(_) => Err(None),
            None => list(&cluster, None, "tekton.dev/v1", "pipelineruns", &label).await.map_err(Some),
        };
        match everywhere {
            Ok(items) => runs.extend(items.into_iter().filter_map(MadeRun::from_object)),
            Err(Some(error)) if error.kind() != ApiErrorKind::Forbidden => {
                self.add(Step::unanswered("run", unreadable("pipelineruns.tekton.dev", None, &error)));
            }
            // Without the right to look everywhere, where they should be.
            Err(_) => {
                let mut namespaces: BTreeSet<String> = self.expected.iter().map(|(name, _)| name.clone()).collect();
                namespaces.insert(self.namespace.clone().unwrap_or(own));
                for namespace in namespaces.into_iter().filter(|namespace| is_dns_label(namespace)) {
                    match list(&cluster, Some(&namespace), "tekton.dev/v1", "pipelineruns", &label).await {
                        Ok(items) => runs.extend(items.into_iter().filter_map(MadeRun::from_object)),
                        Err(error) => {
                            let why = unreadable("pipelineruns.tekton.dev", Some(&namespace), &error);
                            self.add(Step::unanswered("run", why));
                        }
                    }
                }
            }
        }
        let names: Vec<&str> =
            [&self.repository, &self.asked].into_iter().flatten().map(RepositoryName::as_str).collect();
        runs.retain(|run| {
            let repository = run.annotation("repository");
            let is_ours = names.is_empty() || names.iter().any(|name| repository.eq_ignore_ascii_case(name));
            // Another event of the pull request has no time of a merge.
            let is_of_merge = !self.commit.is_empty() || !run.annotation("merged-at").is_empty();
            run.annotation("commit").starts_with(&self.commit) && is_ours && is_of_merge
        });
        // Newest first; of the same second, the repetition.
        let age = |run: &MadeRun| (run.created().to_owned(), run.name.len(), run.name.clone());
        runs.sort_by_cached_key(|run| std::cmp::Reverse(age(run)));
        runs
    }

    /// Tells the runs, and where the newest of each template leads to.
    pub(super) async fn told_runs(&mut self, runs: Vec<MadeRun>) {
        if let Err(unasked) = self.cluster.clone().map(drop) {
            self.add(unasked.step("run"));
            return;
        }
        let missing: Vec<String> = self
            .expected
            .iter()
            .filter(|(namespace, name)| {
                !runs.iter().any(|run| run.namespace == *namespace && run.name.starts_with(name.as_str()))
            })
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect();
        // Delivered again, or by `recover`. Without templates, a run says so that the failed answer did not name.
        let is_complete = match self.expected.is_empty() {
            true => runs.iter().any(|run| !self.made_of_some.contains(&(run.namespace.clone(), run.name.clone()))),
            false => missing.is_empty(),
        };
        if is_complete {
            let is_bad = |step: &&mut Step| matches!(step.state, State::Wrong | State::Ended) && step.advice.is_some();
            // A template that cannot be rendered makes no run at any time.
            let is_broken = |step: &Step| step.place == "template" && step.state == State::Wrong;
            let past = self.steps.iter_mut().filter(is_bad).filter(|step| !is_broken(step));
            past.for_each(|step| step.state = State::Past);
        }
        let is_old = self.about.as_ref().is_some_and(About::is_old);
        let absent = if is_old { State::Unknown } else { State::Wrong };
        let is_unknown = self.steps.iter().any(|step| step.place == "run");
        let ended = self.steps.iter().any(|step| matches!(step.state, State::Wrong | State::Ended));
        if !missing.is_empty() && !is_unknown && !ended {
            self.add(Step::with(
                absent,
                "run",
                format!("{} is not in the cluster: it was deleted, or not created", missing.join(", ")),
                self.about.as_ref().map_or_else(|| "press *Redeliver* on GitHub".to_owned(), About::build_again),
            ));
        } else if runs.is_empty() && !is_unknown && !ended {
            let place = self
                .namespace
                .as_ref()
                .map_or_else(|| "the cluster".to_owned(), |name| format!("the namespace {name}"));
            let log =
                "GitHub's *Recent Deliveries* has the id of its delivery, whose line in the service's log says why";
            let advice = match &self.about {
                Some(about) => format!("{log}; then: {}", about.redeliver()),
                None => format!("{log}; with --github-token-file TOKEN, this command asks GitHub itself"),
            };
            self.add(Step::with(absent, "run", format!("{place} has no run of this merge"), advice));
        }
        let mut told = BTreeSet::new();
        for run in runs {
            // The newest of each template: a repetition is newer than what it repeats.
            if told.insert((run.namespace.clone(), run.annotation("template").to_owned())) {
                self.told_run(&run).await;
            }
        }
    }

    async fn told_run(&mut self, run: &MadeRun) {
        let step = run_step(run);
        let is_done = step.state == State::Ok;
        let Ok((cluster, _)) = &self.cluster else { return };
        let cluster = cluster.clone();
        let label = format!("tekton.dev/pipelineRun={}", run.name);
        let tasks = match list(&cluster, Some(&run.namespace), "tekton.dev/v1", "taskruns", &label).await {
            Ok(tasks) => tasks,
            Err(error) => {
                self.add(step);
                self.add(Step::unanswered("task", unreadable("taskruns.tekton.dev", Some(&run.namespace), &error)));
                return;
            }
        };
        let told = task_steps(run, &tasks);
        // The task knows better what to do than the run.
        let decisive = told.iter().find(|task| task.state == step.state).and_then(|task| task.advice.clone());
        let advice = decisive.map(|advice| match step.state {
            State::Wrong => format!("{advice}; mend it, then: github-trigger rerun {}", run.reference()),
            _ => advice,
        });
        self.add(Step { advice: advice.or(step.advice.clone()), ..step });
        told.into_iter().for_each(|task| self.add(task));
        if !is_done {
            return;
        }
        let found = DeployTask::find(&tasks);
        if found.is_none() && run.skipped().contains(&"deploy") {
            let message = "the run left out its deploy task: no changed path needs a build (on-path)";
            self.add(Step::with(State::Ended, "service", message, "nothing"));
            return;
        }
        self.told_service(&cluster, run, found).await;
    }

    async fn told_service(&mut self, cluster: &Cluster, run: &MadeRun, found: Option<DeployTask>) {
        let mut task = found.unwrap_or_default();
        if let Some(name) = self.service.0.clone() {
            task.service = name;
        }
        if let Some(namespace) = self.service.1.clone() {
            task.namespace = namespace;
        }
        if task.namespace.is_empty() {
            task.namespace.clone_from(&run.namespace);
        }
        if check_service_name("service", &task.service).is_err() || !is_dns_label(&task.namespace) {
            let message = "the run has no task with the param `service-name`: give --service-name";
            self.add(Step::unknown("service", message));
            return;
        }
        let DeployTask { service: name, namespace, .. } = &task;
        let base = format!("/apis/serving.knative.dev/v1/namespaces/{namespace}");
        let service = match cluster.read(&format!("{base}/services/{name}")).await {
            Ok(service) => service,
            Err(error) => {
                self.add(Step::unanswered(
                    "service",
                    unreadable("services.serving.knative.dev", Some(namespace), &error),
                ));
                return;
            }
        };
        let latest = service.as_ref().and_then(|service| service["status"]["latestCreatedRevisionName"].as_str());
        let revision = if task.revision.is_empty() { latest.unwrap_or_default() } else { &task.revision };
        let revision = match check_dns_label("revision", revision) {
            Ok(()) => cluster.read(&format!("{base}/revisions/{revision}")).await,
            Err(_) => Ok(None),
        };
        match revision {
            Ok(revision) => {
                let name = format!("{namespace}/{name}");
                for step in service_steps(&name, &task, run, service.as_ref(), revision.as_ref()) {
                    self.add(step);
                }
            }
            Err(error) => {
                self.add(Step::unanswered(
                    "revision",
                    unreadable("revisions.serving.knative.dev", Some(namespace), &error),
                ));
            }
        }
    }
}

/// Reads the objects with a label, of all namespaces without one.
async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
    group: &str,
    resource: &str,
    label: &str,
) -> Result<Vec<Value>, ApiError> {
    let label = utf8_percent_encode(label, NON_ALPHANUMERIC);
    let place = namespace.map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
    let path = format!("/apis/{group}/{place}{resource}?labelSelector={label}");
    let list = cluster.read(&path).await?.unwrap_or_default();
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

fn unreadable(resource: &str, namespace: Option<&str>, error: &ApiError) -> String {
    let place = namespace.map(|namespace| format!(" in the namespace {namespace}")).unwrap_or_default();
    format!("cannot read {resource}{place}: {error}")
}
