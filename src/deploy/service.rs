//! The fields of a Knative Service that the Deployer reads.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::stamp::Stamp;

/// A `serving.knative.dev/v1` Service.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Service {
    /// Version and generation.
    pub(crate) metadata: Metadata,
    /// The desired state.
    pub(crate) spec: Spec,
    /// The current state; `None` until Knative writes it.
    #[serde(default)]
    pub(crate) status: Option<Status>,
}

/// An object's version and generation.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    /// Version for optimistic locking; changes with every write.
    #[serde(default)]
    pub(crate) resource_version: Option<String>,
    /// Increases with every change of the spec.
    #[serde(default)]
    pub(crate) generation: i64,
    /// Annotations, with the stamp of what is deployed.
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
    /// Set while the object is being deleted.
    #[serde(default)]
    pub(super) deletion_timestamp: Option<String>,
}

/// The desired state of a Service.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Spec {
    #[serde(default)]
    template: Template,
    /// Desired traffic; if empty, all traffic goes to the latest ready revision.
    #[serde(default)]
    pub(crate) traffic: Vec<Target>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Template {
    #[serde(default)]
    metadata: Option<TemplateMetadata>,
    #[serde(default)]
    spec: PodSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct TemplateMetadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    #[serde(default)]
    containers: Vec<Value>,
    #[serde(default)]
    init_containers: Vec<Value>,
}

/// One target in `spec.traffic` or `status.traffic`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    /// Tag, which gives the target its own URL.
    #[serde(default)]
    pub(crate) tag: Option<String>,
    /// Name of the revision; `None` in a spec for the latest ready one.
    #[serde(default)]
    pub(crate) revision_name: Option<String>,
    /// Whether the target follows the latest ready revision.
    #[serde(default)]
    pub(crate) latest_revision: Option<bool>,
    /// Percentage of the traffic; `None` means 0.
    #[serde(default)]
    pub(crate) percent: Option<i64>,
    /// URL of the tag; only in a status.
    #[serde(default)]
    pub(crate) url: Option<String>,
}

/// The current state of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// Generation of the spec that this status describes.
    #[serde(default)]
    pub(crate) observed_generation: Option<i64>,
    /// `Ready`, `ConfigurationsReady`, `RoutesReady`.
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
    /// Name of the newest revision, ready or not.
    #[serde(default)]
    pub(crate) latest_created_revision_name: Option<String>,
    /// Name of the newest revision that became ready.
    #[serde(default)]
    pub(crate) latest_ready_revision_name: Option<String>,
    /// Current traffic, always by revision.
    #[serde(default)]
    pub(crate) traffic: Vec<Target>,
    /// URL of the Service.
    #[serde(default)]
    pub(crate) url: Option<String>,
}

/// One condition of a status.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Condition {
    /// The type, e.g. `Ready`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    /// Machine-readable code of the cause, e.g. `RevisionFailed`.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Sentence that explains the cause.
    #[serde(default)]
    pub(crate) message: Option<String>,
}

/// A container of the template, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    /// One of `containers`.
    Main(usize),
    /// One of `initContainers`.
    Init(usize),
}

/// Why the container for the image cannot be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ContainerError {
    /// `--container` is not set, and there is no container or no clear choice.
    #[error("the Service has {0}; choose one with --container")]
    Ambiguous(String),
    /// The named container does not exist.
    #[error("the Service has no container {wanted}; it has {found}: correct --container")]
    Missing {
        /// The name in `--container`.
        wanted: String,
        /// The existing containers, in words.
        found: String,
    },
}

impl Service {
    /// The container for the image: the one called `name`, init containers included, else the only one, or the only one with
    /// a port.
    pub(super) fn container(&self, name: Option<&str>) -> Result<Container, ContainerError> {
        let PodSpec { containers, init_containers } = &self.spec.template.spec;
        if let Some(wanted) = name {
            let position = |list: &[Value]| list.iter().position(|container| container["name"] == wanted);
            let main = position(containers).map(Container::Main);
            return main
                .or_else(|| position(init_containers).map(Container::Init))
                .ok_or_else(|| ContainerError::Missing { wanted: wanted.to_owned(), found: self.container_names() });
        }
        if containers.len() == 1 {
            return Ok(Container::Main(0));
        }
        let has_port = |container: &Value| container["ports"].as_array().is_some_and(|ports| !ports.is_empty());
        let mut with_port = containers.iter().enumerate().filter(|(_, container)| has_port(container));
        match (with_port.next(), with_port.next()) {
            (Some((index, _)), None) => Ok(Container::Main(index)),
            _ => Err(ContainerError::Ambiguous(self.container_names())),
        }
    }

    fn container_names(&self) -> String {
        let name = |container: &Value| container["name"].as_str().unwrap_or("(without a name)").to_owned();
        let PodSpec { containers, init_containers } = &self.spec.template.spec;
        let names: Vec<String> = containers.iter().chain(init_containers).map(name).collect();
        match names.len() {
            0 => "no containers".to_owned(),
            1 => format!("the container {}", names[0]),
            _ => format!("the containers {}", names.join(", ")),
        }
    }

    /// Image of a container.
    pub(super) fn image(&self, container: Container) -> Option<&str> {
        let spec = &self.spec.template.spec;
        let container = match container {
            Container::Main(index) => spec.containers.get(index),
            Container::Init(index) => spec.init_containers.get(index),
        };
        container?["image"].as_str()
    }

    /// The `spec.template` of a merge patch that changes one image. It contains all containers of the list, because a merge
    /// patch replaces whole lists, and removes a fixed revision name, which a new revision must not reuse.
    pub(super) fn template_with(&self, container: Container, image: &str, annotations: Map<String, Value>) -> Value {
        let spec = &self.spec.template.spec;
        let (field, mut list, index) = match container {
            Container::Main(index) => ("containers", spec.containers.clone(), index),
            Container::Init(index) => ("initContainers", spec.init_containers.clone(), index),
        };
        if let Some(container) = list.get_mut(index) {
            container["image"] = image.into();
        }
        let mut template = json!({"spec": {field: list}});
        if self.spec.template.metadata.as_ref().is_some_and(|metadata| metadata.name.is_some()) {
            template["metadata"]["name"] = Value::Null;
        }
        if !annotations.is_empty() {
            template["metadata"]["annotations"] = annotations.into();
        }
        template
    }

    /// The stamp of what is deployed.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::from_annotations(&self.metadata.annotations)
    }

    /// The stamp of the newest revision.
    pub(super) fn template_stamp(&self) -> Stamp {
        let metadata = self.spec.template.metadata.as_ref();
        metadata.map(|metadata| Stamp::from_annotations(&metadata.annotations)).unwrap_or_default()
    }

    /// An annotation of the newest revision.
    pub(super) fn template_annotation(&self, key: &str) -> Option<&str> {
        self.spec.template.metadata.as_ref()?.annotations.get(key).map(String::as_str)
    }

    /// An annotation of the Service.
    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.get(key).map(String::as_str)
    }

    /// Whether the Service is being deleted.
    pub(super) fn is_being_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether the newest revision has failed, as far as the Service says.
    pub(super) fn latest_has_failed(&self) -> bool {
        let conditions = self.status.as_ref().map_or(&[][..], |status| &status.conditions);
        let failed = |condition: &Condition| condition.kind == "ConfigurationsReady" && condition.status == "False";
        self.is_settled() && self.latest_created() != self.latest_ready() && conditions.iter().any(failed)
    }

    fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.kind == kind)
    }

    /// A revision that the traffic names and that does not exist, for example because it was deleted. Nobody reaches it, and the
    /// whole route stays as it was before.
    pub(super) fn missing_revision(&self) -> Option<&str> {
        let routes = self.condition("RoutesReady").filter(|_| self.is_settled())?;
        let message = routes.message.as_deref().filter(|_| routes.reason.as_deref() == Some("RevisionMissing"))?;
        // Revision "web-1" referenced in traffic not found.
        let name = message.split('"').nth(1)?;
        self.spec.traffic.iter().any(|target| target.revision_name.as_deref() == Some(name)).then_some(name)
    }

    /// Whether users are moved to the newest revision little by little (`serving.knative.dev/rollout-duration`).
    pub(crate) fn is_moving_users(&self) -> bool {
        let is_moving = |condition: &Condition| condition.reason.as_deref() == Some("RolloutInProgress");
        self.latest_is_ready()
            && ["RoutesReady", "Ready"].iter().any(|kind| self.condition(kind).is_some_and(is_moving))
    }

    /// The revision that has all users; `None` if several have some, or none has.
    pub(crate) fn revision_with_all_users(&self) -> Option<&str> {
        let mut users = self.status_traffic().iter().filter(|target| target.percent.is_some_and(|percent| percent > 0));
        let first = users.next()?.revision_name.as_deref()?;
        users.all(|target| target.revision_name.as_deref() == Some(first)).then_some(first)
    }

    /// Percentage of users on a revision.
    pub(crate) fn percent_on(&self, revision: &str) -> i64 {
        let on = self.status_traffic().iter().filter(|target| target.revision_name.as_deref() == Some(revision));
        on.filter_map(|target| target.percent).sum()
    }

    /// Whether the status describes the current spec.
    pub(crate) fn is_settled(&self) -> bool {
        let observed = self.status.as_ref().and_then(|status| status.observed_generation);
        observed.is_none_or(|observed| observed >= self.metadata.generation)
    }

    pub(super) fn status_traffic(&self) -> &[Target] {
        self.status.as_ref().map_or(&[], |status| &status.traffic)
    }

    /// Name of the newest revision that became ready; `None` if none has.
    pub(crate) fn latest_ready(&self) -> Option<&str> {
        self.status.as_ref()?.latest_ready_revision_name.as_deref()
    }

    /// Name of the newest revision, ready or not.
    pub(crate) fn latest_created(&self) -> Option<&str> {
        self.status.as_ref()?.latest_created_revision_name.as_deref()
    }

    /// Whether the newest revision is ready; the route need not be.
    pub(crate) fn latest_is_ready(&self) -> bool {
        self.is_settled() && self.latest_created().is_some() && self.latest_created() == self.latest_ready()
    }

    /// The current traffic in words, e.g. `users: 90 % on web-1, 10 % on web-2`.
    pub(crate) fn users(&self) -> String {
        let users =
            self.status_traffic().iter().filter_map(|target| Some((target.percent?, target.revision_name.as_ref()?)));
        let users: Vec<String> =
            users.filter(|(percent, _)| *percent > 0).map(|(percent, name)| format!("{percent} % on {name}")).collect();
        if users.is_empty() { "no revision has users yet".to_owned() } else { format!("users: {}", users.join(", ")) }
    }

    /// URL of the Service; `None` until Knative assigns it.
    pub(crate) fn url(&self) -> Option<&str> {
        self.status.as_ref()?.url.as_deref()
    }

    /// URL of a tag; `None` if the status has no such tag or URL yet.
    pub(crate) fn tag_url(&self, tag: &str) -> Option<&str> {
        self.status_traffic().iter().find(|target| target.tag.as_deref() == Some(tag))?.url.as_deref()
    }
}
