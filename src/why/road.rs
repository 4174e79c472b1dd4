//! The walk along the road: asks GitHub and the cluster, and tells each place.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::Value;

use super::github::{delivered, merged, webhook};
use super::{About, State, Step};
use crate::delivery::{Delivery, saved};
use crate::github::api::{Api, ApiError as GitHubError, Attempt, Repository, RepositoryName};
use crate::github::{Commit, Event};
use crate::kube::Cluster;
use crate::recover::{Access, choose_hook, find_delivery};
use crate::team::Team;
use crate::template::{Decision, Stamp, TeamTemplates};

/// What is asked about, and what to look at.
pub(crate) struct Question {
    /// The merge.
    pub(crate) target: Target,
    /// The repository of a commit.
    pub(crate) repository: Option<RepositoryName>,
    /// URL of the webhook; `None` for the only one.
    pub(crate) hook_url: Option<String>,
    /// A team and its templates.
    pub(crate) templates: Option<(Team, TeamTemplates)>,
    /// A saved delivery of the merge.
    pub(crate) delivery: Option<Delivery>,
    /// The Knative Service; `None` for that of the run's deploy task.
    pub(crate) service_name: Option<String>,
    /// Its namespace; `None` for that of the run's deploy task.
    pub(crate) service_namespace: Option<String>,
    /// GitHub's API.
    pub(crate) github: Result<Api, Unasked>,
    /// The cluster, and the namespace that it is for.
    pub(crate) cluster: Result<(Cluster, String), Unasked>,
    /// The namespace of the runs; `None` for all.
    pub(crate) namespace: Option<String>,
}

/// Why something is not asked.
#[derive(Debug, Clone)]
pub(crate) struct Unasked {
    /// In a sentence.
    pub(crate) why: String,
    /// Whether it should have been.
    pub(crate) is_fault: bool,
}

impl Unasked {
    pub(super) fn step(&self, place: &'static str) -> Step {
        if self.is_fault { Step::unanswered(place, &self.why) } else { Step::unknown(place, &self.why) }
    }
}

/// A merge.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A pull request.
    PullRequest(RepositoryName, u64),
    /// The first digits of a merge commit, at least eight.
    Commit(String),
}

/// Tells the road of a merge, as far as it goes.
pub(crate) async fn told(question: Question) -> Vec<Step> {
    let mut road = Road::new(question);
    road.walk().await;
    road.steps
}

/// What is known of a merge, and what was told.
pub(super) struct Road {
    hook_url: Option<String>,
    templates: Option<(Team, TeamTemplates)>,
    pub(super) service: (Option<String>, Option<String>),
    pub(super) cluster: Result<(Cluster, String), Unasked>,
    /// The namespace that was asked for.
    pub(super) namespace: Option<String>,
    /// Taken when GitHub is asked.
    github: Option<Result<Api, Unasked>>,
    pub(super) steps: Vec<Step>,
    pub(super) repository: Option<RepositoryName>,
    /// Its name in the question, which may be an earlier one.
    pub(super) asked: Option<RepositoryName>,
    pub(super) number: Option<u64>,
    /// The merge commit, or its first digits.
    pub(super) commit: String,
    delivery: Option<Delivery>,
    /// `namespace/name` of the runs that there should be.
    pub(super) expected: BTreeSet<(String, String)>,
    /// Those that an answer names which says that others are missing.
    pub(super) made_of_some: BTreeSet<(String, String)>,
    /// What advice is about, once GitHub has told it.
    pub(super) about: Option<About>,
}

impl Road {
    fn new(question: Question) -> Self {
        let (repository, number, commit) = match question.target {
            Target::PullRequest(repository, number) => (Some(repository), Some(number), String::new()),
            Target::Commit(commit) => (question.repository, None, commit),
        };
        Self {
            hook_url: question.hook_url,
            templates: question.templates,
            service: (question.service_name, question.service_namespace),
            cluster: question.cluster,
            namespace: question.namespace,
            github: Some(question.github),
            steps: Vec::new(),
            asked: repository.clone(),
            repository,
            number,
            commit,
            delivery: question.delivery,
            expected: BTreeSet::new(),
            made_of_some: BTreeSet::new(),
            about: None,
        }
    }

    pub(super) fn add(&mut self, step: Step) {
        self.steps.push(step);
    }

    async fn walk(&mut self) {
        // A run knows the repository and the number of a commit.
        if self.number.is_none()
            && let Some(run) = self.runs().await.first()
        {
            self.repository = self.repository.take().or(RepositoryName::parse(run.annotation("repository")));
            let page = run.annotation("pull-request-url");
            self.number = page.rsplit_once("/pull/").and_then(|(_, number)| number.parse().ok());
        }
        match (self.github.take(), self.repository.clone()) {
            (Some(Err(unasked)), _) => self.add(unasked.step("merge")),
            (Some(Ok(mut api)), Some(repository)) => {
                if !self.told_github(&mut api, &repository).await {
                    return;
                }
            }
            _ => {
                let message = "no run has this commit, so that its repository is not known: give --repository";
                self.add(Step::unknown("merge", message));
            }
        }
        let runs = self.runs().await;
        self.told_template(runs.first().map(|run| run.namespace.clone()));
        self.told_runs(runs).await;
    }

    /// Tells what GitHub says. Returns whether there is a merge.
    async fn told_github(&mut self, api: &mut Api, name: &RepositoryName) -> bool {
        // Takes an App's token, too.
        let access = Access { redelivers: false, statuses: false };
        let hook = choose_hook(api, &name.into(), self.hook_url.as_deref(), access).await;
        let asked = self.pull_request(api, name).await;
        let (repository, pull) = match asked {
            Ok(Some(found)) => found,
            Ok(None) => return false,
            Err(error) => {
                let error = match hook {
                    // Without its token, an App can read nothing.
                    Err(first) if api.is_app() => first.to_string(),
                    _ => error.to_string(),
                };
                self.add(Step::unanswered("merge", error));
                return true;
            }
        };
        let number = self.number.unwrap_or_default();
        let step = merged(&format!("{}#{number}", repository.name.as_str()), &pull);
        let is_merged = step.state == State::Ok;
        self.add(step);
        if !is_merged {
            return false;
        }
        pull["merge_commit_sha"].as_str().unwrap_or_default().clone_into(&mut self.commit);
        self.repository = Some(repository.name.clone());
        let from_api = saved::from_api(&pull, saved::NIL_ID);
        self.delivery = self.delivery.take().or(from_api);
        let merged_at: Timestamp = pull["merged_at"].as_str().and_then(|time| time.parse().ok()).unwrap_or_default();
        let hours = Timestamp::now().duration_since(merged_at).as_hours().max(0);
        let about = About {
            repository: repository.name.as_str().to_owned(),
            number,
            hours,
            hook_url: self.hook_url.clone(),
            api_url: api.other_address(),
        };
        self.about = Some(about.clone());
        match hook {
            Err(error) => self.add(Step::unanswered("webhook", error.to_string())),
            Ok(None) => self.add(webhook(&about, None)),
            Ok(Some(hook)) => {
                self.add(webhook(&about, Some(&hook)));
                match find_delivery(api, &hook, repository.id, number, merged_at).await {
                    Err(error) => self.add(Step::unanswered("delivery", error.to_string())),
                    Ok(None) => self.add(delivered(&about, None, &Value::Null)),
                    Ok(Some((attempt, detail))) => {
                        let answer = detail["response"]["payload"].as_str().unwrap_or_default();
                        let answer: Value = serde_json::from_str(answer).unwrap_or_default();
                        self.note_runs(&attempt, &answer);
                        self.add(delivered(&about, Some(&attempt), &answer));
                        // What was really sent decides, not what the pull request is now.
                        self.delivery = saved::from_api(&detail, saved::NIL_ID).or(self.delivery.take());
                    }
                }
            }
        }
        true
    }

    /// The repository and the pull request; `None` if there is none, which is told.
    async fn pull_request(
        &mut self,
        api: &mut Api,
        name: &RepositoryName,
    ) -> Result<Option<(Repository, Value)>, GitHubError> {
        let repository = Repository::read(api, name).await?;
        if self.number.is_none() {
            let Some(commit) = Commit::parse(&self.commit) else {
                self.add(Step::unknown("merge", "GitHub needs all digits of a commit that has no run"));
                return Ok(None);
            };
            let numbers = repository.pull_requests_of(api, &commit).await?;
            let Some(number) = numbers.first() else {
                let message = format!("{commit} is the merge commit of no pull request of {}", name.as_str());
                let advice = "only merges are built by default; a template for other events says so with on-event";
                self.add(Step::with(State::Ended, "merge", message, advice));
                return Ok(None);
            };
            self.number = Some(*number);
        }
        let pull = repository.pull_request(api, self.number.unwrap_or_default()).await?;
        Ok(Some((repository, pull)))
    }

    /// Notes the runs that an answer of the service names: all, or those that there are although others are missing.
    fn note_runs(&mut self, attempt: &Attempt, answer: &Value) {
        let runs = answer["pipelineRuns"].as_array().into_iter().flatten();
        let reference = |run: &Value| Some((run["namespace"].as_str()?.to_owned(), run["name"].as_str()?.to_owned()));
        let noted = if attempt.is_accepted() { &mut self.expected } else { &mut self.made_of_some };
        noted.extend(runs.filter_map(reference));
    }

    /// Tells which templates are for the merge.
    fn told_template(&mut self, namespace: Option<String>) {
        let Some((team, templates)) = self.templates.take() else {
            self.add(Step::unknown("template", "the templates are not looked at: give --trigger-config"));
            return;
        };
        let event = self.delivery.clone().map(Event::parse);
        let mut event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                self.add(Step::unknown("template", format!("the event cannot be read: {error}")));
                return;
            }
            None => {
                self.add(Step::unknown("template", "no payload: give --payload, or a credential of GitHub's"));
                return;
            }
        };
        event.team = team;
        // The service's own namespace, which a template without one takes: where its answer or its runs are.
        let known = self.namespace.clone().or_else(|| self.expected.first().map(|(namespace, _)| namespace.clone()));
        let of_cluster = || self.cluster.as_ref().map_or("default", |(_, namespace)| namespace.as_str()).to_owned();
        let default = known.or(namespace).unwrap_or_else(of_cluster);
        let is_answered = !self.expected.is_empty();
        match templates.set.decide(&event, Stamp { namespace: templates.namespace(&default) }) {
            Decision::Ignore(ignored) => self.add(Step::with(
                State::Ended,
                "template",
                ignored.detail(),
                "if it should be built, change the template's conditions, then press *Redeliver* on GitHub",
            )),
            Decision::Render(outcomes) => {
                for outcome in outcomes {
                    let step = match outcome {
                        Ok(run) => {
                            let text = format!("makes {}/{}", run.namespace, run.name);
                            // What the service has answered is the truth.
                            if !is_answered {
                                self.expected.insert((run.namespace, run.name));
                            }
                            Step::ok("template", text)
                        }
                        Err(error) => Step::with(
                            State::Wrong,
                            "template",
                            error.to_string(),
                            "mend the template: github-trigger lint",
                        ),
                    };
                    self.add(step);
                }
                self.templates_have_changed();
            }
        }
    }

    /// After a delivery that was ignored, and templates that are for it now.
    fn templates_have_changed(&mut self) {
        let is_ignored = |step: &&mut Step| step.place == "delivery" && step.state == State::Ended;
        let again = self.about.as_ref().map(About::build_again);
        for step in self.steps.iter_mut().filter(is_ignored) {
            step.advice = again.as_ref().map(|again| format!("the templates are for it now: {again}"));
        }
    }
}
