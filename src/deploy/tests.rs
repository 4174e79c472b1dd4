use std::time::Duration;

use serde_json::{Value, json};

use super::decision::{Change, Desired, Plan, PlanError, TrafficMode, Wait, decide};
use super::progress::{Progress, progress};
use super::service::Service;
use super::stamp::Stamp;

const OLD: &str = "registry.example.com/web:1";
const NEW: &str = "registry.example.com/web:2";

fn service(spec: &Value, status: &Value) -> Service {
    let metadata = json!({"name": "web", "resourceVersion": "7", "generation": 3});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).expect("a Service")
}

fn spec(image: &str, traffic: &Value) -> Value {
    json!({"template": {"spec": {"containers": [{"name": "user-container", "image": image}]}}, "traffic": traffic})
}

/// A settled status with the ready revision `latest` and this traffic.
fn status(latest: &str, traffic: &Value) -> Value {
    json!({"observedGeneration": 3, "latestCreatedRevisionName": latest, "latestReadyRevisionName": latest,
        "traffic": traffic, "conditions": [{"type": "Ready", "status": "True"}]})
}

fn latest() -> Value {
    json!([{"latestRevision": true, "percent": 100}])
}

fn serving(revision: &str) -> Value {
    json!([{"revisionName": revision, "latestRevision": true, "percent": 100}])
}

fn desired(traffic: TrafficMode) -> Desired {
    let image = NEW.parse().expect("an image");
    let (name, namespace) = ("web".to_owned(), "default".to_owned());
    Desired {
        name,
        namespace,
        image: Some(image),
        container: None,
        port: None,
        service_account: None,
        pull_secrets: Vec::new(),
        traffic,
        wait: Wait::AtMost(Duration::from_secs(60)),
        stamp: Stamp::default(),
        force: false,
        attempt: None,
    }
}

fn no_traffic() -> TrafficMode {
    TrafficMode::NoTraffic { tag: "test".to_owned() }
}

fn canary(percent: u8) -> TrafficMode {
    TrafficMode::Canary { percent, tag: None }
}

fn decided(today: &Service, traffic_mode: TrafficMode) -> Plan {
    decide(Some(today), &desired(traffic_mode)).expect("a plan")
}

/// The traffic in a patch; null if the patch does not change it.
fn traffic(plan: &Plan) -> Value {
    match plan {
        Plan::Patch { patch, .. } => {
            assert_eq!(patch["metadata"]["resourceVersion"], "7");
            let percents = patch["spec"]["traffic"].as_array().map(|targets| {
                targets.iter().map(|target| target["percent"].as_i64().expect("a percentage")).sum::<i64>()
            });
            assert!(percents.is_none_or(|sum| sum == 100), "{patch}");
            patch["spec"]["traffic"].clone()
        }
        other => panic!("no patch: {other:?}"),
    }
}

fn pinned(revision: &str, percent: i64) -> Value {
    json!({"revisionName": revision, "latestRevision": false, "percent": percent})
}

#[test]
fn creates_absent_service() {
    let Plan::Create(service) = decide(None, &desired(TrafficMode::Keep)).expect("a plan") else {
        panic!("no creation")
    };
    assert_eq!(service["metadata"]["name"], "web");
    assert_eq!(service["spec"]["template"]["spec"]["containers"][0]["image"], NEW);
    assert_eq!(service["spec"]["template"]["spec"]["containers"][0]["securityContext"]["runAsNonRoot"], true);
    assert_eq!(service["spec"].get("traffic"), None);
    // The first revision gets all traffic.
    for rollout in [no_traffic(), TrafficMode::Canary { percent: 10, tag: Some("test".to_owned()) }] {
        let Plan::Create(service) = decide(None, &desired(rollout)).expect("a plan") else { panic!("no creation") };
        assert_eq!(service["spec"]["traffic"], json!([{"latestRevision": true, "percent": 100, "tag": "test"}]));
    }
    let with = Desired { container: Some("app".to_owned()), port: Some(9000), ..desired(TrafficMode::ToLatest) };
    let Plan::Create(service) = decide(None, &with).expect("a plan") else { panic!("no creation") };
    let container = &service["spec"]["template"]["spec"]["containers"][0];
    assert_eq!((&container["name"], &container["ports"]), (&json!("app"), &json!([{"containerPort": 9000}])));
}

#[test]
fn plans_from_default_traffic() {
    let today = service(&spec(OLD, &latest()), &status("web-1", &serving("web-1")));
    let plan = decided(&today, TrafficMode::Keep);
    assert_eq!(traffic(&plan), Value::Null);
    let Plan::Patch { patch, change: Change::Revision } = &plan else { panic!("no new revision: {plan:?}") };
    let containers = json!([{"name": "user-container", "image": NEW}]);
    assert_eq!(patch["spec"]["template"], json!({"spec": {"containers": containers}}));

    let test = json!({"latestRevision": true, "percent": 0, "tag": "test"});
    assert_eq!(traffic(&decided(&today, no_traffic())), json!([pinned("web-1", 100), test]));
    assert_eq!(traffic(&decided(&today, TrafficMode::ToLatest)), Value::Null, "latest has all traffic already");
    let share = json!({"latestRevision": true, "percent": 10});
    assert_eq!(traffic(&decided(&today, canary(10))), json!([pinned("web-1", 90), share]));
    // A spec without traffic gives the same plans.
    let today = service(&spec(OLD, &Value::Array(Vec::new())), &status("web-1", &serving("web-1")));
    assert_eq!(traffic(&decided(&today, TrafficMode::ToLatest)), Value::Null);
    assert_eq!(traffic(&decided(&today, canary(10))), json!([pinned("web-1", 90), share]));
}

#[test]
fn plans_from_pinned_traffic() {
    let pins = json!([{"revisionName": "web-1", "percent": 100}]);
    let today = service(&spec(OLD, &pins), &status("web-2", &json!([{"revisionName": "web-1", "percent": 100}])));
    assert_eq!(traffic(&decided(&today, TrafficMode::Keep)), Value::Null);
    let test = json!({"latestRevision": true, "percent": 0, "tag": "test"});
    assert_eq!(traffic(&decided(&today, no_traffic())), json!([pinned("web-1", 100), test]));
    // "Latest" is web-2 until the new revision is ready; web-2 must not get users.
    assert_eq!(traffic(&decided(&today, TrafficMode::ToLatest)), Value::Null, "first the image, then the traffic");
    assert_eq!(traffic(&decided(&today, canary(10))), Value::Null);
    let at_once = Desired { wait: Wait::No, ..desired(TrafficMode::ToLatest) };
    assert_eq!(traffic(&decide(Some(&today), &at_once).expect("a plan")), latest());
}

#[test]
fn promotes_without_new_revision() {
    let split =
        json!([{"revisionName": "web-1", "percent": 100}, {"latestRevision": true, "percent": 0, "tag": "test"}]);
    let shown = json!([{"revisionName": "web-1", "percent": 100},
        {"revisionName": "web-2", "latestRevision": true, "percent": 0, "tag": "test"}]);
    let today = service(&spec(NEW, &split), &status("web-2", &shown));
    let plan = decided(&today, TrafficMode::ToLatest);
    assert!(matches!(plan, Plan::Patch { change: Change::Traffic, .. }), "{plan:?}");
    assert_eq!(traffic(&plan), json!([{"latestRevision": true, "percent": 100, "tag": "test"}]));
    assert_eq!(
        traffic(&decided(&today, canary(25))),
        json!([pinned("web-1", 75), {"revisionName": "web-2", "latestRevision": false, "percent": 0, "tag": "test"},
            {"latestRevision": true, "percent": 25}])
    );
}

#[test]
fn plans_nothing_when_state_is_as_desired() {
    let today = service(&spec(NEW, &latest()), &status("web-2", &serving("web-2")));
    for rollout in [TrafficMode::Keep, TrafficMode::ToLatest, canary(10)] {
        assert_eq!(decided(&today, rollout.clone()), Plan::Nothing, "{rollout:?}");
    }
    // A tag that was asked for is made, once, and today's traffic is pinned as with another image.
    let wanted = json!([{"revisionName": "web-2", "latestRevision": false, "percent": 100, "tag": "test"}]);
    assert_eq!(traffic(&decided(&today, no_traffic())), wanted);
    let today = service(&spec(NEW, &wanted), &status("web-2", &serving("web-2")));
    assert_eq!(decided(&today, no_traffic()), Plan::Nothing);
    // The canary has the desired share already.
    let split = json!([{"revisionName": "web-1", "percent": 90, "latestRevision": false}, {"latestRevision": true, "percent": 10}]);
    let shown = json!([{"revisionName": "web-1", "percent": 90}, {"revisionName": "web-2", "percent": 10, "latestRevision": true}]);
    let today = service(&spec(NEW, &split), &status("web-2", &shown));
    assert_eq!(decided(&today, canary(10)), Plan::Nothing);
    assert_eq!(
        traffic(&decided(&today, canary(50))),
        json!([pinned("web-1", 50), {"latestRevision": true, "percent": 50}])
    );
}

#[test]
fn keeps_other_tags_and_moves_own_tag() {
    let tagged = json!([
        {"revisionName": "web-2", "percent": 100, "tag": "live"},
        {"revisionName": "web-1", "percent": 0, "tag": "old"},
        {"revisionName": "web-1", "percent": 0, "tag": "older"},
        {"latestRevision": true, "percent": 0, "tag": "test"},
        {"latestRevision": true, "percent": 0, "tag": "next"},
    ]);
    let shown = json!([
        {"revisionName": "web-2", "percent": 100, "tag": "live"},
        {"revisionName": "web-1", "percent": 0, "tag": "old"},
        {"revisionName": "web-1", "percent": 0, "tag": "older"},
        {"revisionName": "web-3", "latestRevision": true, "percent": 0, "tag": "test"},
        {"revisionName": "web-3", "latestRevision": true, "percent": 0, "tag": "next"},
    ]);
    let today = service(&spec(OLD, &tagged), &status("web-3", &shown));
    let tag = |revision: &str, percent: i64, tag: &str| json!({"revisionName": revision, "latestRevision": false, "percent": percent, "tag": tag});
    assert_eq!(
        traffic(&decided(&today, no_traffic())),
        json!([tag("web-1", 0, "old"), tag("web-1", 0, "older"), tag("web-2", 100, "live"), tag("web-3", 0, "next"),
            {"latestRevision": true, "percent": 0, "tag": "test"}])
    );
}

#[test]
fn adds_up_shares_during_rollout() {
    // While `rollout-duration` runs, the status lists the same revision twice.
    let shown = json!([
        {"revisionName": "web-1", "latestRevision": true, "percent": 60},
        {"revisionName": "web-2", "latestRevision": true, "percent": 30},
        {"revisionName": "web-1", "percent": 10},
    ]);
    let today = service(&spec(OLD, &latest()), &status("web-2", &shown));
    let test = json!({"latestRevision": true, "percent": 0, "tag": "test"});
    assert_eq!(traffic(&decided(&today, no_traffic())), json!([pinned("web-1", 70), pinned("web-2", 30), test]));
    let plan = decided(&today, canary(50));
    assert_eq!(traffic(&plan), json!([pinned("web-1", 70), pinned("web-2", 30)]), "latest is still web-2");
}

#[test]
fn rounded_shares_add_up_to_100() {
    let shown = json!([{"revisionName": "a", "percent": 33}, {"revisionName": "b", "percent": 33}, {"revisionName": "c", "percent": 34}]);
    for percent in 1..=99 {
        let today = service(&spec(OLD, &shown), &status("c", &shown));
        let at_once = Desired { wait: Wait::No, ..desired(canary(percent)) };
        // `traffic` checks the sum.
        traffic(&decide(Some(&today), &at_once).expect("a plan"));
    }
}

#[test]
fn to_latest_mends_a_status_that_does_not_add_up() {
    let shown = json!([{"revisionName": "a", "percent": 33}, {"revisionName": "b", "percent": 66}]);
    let today = service(&spec(OLD, &shown), &status("b", &shown));
    let refused = decide(Some(&today), &desired(canary(10))).expect_err("99 %");
    assert_eq!(refused, PlanError::Traffic(99));
    assert!(refused.to_string().contains("--to-latest"));
    assert_eq!(traffic(&decided(&today, TrafficMode::ToLatest)), Value::Null, "first the revision");
    let built = service(&spec(NEW, &shown), &status("c", &shown));
    assert_eq!(traffic(&decided(&built, TrafficMode::ToLatest)), latest());
}

#[test]
fn plans_for_service_never_ready() {
    let nothing = json!({"observedGeneration": 3, "latestCreatedRevisionName": "web-1"});
    let today = service(&spec(OLD, &latest()), &nothing);
    assert_eq!(traffic(&decided(&today, TrafficMode::Keep)), Value::Null);
    assert_eq!(
        traffic(&decided(&today, no_traffic())),
        json!([{"latestRevision": true, "percent": 100, "tag": "test"}])
    );
    assert_eq!(traffic(&decided(&today, TrafficMode::ToLatest)), Value::Null);
    let ready_once =
        json!({"observedGeneration": 3, "latestCreatedRevisionName": "web-2", "latestReadyRevisionName": "web-1"});
    let today = service(&spec(OLD, &latest()), &ready_once);
    let test = json!({"latestRevision": true, "percent": 0, "tag": "test"});
    assert_eq!(traffic(&decided(&today, no_traffic())), json!([pinned("web-1", 100), test]));
}

#[test]
fn removes_fixed_revision_name() {
    let mut named = spec(OLD, &latest());
    named["template"]["metadata"] = json!({"name": "web-green", "annotations": {"a": "b"}});
    let today = service(&named, &status("web-green", &serving("web-green")));
    let Plan::Patch { patch, .. } = decided(&today, TrafficMode::Keep) else { panic!("no patch") };
    assert_eq!(patch["spec"]["template"]["metadata"], json!({"name": null}));
}

#[test]
fn selects_container_among_several() {
    let containers = json!([{"name": "proxy", "image": "p:1"}, {"name": "app", "image": OLD, "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "b"}]}]);
    let many = |containers: &Value| {
        let spec = json!({"template": {"spec": {"containers": containers}}, "traffic": latest()});
        service(&spec, &status("web-1", &serving("web-1")))
    };
    let Plan::Patch { patch, .. } = decided(&many(&containers), TrafficMode::Keep) else { panic!("no patch") };
    let mut expected = containers.clone();
    expected[1]["image"] = NEW.into();
    assert_eq!(patch["spec"]["template"]["spec"]["containers"], expected);

    let named = Desired { container: Some("proxy".to_owned()), ..desired(TrafficMode::Keep) };
    let Plan::Patch { patch, .. } = decide(Some(&many(&containers)), &named).expect("a plan") else {
        panic!("no patch")
    };
    assert_eq!(patch["spec"]["template"]["spec"]["containers"][0]["image"], NEW);

    let portless = json!([{"name": "a", "image": OLD}, {"name": "b", "image": OLD}]);
    let error = decide(Some(&many(&portless)), &desired(TrafficMode::Keep)).expect_err("two containers").to_string();
    assert!(error.contains("the containers a, b") && error.contains("--container"), "{error}");
    let missing = Desired { container: Some("c".to_owned()), ..desired(TrafficMode::Keep) };
    let error = decide(Some(&many(&portless)), &missing).expect_err("no such container").to_string();
    assert!(error.contains("no container c"), "{error}");
}

#[test]
fn rejects_inconsistent_and_unsettled_status() {
    let odd = service(&spec(OLD, &latest()), &status("web-1", &json!([{"revisionName": "web-1", "percent": 40}])));
    assert_eq!(decide(Some(&odd), &desired(no_traffic())), Err(PlanError::Traffic(40)));
    assert!(decide(Some(&odd), &desired(TrafficMode::Keep)).is_ok());
    let mut stale = status("web-1", &serving("web-1"));
    stale["observedGeneration"] = 2.into();
    let stale = service(&spec(OLD, &latest()), &stale);
    assert_eq!(decide(Some(&stale), &desired(no_traffic())), Err(PlanError::Unsettled));
}

/// Traffic to a deleted revision blocks the whole route; a promotion repairs it.
#[test]
fn promotes_ready_revision_despite_broken_route() {
    let gone = json!([{"revisionName": "web-0", "percent": 100}]);
    let mut broken = status("web-2", &Value::Array(Vec::new()));
    broken["conditions"] = json!([{"type": "Ready", "status": "False", "reason": "RevisionMissing"}]);
    let today = service(&spec(NEW, &gone), &broken);
    assert!(today.latest_is_ready());
    assert_eq!(traffic(&decided(&today, TrafficMode::ToLatest)), latest());
    broken["latestReadyRevisionName"] = "web-1".into();
    assert!(!service(&spec(NEW, &gone), &broken).latest_is_ready());
}

/// A deleted revision in the traffic: nobody reaches it, so that one run is enough.
#[test]
fn leaves_out_a_revision_that_does_not_exist() {
    let message = "Revision \"web-0\" referenced in traffic not found.";
    let missing = json!([{"type": "RoutesReady", "status": "False", "reason": "RevisionMissing", "message": message}]);
    let gone = json!([{"revisionName": "web-0", "percent": 60}, {"revisionName": "web-0", "percent": 0, "tag": "old"},
        {"revisionName": "web-1", "percent": 40}]);
    let mut broken = status("web-1", &gone);
    broken["conditions"] = missing;
    let today = service(&spec(OLD, &gone), &broken);
    assert_eq!(today.missing_revision(), Some("web-0"));
    // First the image, with the users on what works; then all of them go to it.
    assert_eq!(traffic(&decided(&today, TrafficMode::ToLatest)), json!([pinned("web-1", 100)]));
    for mode in [TrafficMode::Keep, no_traffic(), canary(10)] {
        let refused = decide(Some(&today), &desired(mode)).expect_err("a missing revision");
        assert!(refused.to_string().contains("web-0") && refused.to_string().contains("--to-latest"), "{refused}");
    }
    // What the status says of another spec counts no more.
    let mended = service(&spec(OLD, &latest()), &broken);
    assert_eq!(mended.missing_revision(), None);
}

#[test]
fn creates_with_account_and_pull_secrets() {
    let desired = Desired {
        service_account: Some("web".to_owned()),
        pull_secrets: vec!["one".to_owned(), "two".to_owned()],
        ..desired(TrafficMode::Keep)
    };
    let Plan::Create(created) = decide(None, &desired).expect("a plan") else { panic!("no Service") };
    let pod = &created["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], "web");
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "one"}, {"name": "two"}]));
}

#[test]
fn reads_progress_from_generation_revisions_and_conditions() {
    let read = |status: &Value| progress(&service(&spec(NEW, &latest()), status), 3);
    let waits = |status: &Value, why: &str| match read(status) {
        Progress::Waiting(what) => assert!(what.contains(why), "{what}"),
        other => panic!("{why}: {other:?}"),
    };
    waits(&Value::Null, "not observed the Service");
    let mut stale = status("web-2", &serving("web-2"));
    assert_eq!(read(&stale), Progress::Ready);
    stale["observedGeneration"] = 2.into();
    waits(&stale, "not observed the change");
    // The route is ready, but still serves the old revision.
    let mut behind = status("web-1", &serving("web-1"));
    behind["latestCreatedRevisionName"] = "web-2".into();
    behind["conditions"] = json!([{"type": "Ready", "status": "Unknown"},
        {"type": "ConfigurationsReady", "status": "Unknown", "reason": "Deploying"}]);
    waits(&behind, "web-2 is not ready yet (Deploying)");
    let mut failed = behind.clone();
    failed["conditions"] = json!([
        {"type": "Ready", "status": "False", "reason": "RevisionFailed", "message": "x"},
        {"type": "ConfigurationsReady", "status": "False", "reason": "RevisionFailed",
            "message": "Revision \"web-2\" failed with message:\n Unable to fetch image."},
    ]);
    let why = "RevisionFailed: Revision \"web-2\" failed with message: Unable to fetch image.";
    assert_eq!(read(&failed), Progress::Failed(why.to_owned()));
    let mut routing = status("web-2", &serving("web-1"));
    routing["conditions"] = json!([{"type": "Ready", "status": "Unknown", "reason": "TrafficNotMigrated"}]);
    waits(&routing, "TrafficNotMigrated");
}
