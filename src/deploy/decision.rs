//! The decision: the current state of a Knative Service and the desired one to the next change. No I/O.
//!
//! A rollout is decided again and again from the Service's current state, until there is nothing left to change. A change
//! that could send users to a revision that is not ready is split in two: first the new revision, then its traffic.

use std::time::Duration;

use serde_json::{Value, json};

use super::image::Image;
use super::service::{ContainerError, Service};
use super::traffic::{Destination, Traffic};

/// The desired state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    /// The Service's name.
    pub(crate) name: String,
    /// The Service's namespace.
    pub(crate) namespace: String,
    /// The image to run.
    pub(crate) image: Image,
    /// Name of the container that gets the image; `None` for the only one, or the one with a port.
    pub(crate) container: Option<String>,
    /// Container port of a Service that is created.
    pub(crate) port: Option<u16>,
    /// Traffic of the new revision.
    pub(crate) traffic: TrafficMode,
    /// Whether the rollout waits for the new revision.
    pub(crate) wait: Wait,
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
}

/// What a patch changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// The template, which makes a new revision, and perhaps the traffic.
    Revision,
    /// The traffic alone.
    Traffic,
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
            Self::Keep | Self::ToLatest => None,
        }
    }
}

/// Decides the next change.
/// Fails when the desired state does not fit the current one.
pub(crate) fn decide(current: Option<&Service>, desired: &Desired) -> Result<Plan, PlanError> {
    let Some(current) = current else { return Ok(Plan::Create(new_service(desired))) };
    let container = current.container(desired.container.as_deref())?;
    let same_image = current.image(container) == Some(desired.image.as_str());
    let traffic = desired_traffic(current, desired, same_image)?;
    if same_image && traffic.is_none() {
        return Ok(Plan::Nothing);
    }
    let mut spec = json!({});
    if !same_image {
        spec["template"] = current.template_with(container, desired.image.as_str());
    }
    if let Some(traffic) = traffic {
        spec["traffic"] = traffic.to_spec();
    }
    let patch = json!({"metadata": {"resourceVersion": current.metadata.resource_version}, "spec": spec});
    Ok(Plan::Patch { patch, change: if same_image { Change::Traffic } else { Change::Revision } })
}

/// The traffic to write now; `None` if it stays as it is.
fn desired_traffic(current: &Service, desired: &Desired, same_image: bool) -> Result<Option<Traffic>, PlanError> {
    let spec = Traffic::from_spec(&current.spec.traffic);
    let wanted = match &desired.traffic {
        TrafficMode::Keep => return Ok(None),
        TrafficMode::NoTraffic { .. } if same_image => return Ok(None),
        TrafficMode::NoTraffic { tag } => pinned(current)?.with_latest(0, Some(tag)),
        TrafficMode::ToLatest => spec.clone().all_to_latest(),
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
        let pinned = pinned(current)?;
        match desired.traffic.tag() {
            Some(tag) => pinned.with_latest(0, Some(tag)),
            None => pinned,
        }
    };
    Ok((wanted != spec).then_some(wanted))
}

/// Whether users stay on their revisions until the new one is ready: until then, "latest" is the latest ready one.
fn is_safe_at_once(current: &Service, wanted: &Traffic) -> bool {
    let until_ready = match current.latest_ready() {
        Some(ready) => wanted.resolved(ready),
        // There are no users yet.
        None => return true,
    };
    until_ready.users() == Traffic::from_status(current.status_traffic()).users()
}

/// The current traffic, pinned to its revisions; empty for a Service that was never ready.
fn pinned(current: &Service) -> Result<Traffic, PlanError> {
    if !current.is_settled() {
        return Err(PlanError::Unsettled);
    }
    let status = Traffic::from_status(current.status_traffic());
    let (assigned, users) = (status.sum(), status.users());
    if assigned != 100 && !users.is_empty() {
        return Err(PlanError::Traffic(assigned));
    }
    let mut pinned = if users.is_empty() {
        match current.latest_ready() {
            Some(ready) => Traffic::all_to(Destination::Revision(ready.to_owned())),
            None => return Ok(Traffic::default()),
        }
    } else {
        Traffic::from_percentages(users)
    };
    for (tag, point) in Traffic::from_spec(&current.spec.traffic).tags() {
        // A tag stays on its revision.
        let revision = status.tags().find(|(other, _)| *other == tag).map_or(point, |(_, revision)| revision);
        pinned.add_tag(revision.clone(), tag);
    }
    Ok(pinned)
}

fn new_service(desired: &Desired) -> Value {
    let mut container = json!({
        "image": desired.image.as_str(),
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
    // The first revision gets all traffic.
    if let Some(tag) = desired.traffic.tag() {
        spec["traffic"] = Traffic::default().with_latest(0, Some(tag)).to_spec();
    }
    json!({
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
    })
}
