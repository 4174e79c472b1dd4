//! The Deployer's decision: today's Knative Service and a wish to the change that fulfils it. Nothing here does I/O.
//!
//! A rollout is decided again and again from what the Service is then, until there is nothing left to do: a wish that
//! could send users to something unready if it were fulfilled at once is fulfilled in two changes, the new revision
//! first and its traffic when it is ready.

mod image;
mod progress;
mod service;
mod traffic;

use serde_json::{Value, json};

pub use image::{Image, ImageError};
pub use progress::{Expected, Progress, progress};
pub use service::{Service, Target};
use traffic::{Point, Traffic};

/// What somebody wants to be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The Service's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The image to run.
    pub image: Image,
    /// Which container gets it; nothing for the only one, or the one with a port.
    pub container: Option<String>,
    /// The port of a Service that has to be created.
    pub port: Option<u16>,
    /// Who gets to see it.
    pub rollout: Rollout,
    /// Whether the new revision's traffic can be given to it later, when it is ready.
    pub in_stages: bool,
}

/// Who gets to see a new revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rollout {
    /// Whom `spec.traffic` says; it is left alone.
    Keep,
    /// Nobody but who knows the tag's URL.
    NoTraffic {
        /// The tag.
        tag: String,
    },
    /// Everybody.
    ToLatest,
    /// Some of a hundred.
    Canary {
        /// How many, 1 to 99.
        percent: u8,
        /// A tag, to see it for sure.
        tag: Option<String>,
    },
}

/// The next change.
#[derive(Debug, Clone, PartialEq)]
pub enum Plan {
    /// There is no such Service: create this one.
    Create(Value),
    /// A JSON merge patch, good for the version of the Service that it was made from.
    Patch {
        /// The patch.
        patch: Value,
        /// Whether it makes a new revision.
        new_revision: bool,
    },
    /// It is what was wished for.
    Nothing,
}

/// Why a wish cannot be fulfilled; nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// It is not clear which container is meant.
    #[error("the Service has {0}; say which one with --container")]
    Container(String),
    /// There is no such container.
    #[error("the Service has no container {wanted}, it has {found}")]
    NoContainer {
        /// The name that was asked for.
        wanted: String,
        /// The names that there are.
        found: String,
    },
    /// What it says of its traffic does not add up.
    #[error(
        "the Service's status says that {0} % of the traffic are assigned, not 100; wait until it is settled (kubectl get \
         ksvc), or use --to-latest"
    )]
    Traffic(i64),
    /// A change that Knative has not seen yet may change the traffic.
    #[error("Knative has not taken up the last change of the Service yet (is its controller running?)")]
    Unsettled,
}

impl Rollout {
    /// The tag under which the new revision can be seen.
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::NoTraffic { tag } => Some(tag),
            Self::Canary { tag, .. } => tag.as_deref(),
            Self::Keep | Self::ToLatest => None,
        }
    }
}

/// Decides what is to be done next.
///
/// # Errors
/// When the wish does not fit the Service.
pub fn decide(today: Option<&Service>, wish: &Wish) -> Result<Plan, PlanError> {
    let Some(today) = today else { return Ok(Plan::Create(new_service(wish))) };
    let container = today.container(wish.container.as_deref())?;
    let same_image = today.image(container) == Some(wish.image.as_str());
    let traffic = wanted_traffic(today, wish, same_image)?;
    if same_image && traffic.is_none() {
        return Ok(Plan::Nothing);
    }
    let mut spec = json!({});
    if !same_image {
        spec["template"] = today.template_with(container, wish.image.as_str());
    }
    if let Some(traffic) = traffic {
        spec["traffic"] = traffic.to_spec();
    }
    let patch = json!({"metadata": {"resourceVersion": today.metadata.resource_version}, "spec": spec});
    Ok(Plan::Patch { patch, new_revision: !same_image })
}

/// The traffic that is to be written now; nothing if it stays as it is.
fn wanted_traffic(today: &Service, wish: &Wish, same_image: bool) -> Result<Option<Traffic>, PlanError> {
    let spec = Traffic::of_spec(&today.spec.traffic);
    let wanted = match &wish.rollout {
        Rollout::Keep => return Ok(None),
        Rollout::NoTraffic { .. } if same_image => return Ok(None),
        Rollout::NoTraffic { tag } => pinned(today)?.with_latest(0, Some(tag)),
        Rollout::ToLatest => spec.clone().all_to_latest(),
        Rollout::Canary { percent, tag } => {
            let rest = if same_image { pinned(today)?.without(today.latest_created()) } else { pinned(today)? };
            if rest.is_empty() {
                return Ok(None);
            }
            rest.scaled_to(100 - i64::from(*percent)).with_latest(i64::from(*percent), tag.as_deref())
        }
    };
    let wanted = if same_image || !wish.in_stages || is_safe_at_once(today, &wanted) {
        wanted
    } else {
        let pinned = pinned(today)?;
        match wish.rollout.tag() {
            Some(tag) => pinned.with_latest(0, Some(tag)),
            None => pinned,
        }
    };
    Ok((wanted != spec).then_some(wanted))
}

/// Whether users stay where they are until the new revision is ready: up to then, "latest" is the latest ready one.
fn is_safe_at_once(today: &Service, wanted: &Traffic) -> bool {
    let until_ready = match today.latest_ready() {
        Some(ready) => wanted.resolved(ready),
        // Nobody is anywhere yet.
        None => return true,
    };
    until_ready.users() == Traffic::of_status(today.status_traffic()).users()
}

/// Where users are today, by revision; a Service that was never ready has none.
fn pinned(today: &Service) -> Result<Traffic, PlanError> {
    if !today.is_settled() {
        return Err(PlanError::Unsettled);
    }
    let status = Traffic::of_status(today.status_traffic());
    let (assigned, users) = (status.sum(), status.users());
    if assigned != 100 && !users.is_empty() {
        return Err(PlanError::Traffic(assigned));
    }
    let mut pinned = if users.is_empty() {
        match today.latest_ready() {
            Some(ready) => Traffic::all_to(Point::Revision(ready.to_owned())),
            None => return Ok(Traffic::default()),
        }
    } else {
        Traffic::of_users(users)
    };
    for (tag, point) in Traffic::of_spec(&today.spec.traffic).tags() {
        // What a tag shows today, it shows tomorrow.
        let revision = status.tags().find(|(other, _)| *other == tag).map_or(point, |(_, revision)| revision);
        pinned.add_tag(revision.clone(), tag);
    }
    Ok(pinned)
}

fn new_service(wish: &Wish) -> Value {
    let mut container = json!({
        "image": wish.image.as_str(),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": true,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    if let Some(name) = &wish.container {
        container["name"] = name.as_str().into();
    }
    if let Some(port) = wish.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    let mut spec = json!({"template": {"spec": {"containers": [container]}}});
    // The first revision has nobody to share with.
    if let Some(tag) = wish.rollout.tag() {
        spec["traffic"] = Traffic::default().with_latest(0, Some(tag)).to_spec();
    }
    json!({
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {
            "name": wish.name,
            "namespace": wish.namespace,
            "labels": {
                "app.kubernetes.io/name": wish.name,
                "app.kubernetes.io/managed-by": "github-trigger",
            },
        },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests;
