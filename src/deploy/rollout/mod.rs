//! The loop of a rollout: decide, write and wait, until the current state is the desired one.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::client::{ServiceClient, ServiceError};
use super::decision::{
    Change, Desired, Plan, PlanError, TrafficMode, Wait, decide, is_superseded, rollback_target, undo_rollback,
};
use super::image::Image;
use super::outcome::{Finished, Journal, Outcome, RolloutError};
use super::progress::{Progress, progress, rollback_progress};
use super::service::Service;
use super::stamp::Age;

/// Interval between two reads of a Service that changes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Interval of log lines while nothing changes, so that a log shows that the command still waits.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// How long a write is repeated while the API server does not answer or others change the Service; a restart takes less.
const API_OUTAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Conflicts that last for so long are said.
const CONFLICT_WARNING: Duration = Duration::from_secs(5);

/// Brings a Service to its desired state.
pub(crate) struct Rollout<'j, C> {
    client: C,
    desired: Desired,
    deadline: Instant,
    failure_window: Duration,
    journal: &'j Journal,
}

/// Whether Serving has given up, so that waiting is of no use.
fn is_final(message: &str) -> bool {
    message.contains("ProgressDeadlineExceeded") || message.contains("Initial scale was never achieved")
}

/// What a rollout has written so far.
#[derive(Default)]
struct Written {
    anything: bool,
    image: bool,
    /// Since when writes fail.
    failing_since: Option<Instant>,
    /// Since when the Service is not settled.
    unsettled_since: Option<Instant>,
    /// Whether a write may have been done without an answer.
    unanswered: bool,
    /// Whether it was said that others change the Service.
    conflicts_are_told: bool,
}

impl<'j, C: ServiceClient> Rollout<'j, C> {
    /// A rollout whose time to wait begins now. A condition must be false for `failure_window` to count as a failure.
    pub(crate) fn new(client: C, desired: Desired, failure_window: Duration, journal: &'j Journal) -> Self {
        let wait = match desired.wait {
            Wait::No => Duration::ZERO,
            Wait::AtMost(wait) => wait,
        };
        Self { client, desired, deadline: Instant::now() + wait, failure_window, journal }
    }

    /// Decides, writes and waits until there is nothing left to change.
    /// Fails when the desired state is not reached. Users stay on the revisions that were ready.
    pub(crate) async fn run(self) -> Result<Finished, RolloutError> {
        let mut desired = self.desired.clone();
        let mut written = Written::default();
        let mut previous = None;
        let mut before = None;
        loop {
            let current = self.read_again(&mut written).await?;
            if !written.anything {
                before.clone_from(&current);
                previous = current.as_ref().and_then(|current| current.revision_with_all_users().map(str::to_owned));
            }
            if let TrafficMode::Rollback { to: to @ None, .. } = &mut desired.traffic {
                // Our own change records another one.
                *to = current.as_ref().and_then(rollback_target);
            }
            let plan = match decide(current.as_ref(), &desired) {
                Err(PlanError::Unsettled)
                    if written.unsettled_since.get_or_insert_with(Instant::now).elapsed() < API_OUTAGE_TIMEOUT =>
                {
                    sleep(POLL_INTERVAL).await;
                    continue;
                }
                plan => plan?,
            };
            written.unsettled_since = None;
            let answer = match (&plan, current) {
                (Plan::Superseded(newer), Some(service)) => return Ok(self.superseded(newer, service, previous)),
                (Plan::Nothing, Some(current)) => {
                    if !written.anything {
                        tracing::info!(service = self.desired.name, "nothing to change");
                    }
                    let Some(service) = self.settled(current, &desired).await? else { continue };
                    // What was written without an answer is ours.
                    let is_ours = written.anything || written.unanswered;
                    let outcome = if is_ours { self.outcome() } else { Outcome::Unchanged };
                    return Ok(Finished { outcome, service, previous });
                }
                (Plan::Nothing | Plan::Superseded(_), None) => return Err(RolloutError::Deleted),
                (Plan::Patch { change: Change::Revision, .. }, Some(current)) if written.image => {
                    // Another deployment has written its image meanwhile; without stamps, the later one stays.
                    let deployed = current.stamp();
                    let is_other = deployed.commit.is_some() && deployed.commit != desired.stamp.commit;
                    let newer = if is_other { deployed.words() } else { "another image".to_owned() };
                    return Ok(self.superseded(&newer, current, previous));
                }
                (Plan::Patch { change: Change::Traffic, .. }, Some(current))
                    if self.waits() && desired.image.is_some() && !current.latest_is_ready() =>
                {
                    // No traffic goes to a revision that is not ready. A route that is not may just need this change.
                    written.failing_since = None;
                    self.wait_for(current, &desired).await?;
                    continue;
                }
                (Plan::Patch { patch, .. }, Some(current)) => {
                    if desired.stamp.age_of(&current.stamp()) == Age::Unclear {
                        tracing::warn!(
                            "another commit with the same time of merge is deployed ({}); it is replaced, use --order to \
                             decide",
                            current.stamp().words()
                        );
                    }
                    self.journal.send(self.unanswered());
                    self.client.patch(patch).await
                }
                (Plan::Create(service), _) => {
                    self.journal.send(self.unanswered());
                    self.client.create(service).await
                }
                (Plan::Patch { .. }, None) => return Err(RolloutError::Deleted),
            };
            let Some(service) = self.written(answer, &mut written).await? else { continue };
            written.image |= matches!(plan, Plan::Create(_) | Plan::Patch { change: Change::Revision, .. });
            // From now on the Service has our stamp, and the revision of this attempt.
            desired.force = false;
            desired.attempt = None;
            self.log_change(&plan);
            if let (Plan::Create(_), TrafficMode::NoTraffic { .. } | TrafficMode::Canary { .. }) =
                (&plan, &desired.traffic)
            {
                tracing::warn!("the Service is new: its first revision gets all users");
            }
            if !self.waits() {
                return Ok(Finished { outcome: self.outcome(), service, previous });
            }
            let generation = service.metadata.generation;
            match (self.wait_for(service, &desired).await, &before) {
                (Err(error @ (RolloutError::Failed { .. } | RolloutError::Timeout { .. })), Some(before))
                    if self.desired.image.is_none() =>
                {
                    return Err(self.undo(before, generation, error).await);
                }
                (waited, _) => drop(waited?),
            }
        }
    }

    /// Puts the traffic back where it was before a rollback that failed, unless somebody has changed the Service since
    /// `generation`, which the rollback made.
    async fn undo(&self, before: &Service, generation: i64, error: RolloutError) -> RolloutError {
        let mut written = Written::default();
        loop {
            let current = match self.read_again(&mut written).await {
                Ok(Some(current)) if current.metadata.generation == generation => current,
                Ok(_) => return error,
                Err(error) => return error.into(),
            };
            self.journal.send(self.unanswered());
            let answer = self.client.patch(&undo_rollback(&current, before)).await;
            match self.written(answer, &mut written).await {
                Ok(Some(_)) => return RolloutError::Undone(Box::new(error)),
                Ok(None) => {}
                Err(error) => return error,
            }
        }
    }

    fn outcome(&self) -> Outcome {
        if self.desired.image.is_some() { Outcome::Deployed } else { Outcome::RolledBack }
    }

    fn superseded(&self, newer: &str, service: Service, previous: Option<String>) -> Finished {
        let (name, ours) = (&self.desired.name, self.desired.stamp.words());
        let outcome = Outcome::Superseded;
        let how = match self.desired.stamp.is_superseded_by(&service.stamp()) {
            true => format!("and is newer than {ours}"),
            // By force, or of the same time.
            false => "was deployed meanwhile".to_owned(),
        };
        tracing::info!(
            outcome = outcome.as_str(),
            "{newer} is deployed to the Service {name}, {how}; it is left as it is"
        );
        Finished { outcome, service, previous }
    }

    /// Handles the answer to a write; `None` if the Service has to be read again first.
    async fn written(
        &self,
        answer: Result<Service, ServiceError>,
        written: &mut Written,
    ) -> Result<Option<Service>, RolloutError> {
        let since = *written.failing_since.get_or_insert_with(Instant::now);
        let may_repeat = since.elapsed() < API_OUTAGE_TIMEOUT;
        self.journal.answered();
        match answer {
            Ok(service) => {
                written.anything = true;
                written.failing_since = None;
                Ok(Some(service))
            }
            Err(ServiceError::Conflict) if may_repeat => {
                if since.elapsed() >= CONFLICT_WARNING && !written.conflicts_are_told {
                    written.conflicts_are_told = true;
                    tracing::warn!(
                        "others change the Service {} all the time, which keeps this change from it: does something else, such \
                         as Argo CD or Flux, manage it? (kubectl -n {} get ksvc {} --show-managed-fields -o yaml)",
                        self.desired.name,
                        self.desired.namespace,
                        self.desired.name
                    );
                }
                sleep(Duration::from_millis(20 + fastrand::u64(..100))).await;
                Ok(None)
            }
            // Reading the Service again shows whether it was written.
            Err(error @ ServiceError::Unavailable(_)) if may_repeat => {
                written.unanswered = true;
                self.journal.note(self.unanswered());
                tracing::warn!(error = %error, "retrying");
                sleep(POLL_INTERVAL).await;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn unanswered(&self) -> String {
        format!("a change of the Service {} was sent and not answered", self.desired.name)
    }

    fn log_change(&self, plan: &Plan) {
        let change = match plan {
            Plan::Create(_) => "was created with the image",
            Plan::Patch { change: Change::Revision, patch } => {
                let image = self.desired.image.as_ref();
                if patch.pointer("/spec/template/metadata/annotations/github-trigger.dev~1attempt").is_some() {
                    if image.is_some_and(Image::is_moving) {
                        tracing::warn!(
                            "the image has a tag that moves, so that a new revision is made each time; a digest (@sha256:...) \
                             says which image runs"
                        );
                    }
                    "gets a new revision of the same image; users stay on ready revisions"
                } else {
                    "has the new image; users stay on ready revisions"
                }
            }
            Plan::Patch { change: Change::Stamp, .. } => "has its new stamp; the image runs already",
            _ => "has its new traffic",
        };
        let Desired { name, namespace, image, .. } = &self.desired;
        self.journal
            .note(format!("the Service {name} {change}; kubectl -n {namespace} get ksvc {name} shows its progress"));
        let image = image.as_ref().map(tracing::field::display);
        tracing::info!(namespace, image, "the Service {name} {change}");
    }

    /// The command that shows why the newest revision is not ready. Serving's conditions often do not say it: on a Service
    /// that worked before, an image that is missing by its digest, a container that exits and one that may not run as root
    /// leave all conditions `Unknown` until the progress deadline (seen with Serving 0.47).
    fn look_at_pods(&self, service: &Service) -> String {
        let Desired { name, namespace, .. } = &self.desired;
        let label = match service.latest_created() {
            Some(revision) => format!("revision={revision}"),
            None => format!("service={name}"),
        };
        format!("kubectl -n {namespace} describe pods -l serving.knative.dev/{label}")
    }

    /// A Service that needs no change, once it is ready: it may still be rolling out, or may have failed to.
    /// Returns `None` if something newer was written meanwhile.
    async fn settled(&self, current: Service, desired: &Desired) -> Result<Option<Service>, RolloutError> {
        let is_ready = self.progress(&current, current.metadata.generation, desired) == Progress::Ready;
        if !self.waits() || is_ready {
            return Ok(Some(current));
        }
        self.wait_for(current, desired).await
    }

    fn progress(&self, service: &Service, generation: i64, desired: &Desired) -> Progress {
        match &desired.traffic {
            TrafficMode::Rollback { to: Some(target), .. } => rollback_progress(service, generation, target),
            _ => progress(service, generation),
        }
    }

    /// Waits until a written change has taken effect. Returns `None` if something newer was written meanwhile.
    async fn wait_for(&self, written: Service, desired: &Desired) -> Result<Option<Service>, RolloutError> {
        let generation = written.metadata.generation;
        let mut logged = String::new();
        let mut logged_at = Instant::now();
        let mut failing: Option<Instant> = None;
        loop {
            let service = self.read().await?.ok_or(RolloutError::Deleted)?;
            if is_superseded(&service, desired) {
                return Ok(None);
            }
            let users = service.users();
            let (waiting, failed) = match self.progress(&service, generation, desired) {
                Progress::Ready => return Ok(Some(service)),
                Progress::Failed(message) => {
                    let since = *failing.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.failure_window || is_final(&message) {
                        return Err(RolloutError::Failed { message, users });
                    }
                    (message, true)
                }
                Progress::Waiting(waiting) => {
                    failing = None;
                    (waiting, false)
                }
            };
            if Instant::now() >= self.deadline {
                // All is well, and takes longer than the wait; the result says how many users there are.
                if service.is_moving_users() {
                    return Ok(Some(service));
                }
                return Err(RolloutError::Timeout { waiting, look: self.look_at_pods(&service), users });
            }
            if waiting != logged || logged_at.elapsed() >= LOG_INTERVAL {
                if failed {
                    tracing::warn!("{waiting}; Knative may still recover, waiting (--failure-window)");
                } else {
                    tracing::info!("{waiting}");
                }
                logged = waiting;
                logged_at = Instant::now();
            }
            sleep(POLL_INTERVAL.min(self.deadline - Instant::now())).await;
        }
    }

    /// Reads the Service, again and again while the API server does not answer.
    async fn read(&self) -> Result<Option<Service>, ServiceError> {
        let outage_end = self.deadline.max(Instant::now() + API_OUTAGE_TIMEOUT);
        let mut logged_at: Option<Instant> = None;
        loop {
            match self.client.read().await {
                Err(error @ ServiceError::Unavailable(_)) if Instant::now() < outage_end => {
                    if logged_at.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
                        tracing::warn!(error = %error, "retrying");
                        logged_at = Some(Instant::now());
                    }
                    sleep(POLL_INTERVAL).await;
                }
                answer => return answer,
            }
        }
    }

    /// Reads the Service before a write. The time that this takes is not held against the writes, nor against the Service.
    async fn read_again(&self, written: &mut Written) -> Result<Option<Service>, ServiceError> {
        let asked = Instant::now();
        let current = self.read().await;
        for since in [&mut written.failing_since, &mut written.unsettled_since] {
            *since = since.map(|since| since + asked.elapsed());
        }
        current
    }

    fn waits(&self) -> bool {
        self.desired.wait != Wait::No
    }
}
