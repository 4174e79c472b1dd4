use std::cell::RefCell;
use std::collections::VecDeque;

use serde_json::{Value, json};

use super::*;
use crate::deploy::Stamp;

/// A Service that follows a script: each write fails with the next failure, or succeeds where that is `None`; each read
/// shows the current state.
#[derive(Default)]
struct Fake {
    service: RefCell<Option<Value>>,
    failures: RefCell<VecDeque<Option<ServiceError>>>,
    writes: RefCell<Vec<Value>>,
    /// Whether revisions become ready at the read after their write.
    becomes_ready: bool,
    /// When the API server answers reads again.
    reads_from: RefCell<Option<Instant>>,
    /// Whether a write has no end.
    hangs: bool,
}

impl Fake {
    fn write(&self, service: Value) -> Result<Service, ServiceError> {
        self.writes.borrow_mut().push(service.clone());
        if let Some(Some(error)) = self.failures.borrow_mut().pop_front() {
            return Err(error);
        }
        *self.service.borrow_mut() = Some(service.clone());
        Ok(serde_json::from_value(service).expect("a Service"))
    }
}

impl ServiceClient for &Fake {
    async fn read(&self) -> Result<Option<Service>, ServiceError> {
        if self.reads_from.borrow().is_some_and(|time| Instant::now() < time) {
            return Err(ServiceError::Unavailable("away".into()));
        }
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
        if self.hangs {
            std::future::pending::<()>().await;
        }
        let mut service = self.service.borrow().clone().expect("a Service");
        merge(&mut service, patch);
        service["metadata"]["generation"] = (service["metadata"]["generation"].as_i64().unwrap_or(0) + 1).into();
        self.write(service)
    }
}

/// A JSON merge patch.
fn merge(value: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *value = patch.clone();
        return;
    };
    for (key, patch) in patch {
        match patch {
            Value::Null => drop(value.as_object_mut().map(|object| object.remove(key))),
            patch => merge(&mut value[key], patch),
        }
    }
}

fn desired(image: &str, wait: Wait) -> Desired {
    Desired {
        name: "web".into(),
        namespace: "default".into(),
        image: Some(image.parse().expect("an image")),
        container: None,
        port: None,
        service_account: None,
        pull_secrets: Vec::new(),
        traffic: TrafficMode::Keep,
        wait,
        stamp: Stamp::default(),
        force: false,
        attempt: None,
    }
}

async fn roll_out(fake: &Fake, image: &str, wait: Wait) -> Result<Service, RolloutError> {
    let journal = Journal::default();
    let rollout = Rollout::new(fake, desired(image, wait), Duration::from_secs(30), &journal);
    rollout.run().await.map(|finished| finished.service)
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
async fn a_forced_older_merge_waits_for_its_revision_and_is_deployed() {
    let stamp = |time: &str| Stamp { merged_at: Some(time.parse().expect("a time")), ..Stamp::default() };
    let newer = json!({
        "metadata": {"name": "web", "generation": 1, "resourceVersion": "1",
            "annotations": {"github-trigger.dev/merged-at": "2026-11-22T13:00:00Z"}},
        "spec": {
            "template": {"spec": {"containers": [{"image": "web:1"}]}},
            "traffic": [{"revisionName": "web-0", "percent": 100}],
        },
        "status": {
            "observedGeneration": 1, "latestCreatedRevisionName": "web-1", "latestReadyRevisionName": "web-0",
            "traffic": [{"revisionName": "web-0", "percent": 100}],
            "conditions": [{"type": "Ready", "status": "Unknown"}],
        },
    });
    for (force, outcome, writes) in [(false, Outcome::Superseded, 0), (true, Outcome::Deployed, 1)] {
        let fake = Fake { service: RefCell::new(Some(newer.clone())), becomes_ready: true, ..Fake::default() };
        let stamp = stamp("2026-11-22T12:00:00Z");
        let desired = Desired { traffic: TrafficMode::ToLatest, stamp, force, ..desired("web:1", MINUTE) };
        let journal = Journal::default();
        let finished = Rollout::new(&fake, desired, Duration::from_secs(30), &journal).run().await.expect("an end");
        assert_eq!((finished.outcome, fake.writes.borrow().len()), (outcome, writes));
    }
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
async fn ends_well_while_knative_moves_users_for_longer_than_the_wait() {
    let moving = json!({
        "metadata": {"name": "web", "generation": 1, "resourceVersion": "1"},
        "spec": {"template": {"spec": {"containers": [{"image": "web:1"}]}}},
        "status": {
            "observedGeneration": 1, "latestCreatedRevisionName": "web-1", "latestReadyRevisionName": "web-1",
            "traffic": [{"revisionName": "web-0", "percent": 70}, {"revisionName": "web-1", "percent": 30}],
            "conditions": [{"type": "RoutesReady", "status": "Unknown", "reason": "RolloutInProgress"}],
        },
    });
    let fake = Fake { service: RefCell::new(Some(moving)), ..Fake::default() };
    let begun = Instant::now();
    let service = roll_out(&fake, "web:1", MINUTE).await.expect("an end");
    assert_eq!((service.percent_on("web-1"), begun.elapsed()), (30, Duration::from_secs(60)));
    assert_eq!(fake.writes.borrow().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn retries_conflicts_and_outages_but_not_refusals() {
    let unavailable = || ServiceError::Unavailable("away".into());
    let fake = Fake { becomes_ready: true, ..Fake::default() };
    *fake.failures.borrow_mut() =
        [Some(ServiceError::Conflict), Some(unavailable()), Some(ServiceError::Conflict)].into();
    roll_out(&fake, "web:1", MINUTE).await.expect("a Service");
    assert_eq!(fake.writes.borrow().len(), 4);
    let refused = ServiceError::Refused { message: "no right".into(), source: "403".into() };
    *fake.failures.borrow_mut() = [Some(refused)].into();
    let error = roll_out(&fake, "web:2", MINUTE).await.expect_err("a refusal");
    assert_eq!(error.to_string(), "no right");
    *fake.failures.borrow_mut() = (0..200).map(|_| Some(ServiceError::Conflict)).collect();
    roll_out(&fake, "web:3", MINUTE).await.expect("a Service that others change all the time");
    *fake.failures.borrow_mut() = (0..1000).map(|_| Some(unavailable())).collect();
    let begun = Instant::now();
    let error = roll_out(&fake, "web:2", MINUTE).await.expect_err("an outage");
    assert!(error.to_string().contains("does not answer: away"), "{error}");
    assert_eq!(begun.elapsed(), API_OUTAGE_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_reads_does_not_use_up_the_patience_with_writes() {
    let fake = Fake { becomes_ready: true, ..Fake::default() };
    roll_out(&fake, "web:1", MINUTE).await.expect("a Service");
    let unavailable = ServiceError::Unavailable("away".into());
    *fake.failures.borrow_mut() = [Some(unavailable), Some(ServiceError::Conflict)].into();
    *fake.reads_from.borrow_mut() = None;
    let begun = Instant::now();
    let outage = async {
        // Between the write without an answer and the next read.
        sleep(POLL_INTERVAL / 2).await;
        *fake.reads_from.borrow_mut() = Some(begun + API_OUTAGE_TIMEOUT * 2);
    };
    let wait = Wait::AtMost(API_OUTAGE_TIMEOUT * 10);
    let (end, ()) = tokio::join!(roll_out(&fake, "web:2", wait), outage);
    end.expect("a Service");
    assert!(begun.elapsed() >= API_OUTAGE_TIMEOUT * 2, "the outage was seen: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn waits_for_an_unsettled_service_from_when_it_is_seen() {
    let unsettled = json!({
        "metadata": {"name": "web", "generation": 2, "resourceVersion": "1"},
        "spec": {
            "template": {"spec": {"containers": [{"image": "web:1"}]}},
            "traffic": [{"latestRevision": true, "percent": 100}],
        },
        "status": {"observedGeneration": 1, "latestCreatedRevisionName": "web-1", "latestReadyRevisionName": "web-1",
            "traffic": [{"revisionName": "web-1", "percent": 100}], "conditions": [{"type": "Ready", "status": "True"}]},
    });
    let fake = Fake { service: RefCell::new(Some(unsettled)), becomes_ready: true, ..Fake::default() };
    *fake.reads_from.borrow_mut() = Some(Instant::now() + API_OUTAGE_TIMEOUT + POLL_INTERVAL);
    let canary = TrafficMode::Canary { percent: 10, tag: None };
    let desired = Desired { traffic: canary, ..desired("web:2", Wait::AtMost(API_OUTAGE_TIMEOUT * 10)) };
    let journal = Journal::default();
    let end = Rollout::new(&fake, desired, Duration::from_secs(30), &journal).run().await;
    assert!(!matches!(end, Err(RolloutError::Plan(PlanError::Unsettled))), "{end:?}");
    assert!(!fake.writes.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_write_may_have_been_done() {
    let fake = Fake { becomes_ready: true, ..Fake::default() };
    roll_out(&fake, "web:1", MINUTE).await.expect("a Service");
    let fake = Fake { hangs: true, ..fake };
    let journal = Journal::default();
    let rollout = Rollout::new(&fake, desired("web:2", MINUTE), Duration::from_secs(30), &journal);
    assert_eq!(journal.sentence(), "nothing was changed");
    tokio::time::timeout(Duration::from_secs(1), rollout.run()).await.expect_err("an interrupt");
    assert_eq!(journal.sentence(), "a change of the Service web was sent and not answered");
    assert!(journal.has_change());
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_has_changed_nothing() {
    let fake = Fake { becomes_ready: true, ..Fake::default() };
    let refused = ServiceError::Refused { message: "no right".into(), source: "403".into() };
    *fake.failures.borrow_mut() = [Some(refused)].into();
    let journal = Journal::default();
    let rollout = Rollout::new(&fake, desired("web:1", MINUTE), Duration::from_secs(30), &journal);
    rollout.run().await.expect_err("a refusal");
    assert_eq!(journal.sentence(), "nothing was changed");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_without_end_is_undone_past_a_conflict() {
    let traffic = json!([{"latestRevision": true, "percent": 100}]);
    let running = json!({
        "metadata": {"name": "web", "generation": 3, "resourceVersion": "1",
            "annotations": {"github-trigger.dev/rollback-to": "web-1"}},
        "spec": {"template": {"spec": {"containers": [{"image": "web:2"}]}}, "traffic": traffic},
        "status": {
            "observedGeneration": 3, "latestCreatedRevisionName": "web-2", "latestReadyRevisionName": "web-2",
            "traffic": [{"revisionName": "web-2", "percent": 100}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    let fake = Fake { service: RefCell::new(Some(running)), ..Fake::default() };
    *fake.failures.borrow_mut() = [None, Some(ServiceError::Conflict)].into();
    let traffic_mode = TrafficMode::Rollback { to: None, is_named: false };
    let desired = Desired { image: None, traffic: traffic_mode, ..desired("web:2", MINUTE) };
    let journal = Journal::default();
    let error = Rollout::new(&fake, desired, Duration::from_secs(30), &journal).run().await.expect_err("no end");
    let RolloutError::Undone(cause) = &error else { panic!("{error}") };
    assert!(matches!(**cause, RolloutError::Timeout { .. }), "{cause}");
    let writes = fake.writes.borrow();
    let targets: Vec<&Value> = writes.iter().map(|write| &write["spec"]["traffic"]).collect();
    assert_eq!(targets[0][0]["revisionName"], "web-1");
    assert_eq!((targets.len(), targets[1], targets[2]), (3, &traffic, &traffic), "the conflict is tried again");
}
