//! Templates: YAML is parsed first, then values go into string scalars; a value can never become structure.
//!
//! [`load()`] reads and checks files (the same code for `lint`, for the start and for a reload), and
//! [`TemplateSet::decide`] says which templates an event is for and makes their PipelineRuns.

mod compile;
mod conditions;
mod decide;
mod expression;
mod globs;
mod label;
mod load;
mod naming;
mod placeholder;
mod render;
mod schema;
mod yaml;

use serde_json::{Map, Value};

pub use conditions::{Conditions, Mismatch, PREFIX};
pub use decide::{Candidates, Decision};
pub use expression::{Expression, Name};
pub use load::{Finding, LoadError, Loaded, Severity, is_template_file, lint, load, parse};
pub use render::{PipelineRun, RenderError, Stamp};
pub use yaml::Position;

use globs::GlobIndex;
use placeholder::Text;

/// A checked template: one document of a template file.
#[derive(Debug, Clone)]
pub struct Template {
    base: Text,
    written_name: String,
    namespace: Option<String>,
    labels: Vec<(String, Text)>,
    annotations: Vec<(String, Text)>,
    metadata: Map<String, Value>,
    spec: Tree,
    conditions: Conditions,
    needs_cel: bool,
}

/// A template's value: what holds no placeholder is kept as it will be sent.
#[derive(Debug, Clone)]
enum Tree {
    Literal(Value),
    Text(Text),
    /// Where Tekton takes text, a list or a map: what the expression comes to.
    Param(Expression),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// All templates of a service.
#[derive(Debug, Clone, Default)]
pub struct TemplateSet {
    templates: Vec<Template>,
    /// No template is for anything but merges.
    only_merges: bool,
    /// By repository; without one all templates are asked.
    repositories: Option<GlobIndex>,
    /// Templates for any repository.
    anywhere: Vec<usize>,
}

impl Template {
    /// The template's name as written: `metadata.name`, or `metadata.generateName` without its last `-`.
    pub fn name(&self) -> &str {
        &self.written_name
    }

    /// What tells this template from the others of a set.
    fn identity(&self) -> (Option<&str>, &str) {
        (self.namespace.as_deref(), &self.written_name)
    }
}

impl TemplateSet {
    /// How many templates there are.
    pub fn len(&self) -> usize {
        self.templates.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// The templates, in the order of the files.
    pub fn iter(&self) -> impl Iterator<Item = &Template> {
        self.templates.iter()
    }
}

impl From<Vec<Template>> for TemplateSet {
    fn from(templates: Vec<Template>) -> Self {
        let only_merges = templates.iter().all(|template| template.conditions.wants_only_merges());
        let lists = templates.iter().enumerate().filter_map(|(index, template)| {
            let repositories = template.conditions.repositories();
            repositories.map(|globs| (index, globs))
        });
        let repositories = GlobIndex::build(lists);
        let is_for_any = |index: &usize| templates[*index].conditions.repositories().is_none();
        let anywhere = (0..templates.len()).filter(is_for_any).collect();
        Self { templates, only_merges, repositories, anywhere }
    }
}

/// The candidate that was probably meant, for "did you mean".
fn nearest<'c>(written: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let lower = written.to_lowercase();
    let allowed = (written.chars().count() / 3).max(1);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
pub(crate) mod testing {
    //! Events for tests.

    use http::HeaderMap;
    use serde_json::Value;

    use crate::delivery::{Delivery, DeliveryId, EventKind};
    use crate::event::Event;

    /// An event of this kind and payload.
    pub(crate) fn event(kind: &str, delivery: &str, payload: &Value) -> Event {
        let kind = EventKind::parse(kind).expect("a kind");
        let id = DeliveryId::parse(delivery).expect("an id");
        let mut headers = HeaderMap::new();
        headers.insert("x-github-event", kind.as_str().parse().expect("a value"));
        headers.insert("x-hub-signature-256", "sha256=0".parse().expect("a value"));
        Event::parse(Delivery::trusted(id, kind, headers, payload.to_string().into())).expect("an event")
    }
}
