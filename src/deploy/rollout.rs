//! The loop of a rollout: decide, write and wait, until the current state is the desired one.

use std::error::Error;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::decision::{Change, Desired, Plan, PlanError, Wait, decide};
use super::progress::{Progress, progress};
use super::service::Service;

/// Interval between two reads of a Service that changes.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Interval of log lines while nothing changes, so that a log shows that the command still waits.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// How long a write is repeated while the API server does not answer or others change the Service; a restart takes less.
const API_OUTAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads and writes one Knative Service.
pub(crate) trait ServiceClient {
    /// Reads the Service; `None` if it does not exist.
    async fn read(&self) -> Result<Option<Service>, ServiceError>;

    /// Creates the Service.
    async fn create(&self, service: &Value) -> Result<Service, ServiceError>;

    /// Applies a JSON merge patch, which holds the `resourceVersion` that it is for.
    async fn patch(&self, patch: &Value) -> Result<Service, ServiceError>;
}

/// Why a Service was not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// The Service has changed since it was read; read it again.
    #[error("the Service was changed at the same moment")]
    Conflict,
    /// The API server does not answer, or asks for a later try.
    #[error("the API server does not answer: {0}")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The API server refuses the request for good.
    #[error("{message}")]
    Refused {
        /// The refusal and what to do.
        message: String,
        /// The API server's answer.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a rollout failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RolloutError {
    /// The desired state does not fit the current one.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The Service could not be read or written.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// Another deployment wrote another image.
    #[error("another deployment has written another image meanwhile; it is left unchanged")]
    Superseded,
    /// The Service was deleted meanwhile.
    #[error("the Service was deleted meanwhile")]
    Deleted,
    /// Knative reports a failure.
    #[error("{message} ({users})")]
    Failed {
        /// Reason and message of the condition.
        message: String,
        /// Current traffic.
        users: String,
    },
    /// The new revision was not ready in time.
    #[error("not ready in time (--wait-timeout): {waiting} ({users})")]
    Timeout {
        /// What it waited for.
        waiting: String,
        /// Current traffic.
        users: String,
    },
}

/// The last change that was written, for the message of an interrupted rollout.
#[derive(Default)]
pub(crate) struct Journal(Mutex<Option<String>>);

impl Journal {
    fn note(&self, change: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(change.into());
    }

    /// The change in a sentence.
    pub(crate) fn sentence(&self) -> String {
        let change = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        change.unwrap_or_else(|| "nothing was changed".to_owned())
    }
}

/// Brings a Service to its desired state.
pub(crate) struct Rollout<'j, C> {
    client: C,
    desired: Desired,
    deadline: Instant,
    journal: &'j Journal,
}

/// What a rollout has written so far.
#[derive(Default)]
struct Written {
    image: bool,
    /// Since when writes fail.
    failing_since: Option<Instant>,
}

impl<'j, C: ServiceClient> Rollout<'j, C> {
    /// A rollout whose time to wait begins now.
    pub(crate) fn new(client: C, desired: Desired, journal: &'j Journal) -> Self {
        let wait = match desired.wait {
            Wait::No => Duration::ZERO,
            Wait::AtMost(wait) => wait,
        };
        Self { client, desired, deadline: Instant::now() + wait, journal }
    }

    /// Decides, writes and waits until there is nothing left to change. Returns the Service as it is then.
    /// Fails when the desired state is not reached. Users stay on the revisions that were ready.
    pub(crate) async fn run(&self) -> Result<Service, RolloutError> {
        let mut written = Written::default();
        let outage_end = Instant::now() + API_OUTAGE_TIMEOUT;
        loop {
            let current = self.read().await?;
            let plan = match decide(current.as_ref(), &self.desired) {
                Err(PlanError::Unsettled) if Instant::now() < outage_end => {
                    sleep(POLL_INTERVAL).await;
                    continue;
                }
                plan => plan?,
            };
            let answer = match (&plan, current) {
                (Plan::Nothing, Some(current)) => return self.finish(current, &written).await,
                (Plan::Nothing, None) => return Err(RolloutError::Deleted),
                (Plan::Patch { change: Change::Revision, .. }, _) if written.image => {
                    return Err(RolloutError::Superseded);
                }
                (Plan::Patch { change: Change::Traffic, .. }, Some(current))
                    if self.waits() && !current.latest_is_ready() =>
                {
                    // No traffic goes to a revision that is not ready. A route that is not may just need this change.
                    written.failing_since = None;
                    self.wait_for(current).await?;
                    continue;
                }
                (Plan::Create(service), _) => self.client.create(service).await,
                (Plan::Patch { patch, .. }, _) => self.client.patch(patch).await,
            };
            let Some(service) = self.written(answer, &mut written).await? else { continue };
            self.log_change(&plan);
            if !self.waits() {
                return Ok(service);
            }
            self.wait_for(service).await?;
        }
    }

    /// Handles the answer to a write; `None` if the Service has to be read again first.
    async fn written(
        &self,
        answer: Result<Service, ServiceError>,
        written: &mut Written,
    ) -> Result<Option<Service>, RolloutError> {
        let since = *written.failing_since.get_or_insert_with(Instant::now);
        let may_repeat = since.elapsed() < API_OUTAGE_TIMEOUT;
        match answer {
            Ok(service) => {
                written.image = true;
                written.failing_since = None;
                Ok(Some(service))
            }
            Err(ServiceError::Conflict) if may_repeat => {
                sleep(Duration::from_millis(20 + fastrand::u64(..100))).await;
                Ok(None)
            }
            // Reading the Service again shows whether it was written.
            Err(error @ ServiceError::Unavailable(_)) if may_repeat => {
                self.journal.note(format!("a change of the Service {} was sent and not answered", self.desired.name));
                tracing::warn!(error = %error, "retrying");
                sleep(POLL_INTERVAL).await;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn log_change(&self, plan: &Plan) {
        let change = match plan {
            Plan::Create(_) => "was created with the image",
            Plan::Patch { change: Change::Revision, .. } => "has the new image; users stay on ready revisions",
            _ => "has its new traffic",
        };
        let Desired { name, namespace, image, .. } = &self.desired;
        self.journal.note(format!("the Service {name} {change}; kubectl get ksvc {name} shows its progress"));
        tracing::info!(namespace, image = %image, "the Service {name} {change}");
    }

    /// A Service that needs no change may still be rolling out, or may have failed to.
    async fn finish(&self, current: Service, written: &Written) -> Result<Service, RolloutError> {
        if !written.image {
            tracing::info!(service = self.desired.name, image = %self.desired.image, "nothing to change");
        }
        let is_ready = progress(&current, current.metadata.generation) == Progress::Ready;
        if !self.waits() || current.status.is_none() || is_ready {
            return Ok(current);
        }
        self.wait_for(current).await
    }

    /// Waits until a written change has taken effect.
    async fn wait_for(&self, written: Service) -> Result<Service, RolloutError> {
        let generation = written.metadata.generation;
        let mut logged = String::new();
        let mut logged_at = Instant::now();
        loop {
            let service = self.read().await?.ok_or(RolloutError::Deleted)?;
            let users = service.users();
            let waiting = match progress(&service, generation) {
                Progress::Ready => return Ok(service),
                Progress::Failed(message) => return Err(RolloutError::Failed { message, users }),
                Progress::Waiting(waiting) => waiting,
            };
            if Instant::now() >= self.deadline {
                return Err(RolloutError::Timeout { waiting, users });
            }
            if waiting != logged || logged_at.elapsed() >= LOG_INTERVAL {
                tracing::info!("{waiting}");
                logged = waiting;
                logged_at = Instant::now();
            }
            sleep(POLL_INTERVAL.min(self.deadline - Instant::now())).await;
        }
    }

    /// Reads the Service, again and again while the API server does not answer.
    async fn read(&self) -> Result<Option<Service>, ServiceError> {
        let outage_end = Instant::now() + API_OUTAGE_TIMEOUT;
        loop {
            match self.client.read().await {
                Err(error @ ServiceError::Unavailable(_)) if Instant::now() < outage_end => {
                    tracing::warn!(error = %error, "retrying");
                    sleep(POLL_INTERVAL).await;
                }
                answer => return answer,
            }
        }
    }

    fn waits(&self) -> bool {
        self.desired.wait != Wait::No
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use serde_json::json;

    use super::*;
    use crate::deploy::TrafficMode;

    /// A Service that follows a script: each write is answered by the next answer, each read shows the current state.
    #[derive(Default)]
    struct Fake {
        service: RefCell<Option<Value>>,
        answers: RefCell<VecDeque<ServiceError>>,
        writes: RefCell<Vec<Value>>,
        /// Whether revisions become ready at the read after their write.
        becomes_ready: bool,
    }

    impl Fake {
        fn write(&self, service: Value) -> Result<Service, ServiceError> {
            self.writes.borrow_mut().push(service.clone());
            if let Some(error) = self.answers.borrow_mut().pop_front() {
                return Err(error);
            }
            *self.service.borrow_mut() = Some(service.clone());
            Ok(serde_json::from_value(service).expect("a Service"))
        }
    }

    impl ServiceClient for &Fake {
        async fn read(&self) -> Result<Option<Service>, ServiceError> {
            let mut service = self.service.borrow_mut();
            let Some(service) = service.as_mut() else { return Ok(None) };
            let read = serde_json::from_value(service.clone()).expect("a Service");
            if self.becomes_ready {
                service["status"] = json!({
                    "observedGeneration": service["metadata"]["generation"],
                    "latestCreatedRevisionName": "web-1", "latestReadyRevisionName": "web-1",
                    "traffic": [{"revisionName": "web-1", "percent": 100}],
                    "conditions": [{"type": "Ready", "status": "True"}],
                });
            }
            Ok(Some(read))
        }

        async fn create(&self, service: &Value) -> Result<Service, ServiceError> {
            let mut service = service.clone();
            service["metadata"]["generation"] = 1.into();
            service["metadata"]["resourceVersion"] = "1".into();
            self.write(service)
        }

        async fn patch(&self, patch: &Value) -> Result<Service, ServiceError> {
            let mut service = self.service.borrow().clone().expect("a Service");
            service["spec"]["template"] = patch["spec"]["template"].clone();
            service["metadata"]["generation"] = (service["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
            self.write(service)
        }
    }

    fn desired(image: &str, wait: Wait) -> Desired {
        Desired {
            name: "web".into(),
            namespace: "default".into(),
            image: image.parse().expect("an image"),
            container: None,
            port: None,
            traffic: TrafficMode::Keep,
            wait,
        }
    }

    async fn roll_out(fake: &Fake, image: &str, wait: Wait) -> Result<Service, RolloutError> {
        Rollout::new(fake, desired(image, wait), &Journal::default()).run().await
    }

    const MINUTE: Wait = Wait::AtMost(Duration::from_secs(60));

    #[tokio::test(start_paused = true)]
    async fn creates_and_waits_until_ready() {
        let fake = Fake { becomes_ready: true, ..Fake::default() };
        let service = roll_out(&fake, "web:1", MINUTE).await.expect("a Service");
        assert_eq!(service.latest_created(), Some("web-1"));
        assert_eq!(fake.writes.borrow().len(), 1);
        roll_out(&fake, "web:1", MINUTE).await.expect("the same Service");
        assert_eq!(fake.writes.borrow().len(), 1, "nothing to change");
        roll_out(&fake, "web:2", MINUTE).await.expect("a Service");
        assert_eq!(fake.writes.borrow().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn times_out_while_the_revision_is_not_ready() {
        let fake = Fake::default();
        let begun = Instant::now();
        let error = roll_out(&fake, "web:1", MINUTE).await.expect_err("a timeout");
        assert!(matches!(error, RolloutError::Timeout { .. }), "{error}");
        assert_eq!(begun.elapsed(), Duration::from_secs(60));
        roll_out(&Fake::default(), "web:1", Wait::No).await.expect("no wait");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_conflicts_and_outages_but_not_refusals() {
        let unavailable = || ServiceError::Unavailable("away".into());
        let fake = Fake { becomes_ready: true, ..Fake::default() };
        *fake.answers.borrow_mut() = [ServiceError::Conflict, unavailable(), ServiceError::Conflict].into();
        roll_out(&fake, "web:1", MINUTE).await.expect("a Service");
        assert_eq!(fake.writes.borrow().len(), 4);
        let refused = ServiceError::Refused { message: "no right".into(), source: "403".into() };
        *fake.answers.borrow_mut() = [refused].into();
        let error = roll_out(&fake, "web:2", MINUTE).await.expect_err("a refusal");
        assert_eq!(error.to_string(), "no right");
        *fake.answers.borrow_mut() = (0..200).map(|_| ServiceError::Conflict).collect();
        roll_out(&fake, "web:3", MINUTE).await.expect("a Service that others change all the time");
        *fake.answers.borrow_mut() = (0..1000).map(|_| unavailable()).collect();
        let begun = Instant::now();
        let error = roll_out(&fake, "web:2", MINUTE).await.expect_err("an outage");
        assert!(error.to_string().contains("does not answer: away"), "{error}");
        assert_eq!(begun.elapsed(), API_OUTAGE_TIMEOUT);
    }
}
