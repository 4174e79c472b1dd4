//! A Knative Service, as far as the Deployer reads it.

use serde::Deserialize;
use serde_json::{Value, json};

/// A `serving.knative.dev/v1` Service.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Service {
    /// Its identity.
    pub(crate) metadata: Metadata,
    /// What is wanted of it.
    pub(crate) spec: Spec,
    /// What Knative has made of that.
    #[serde(default)]
    pub(crate) status: Option<Status>,
}

/// The identity of an object, and its version.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Metadata {
    /// Changes with every write.
    #[serde(default)]
    pub(crate) resource_version: Option<String>,
    /// Changes with every write of the spec.
    #[serde(default)]
    pub(crate) generation: i64,
}

/// What is wanted.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Spec {
    #[serde(default)]
    template: Template,
    /// Who is to see which revision.
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
}

#[derive(Debug, Clone, Default, Deserialize)]
struct PodSpec {
    #[serde(default)]
    containers: Vec<Value>,
}

/// One traffic target.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    /// Its own URL is below this name.
    #[serde(default)]
    pub(crate) tag: Option<String>,
    /// The revision.
    #[serde(default)]
    pub(crate) revision_name: Option<String>,
    /// Whether it is whichever revision is the latest ready one.
    #[serde(default)]
    pub(crate) latest_revision: Option<bool>,
    /// Of a hundred users; none is zero.
    #[serde(default)]
    pub(crate) percent: Option<i64>,
    /// The tag's URL, in a status.
    #[serde(default)]
    pub(crate) url: Option<String>,
}

/// What Knative has made of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The generation that this is about.
    #[serde(default)]
    pub(crate) observed_generation: Option<i64>,
    /// `Ready`, `ConfigurationsReady`, `RoutesReady`.
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
    /// The newest revision.
    #[serde(default)]
    pub(crate) latest_created_revision_name: Option<String>,
    /// The newest revision that has become ready.
    #[serde(default)]
    pub(crate) latest_ready_revision_name: Option<String>,
    /// Who sees which revision.
    #[serde(default)]
    pub(crate) traffic: Vec<Target>,
    /// The Service's URL.
    #[serde(default)]
    pub(crate) url: Option<String>,
}

/// One condition of a status.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Condition {
    /// Its name.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: String,
    /// Why, in one word.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Why, in a sentence.
    #[serde(default)]
    pub(crate) message: Option<String>,
}

/// Why it is not clear which container gets the image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ContainerError {
    /// No container, or several, could be meant.
    #[error("the Service has {0}; name one with --container")]
    Ambiguous(String),
    /// The named container does not exist.
    #[error("the Service has no container {wanted}, it has {found}")]
    Missing {
        /// The name in `--container`.
        wanted: String,
        /// The names that exist.
        found: String,
    },
}

impl Service {
    /// The place of the container that gets the image: the one called `name`, the only one, or the one with a port.
    pub(super) fn container(&self, name: Option<&str>) -> Result<usize, ContainerError> {
        let containers = &self.spec.template.spec.containers;
        if let Some(wanted) = name {
            return containers
                .iter()
                .position(|container| container["name"] == wanted)
                .ok_or_else(|| ContainerError::Missing { wanted: wanted.to_owned(), found: self.container_names() });
        }
        if containers.len() == 1 {
            return Ok(0);
        }
        let has_port = |container: &Value| container["ports"].as_array().is_some_and(|ports| !ports.is_empty());
        let mut with_port = containers.iter().enumerate().filter(|(_, container)| has_port(container));
        match (with_port.next(), with_port.next()) {
            (Some((index, _)), None) => Ok(index),
            _ => Err(ContainerError::Ambiguous(self.container_names())),
        }
    }

    fn container_names(&self) -> String {
        let name = |container: &Value| container["name"].as_str().unwrap_or("(without a name)").to_owned();
        let names: Vec<String> = self.spec.template.spec.containers.iter().map(name).collect();
        match names.len() {
            0 => "no containers".to_owned(),
            1 => format!("the container {}", names[0]),
            _ => format!("the containers {}", names.join(", ")),
        }
    }

    /// The image of a container.
    pub(super) fn image(&self, container: usize) -> Option<&str> {
        self.spec.template.spec.containers.get(container)?["image"].as_str()
    }

    /// The part of a merge patch that changes one image. A list is replaced as a whole, so that all containers are in
    /// it; a revision's own name goes, because another template must not have it.
    pub(super) fn template_with(&self, container: usize, image: &str) -> Value {
        let mut containers = self.spec.template.spec.containers.clone();
        if let Some(container) = containers.get_mut(container) {
            container["image"] = image.into();
        }
        let mut template = json!({"spec": {"containers": containers}});
        let own_name = self.spec.template.metadata.as_ref().and_then(|metadata| metadata.name.as_ref());
        if own_name.is_some() {
            template["metadata"] = json!({"name": null});
        }
        template
    }

    /// Whether the status is about the spec that stands there now.
    pub(crate) fn is_settled(&self) -> bool {
        let observed = self.status.as_ref().and_then(|status| status.observed_generation);
        observed.is_none_or(|observed| observed >= self.metadata.generation)
    }

    pub(super) fn status_traffic(&self) -> &[Target] {
        self.status.as_ref().map_or(&[], |status| &status.traffic)
    }

    /// The newest revision that has become ready.
    pub(crate) fn latest_ready(&self) -> Option<&str> {
        self.status.as_ref()?.latest_ready_revision_name.as_deref()
    }

    /// The newest revision.
    pub(crate) fn latest_created(&self) -> Option<&str> {
        self.status.as_ref()?.latest_created_revision_name.as_deref()
    }

    /// Whether the newest revision is ready, whatever the route is.
    pub(crate) fn latest_is_ready(&self) -> bool {
        self.is_settled() && self.latest_created().is_some() && self.latest_created() == self.latest_ready()
    }

    /// Where users are, in words.
    pub(crate) fn users(&self) -> String {
        let users =
            self.status_traffic().iter().filter_map(|target| Some((target.percent?, target.revision_name.as_ref()?)));
        let users: Vec<String> =
            users.filter(|(percent, _)| *percent > 0).map(|(percent, name)| format!("{percent} % on {name}")).collect();
        if users.is_empty() { "no users anywhere yet".to_owned() } else { format!("users: {}", users.join(", ")) }
    }

    /// The Service's URL.
    pub(crate) fn url(&self) -> Option<&str> {
        self.status.as_ref()?.url.as_deref()
    }

    /// The URL of a tag.
    pub(crate) fn tag_url(&self, tag: &str) -> Option<&str> {
        self.status_traffic().iter().find(|target| target.tag.as_deref() == Some(tag))?.url.as_deref()
    }
}
