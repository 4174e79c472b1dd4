//! The decision: the current state of a Knative Service and the desired one to the next change. No I/O.
//!
//! A rollout is decided again and again from the Service's current state, until there is nothing left to change. A change
//! that could send users to a revision that is not ready is split in two: first the new revision, then its traffic.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::image::Image;
use super::service::{ContainerError, Service};
use super::stamp::Stamp;
use super::traffic::{Destination, Traffic};

/// Annotation with the last two revisions that had all users, the newest first, with a comma between them.
const ROLLBACK_TO: &str = "github-trigger.dev/rollback-to";
/// Annotation with the revision that a rollback has sent all users to.
const ROLLED_BACK: &str = "github-trigger.dev/rolled-back-to";
/// Annotation that makes a new revision of the same image.
const ATTEMPT: &str = "github-trigger.dev/attempt";

/// The desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    /// The Service's name.
    pub(crate) name: String,
    /// The Service's namespace.
    pub(crate) namespace: String,
    /// The image to run; `None` keeps the one that runs, for a rollback.
    pub(crate) image: Option<Image>,
    /// Name of the container that gets the image; `None` for the only one, or the one with a port.
    pub(crate) container: Option<String>,
    /// Container port of a Service that is created.
    pub(crate) port: Option<u16>,
    /// Service account of a Service that is created.
    pub(crate) service_account: Option<String>,
    /// Secrets with which a Service that is created pulls its image.
    pub(crate) pull_secrets: Vec<String>,
    /// Traffic of the new revision.
    pub(crate) traffic: TrafficMode,
    /// Whether the rollout waits for the new revision.
    pub(crate) wait: Wait,
    /// What is being deployed.
    pub(crate) stamp: Stamp,
    /// Deploys although something newer is deployed.
    pub(crate) force: bool,
    /// Marks a new revision with the same image, where one is needed; `None` once it is written.
    pub(crate) attempt: Option<String>,
}

/// Whether and how long a rollout waits for its new revision. One that waits can send traffic in a second change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It ends when the change is written.
    No,
    /// It ends when the new revision is ready, has failed, or this time is over.
    AtMost(Duration),
}

/// Traffic of a new revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TrafficMode {
    /// `spec.traffic` stays as it is.
    Keep,
    /// No traffic; the revision is reachable under the tag's URL.
    NoTraffic {
        /// The tag.
        tag: String,
    },
    /// All traffic.
    ToLatest,
    /// A share of the traffic.
    Canary {
        /// Percent, 1 to 99.
        percent: u8,
        /// A tag under whose URL the revision is reachable.
        tag: Option<String>,
    },
    /// All traffic to an earlier revision, pinned.
    Rollback {
        /// The revision; `None` for [`rollback_target`].
        to: Option<String>,
        /// Whether a person named it. Else the same call once more leaves it in place.
        is_named: bool,
    },
}

/// The next change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    /// The Service does not exist: create this one.
    Create(Value),
    /// Apply a JSON merge patch, valid for the version of the Service that it was decided from.
    Patch {
        /// The patch.
        patch: Value,
        /// What it changes.
        change: Change,
    },
    /// The current state is the desired one.
    Nothing,
    /// Something newer is deployed; its stamp in words.
    Superseded(String),
}

/// What a patch changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The template, which makes a new revision, and perhaps the traffic.
    Revision,
    /// The traffic alone.
    Traffic,
    /// The stamp alone.
    Stamp,
}

/// Why the desired state cannot be reached; the Service was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    /// No container, or several, could get the image.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The percentages in the status are inconsistent.
    #[error(
        "the Service's status assigns {0} % of the traffic, not 100; wait until it is settled (kubectl get ksvc), or use \
         --to-latest"
    )]
    Traffic(i64),
    /// The Service has a deletion timestamp.
    #[error("the Service is being deleted; wait until it is gone, then deploy again")]
    BeingDeleted,
    /// No revision to roll back to is known.
    #[error("no earlier revision is known to roll back to; name one with --to (kubectl get revisions)")]
    NoEarlierRevision,
    /// There is no Service to roll back.
    #[error("the Service does not exist, so that there is nothing to roll back")]
    Absent,
    /// The traffic that is to be kept names a revision that does not exist.
    #[error(
        "the Service's traffic names the revision {0}, which does not exist, so that no change reaches users: --to-latest sends \
         all traffic to the new revision"
    )]
    MissingRevision(String),
    /// A change that Knative has not observed yet may change the traffic.
    #[error("Knative has not observed the last change of the Service yet (is its controller running?)")]
    Unsettled,
}

impl TrafficMode {
    /// The tag of the new revision.
    pub(crate) fn tag(&self) -> Option<&str> {
        match self {
            Self::NoTraffic { tag } => Some(tag),
            Self::Canary { tag, .. } => tag.as_deref(),
            Self::Keep | Self::ToLatest | Self::Rollback { .. } => None,
        }
    }
}

/// Decides the next change.
/// Fails when the desired state does not fit the current one.
pub(crate) fn decide(current: Option<&Service>, desired: &Desired) -> Result<Plan, PlanError> {
    let Some(current) = current else {
        return desired.image.as_ref().map(|image| Plan::Create(new_service(desired, image))).ok_or(PlanError::Absent);
    };
    if current.is_being_deleted() {
        return Err(PlanError::BeingDeleted);
    }
    let deployed = current.stamp();
    if is_superseded(current, desired) {
        return Ok(Plan::Superseded(deployed.words()));
    }
    let mut annotations = Map::new();
    if let Some(revision) = current.revision_with_all_users().filter(|name| had_all_users(current).next() != Some(name))
    {
        let before = had_all_users(current).filter(|name| *name != revision).take(1);
        let names: Vec<&str> = std::iter::once(revision).chain(before).collect();
        annotations.insert(ROLLBACK_TO.into(), names.join(",").into());
    }
    let Some(image) = &desired.image else { return roll_back(current, desired, annotations) };
    let container = current.container(desired.container.as_deref())?;
    let same_image = current.image(container) == Some(image.as_str());
    // A moving tag may stand for another image now, and a failed revision is not tried again by itself.
    // An answer may have been lost, so that this attempt is already there.
    let attempt = desired.attempt.as_ref().filter(|attempt| current.template_annotation(ATTEMPT) != Some(attempt));
    let again = attempt.filter(|_| same_image && (image.is_moving() || current.latest_has_failed()));
    let new_revision = !same_image || again.is_some();
    let traffic = desired_traffic(current, desired, !new_revision)?;
    // The same image by hand, without a stamp, is still what the stamp says.
    let has_stamp = desired.stamp.merged_at.is_some() || desired.stamp.commit.is_some();
    let stamp = if new_revision || has_stamp { desired.stamp.to_patch(&deployed) } else { Map::new() };
    let change = match (new_revision, &traffic) {
        (true, _) => Change::Revision,
        (false, Some(_)) => Change::Traffic,
        (false, None) if stamp.is_empty() => return Ok(Plan::Nothing),
        (false, None) => {
            annotations.clear();
            Change::Stamp
        }
    };
    annotations.extend(stamp);
    let mut patch = json!({"metadata": {"resourceVersion": current.metadata.resource_version}});
    if !annotations.is_empty() {
        patch["metadata"]["annotations"] = annotations.into();
    }
    if new_revision {
        let mut of_revision = desired.stamp.to_patch(&current.template_stamp());
        of_revision.extend(again.map(|attempt| (ATTEMPT.to_owned(), Value::from(attempt.as_str()))));
        patch["spec"]["template"] = current.template_with(container, image.as_str(), of_revision);
    }
    if let Some(traffic) = traffic {
        patch["spec"]["traffic"] = traffic.to_spec();
    }
    Ok(Plan::Patch { patch, change })
}

/// Whether something newer than the desired state is deployed, which is left as it is.
pub(crate) fn is_superseded(current: &Service, desired: &Desired) -> bool {
    !desired.force && desired.stamp.is_superseded_by(&current.stamp())
}

/// The revision that a rollback leads to: the last one that had all users before the one that has them now, or the one of a
/// rollback that is in place. `None` if none is recorded.
pub(crate) fn rollback_target(current: &Service) -> Option<String> {
    let now = current.revision_with_all_users();
    if let Some(target) = current.annotation(ROLLED_BACK).filter(|target| Some(*target) == now) {
        return Some(target.to_owned());
    }
    had_all_users(current).find(|name| Some(*name) != current.revision_with_all_users()).map(str::to_owned)
}

/// The recorded revisions that had all users, the last one first.
fn had_all_users(current: &Service) -> impl Iterator<Item = &str> {
    current.annotation(ROLLBACK_TO).unwrap_or_default().split(',').filter(|name| !name.is_empty())
}

fn roll_back(current: &Service, desired: &Desired, mut annotations: Map<String, Value>) -> Result<Plan, PlanError> {
    let TrafficMode::Rollback { to, is_named } = &desired.traffic else { return Ok(Plan::Nothing) };
    let target = to.as_deref().ok_or(PlanError::NoEarlierRevision)?;
    let (spec, status) = known_traffic(current);
    let wanted = Traffic::all_to(Destination::Revision(target.to_owned())).with_tags_of(&spec, &status);
    if wanted == Traffic::from_spec(&current.spec.traffic) {
        return Ok(Plan::Nothing);
    }
    annotations.insert(ROLLED_BACK.into(), if *is_named { Value::Null } else { target.into() });
    let patch = json!({
        "metadata": {"resourceVersion": current.metadata.resource_version, "annotations": annotations},
        "spec": {"traffic": wanted.to_spec()},
    });
    Ok(Plan::Patch { patch, change: Change::Traffic })
}

/// The patch that undoes a rollback which has failed: the traffic as it was.
pub(super) fn undo_rollback(current: &Service, before: &Service) -> Value {
    json!({
        "metadata": {"resourceVersion": current.metadata.resource_version, "annotations": {ROLLED_BACK: Value::Null}},
        "spec": {"traffic": Traffic::from_spec(&before.spec.traffic).to_spec()},
    })
}

/// The traffic in spec and status, without a revision that does not exist.
fn known_traffic(current: &Service) -> (Traffic, Traffic) {
    let gone = current.missing_revision();
    let spec = Traffic::from_spec(&current.spec.traffic).dropped(gone);
    (spec, Traffic::from_status(current.status_traffic()).dropped(gone))
}

/// The traffic to write now; `None` if it stays as it is.
fn desired_traffic(current: &Service, desired: &Desired, same_image: bool) -> Result<Option<Traffic>, PlanError> {
    if let (true, Some(gone)) = (desired.traffic != TrafficMode::ToLatest, current.missing_revision()) {
        return Err(PlanError::MissingRevision(gone.to_owned()));
    }
    let written = Traffic::from_spec(&current.spec.traffic);
    let (spec, status) = known_traffic(current);
    // A tag that this rollout does not set stays on its revision.
    let kept = if same_image { spec.clone() } else { spec.clone().with_pinned_tags(&status) };
    let wanted = match &desired.traffic {
        TrafficMode::Keep | TrafficMode::Rollback { .. } => return Ok((kept != written).then_some(kept)),
        TrafficMode::NoTraffic { tag } if same_image => {
            let Some(latest) = current.latest_created() else { return Ok(None) };
            let latest = Destination::Revision(latest.to_owned());
            if spec.tags().any(|(other, point)| other == tag && [&latest, &Destination::Latest].contains(&point)) {
                return Ok(None);
            }
            // Today's traffic is pinned, as with another image.
            let today = if spec.users().contains_key(&Destination::Latest) { pinned(current)? } else { spec.clone() };
            today.tagged(latest, tag)
        }
        TrafficMode::NoTraffic { tag } => pinned(current)?.with_latest(0, Some(tag)),
        TrafficMode::ToLatest => kept.all_to_latest(),
        TrafficMode::Canary { percent, tag } => {
            let rest = if same_image { pinned(current)?.without(current.latest_created()) } else { pinned(current)? };
            if rest.is_empty() {
                return Ok(None);
            }
            rest.scaled_to(100 - i64::from(*percent)).with_latest(i64::from(*percent), tag.as_deref())
        }
    };
    let wanted = if same_image || desired.wait == Wait::No || is_safe_at_once(current, &wanted) {
        wanted
    } else {
        let pinned = match pinned(current) {
            // What the status says cannot be kept. As it is written, users stay on the latest ready revision.
            Err(PlanError::Traffic(_)) if desired.traffic == TrafficMode::ToLatest => return Ok(None),
            pinned => pinned?,
        };
        match desired.traffic.tag() {
            Some(tag) => pinned.with_latest(0, Some(tag)),
            None => pinned,
        }
    };
    Ok((wanted != written).then_some(wanted))
}

/// Whether users stay on their revisions until the new one is ready: until then, "latest" is the latest ready one.
fn is_safe_at_once(current: &Service, wanted: &Traffic) -> bool {
    let until_ready = match current.latest_ready() {
        Some(ready) => wanted.resolved(ready),
        // There are no users yet.
        None => return true,
    };
    until_ready.users() == known_traffic(current).1.users()
}

/// The current traffic, pinned to its revisions; empty for a Service that was never ready.
fn pinned(current: &Service) -> Result<Traffic, PlanError> {
    if !current.is_settled() {
        return Err(PlanError::Unsettled);
    }
    let (spec, mut status) = known_traffic(current);
    if current.missing_revision().is_some() && !status.is_empty() {
        status = status.scaled_to(100);
    }
    let (assigned, users) = (status.sum(), status.users());
    if assigned != 100 && !users.is_empty() {
        return Err(PlanError::Traffic(assigned));
    }
    let pinned = if users.is_empty() {
        match current.latest_ready() {
            Some(ready) => Traffic::all_to(Destination::Revision(ready.to_owned())),
            None => return Ok(Traffic::default()),
        }
    } else {
        Traffic::from_percentages(users)
    };
    Ok(pinned.with_tags_of(&spec, &status))
}

fn new_service(desired: &Desired, image: &Image) -> Value {
    let mut container = json!({
        "image": image.as_str(),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    if let Some(name) = &desired.container {
        container["name"] = name.as_str().into();
    }
    if let Some(port) = desired.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    let mut spec = json!({"template": {"spec": {"containers": [container]}}});
    if let Some(account) = &desired.service_account {
        spec["template"]["spec"]["serviceAccountName"] = account.as_str().into();
    }
    if !desired.pull_secrets.is_empty() {
        let names = desired.pull_secrets.iter().map(|name| json!({"name": name}));
        spec["template"]["spec"]["imagePullSecrets"] = names.collect();
    }
    // The first revision gets all traffic.
    if let Some(tag) = desired.traffic.tag() {
        spec["traffic"] = Traffic::default().with_latest(0, Some(tag)).to_spec();
    }
    let stamp = desired.stamp.to_patch(&Stamp::default());
    if !stamp.is_empty() {
        spec["template"]["metadata"] = json!({"annotations": stamp});
    }
    let mut service = json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": desired.name,
            "namespace": desired.namespace,
            "labels": {
                "app.kubernetes.io/name": desired.name,
                "app.kubernetes.io/managed-by": "github-trigger",
            },
        },
        "spec": spec,
    });
    if !stamp.is_empty() {
        service["metadata"]["annotations"] = stamp.into();
    }
    service
}
