//! Templates: YAML is parsed first, then values go into string scalars; a value can never become structure.
//!
//! [`load()`] reads and checks files (the same code for `lint`, for the start and for a reload), [`TemplateSet::select`]
//! says which templates an event is for, and [`Template::render`] makes the PipelineRun.

mod compile;
mod conditions;
mod expression;
mod label;
mod load;
mod naming;
mod placeholder;
mod render;
mod schema;
mod yaml;

use serde_json::{Map, Value};

pub use conditions::{Conditions, Mismatch, PREFIX};
pub use expression::Name;
pub use load::{Finding, LoadError, Loaded, Severity, is_template_file, lint, load, parse};
pub use render::{PipelineRun, RenderError, Stamp};
pub use yaml::Position;

use crate::event::Event;
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
}

/// A template's value: what holds no placeholder is kept as it will be sent.
#[derive(Debug, Clone)]
enum Tree {
    Literal(Value),
    Text(Text),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// All templates of a service.
#[derive(Debug, Clone, Default)]
pub struct TemplateSet {
    templates: Vec<Template>,
}

/// Which templates an event is for.
#[derive(Debug)]
pub struct Selection<'t> {
    /// Those whose conditions all hold.
    pub matching: Vec<&'t Template>,
    /// The others, each with the first condition that did not hold.
    pub others: Vec<(&'t Template, Mismatch)>,
}

impl Template {
    /// The template's name as written: `metadata.name`, or `metadata.generateName` without its last `-`.
    pub fn name(&self) -> &str {
        &self.written_name
    }

    /// Whether the template is for this event.
    ///
    /// # Errors
    /// The first condition that did not hold.
    pub fn check(&self, event: &Event) -> Result<(), Mismatch> {
        self.conditions.check(event)
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

    /// Sorts the templates by whether they are for this event.
    pub fn select(&self, event: &Event) -> Selection<'_> {
        let mut selection = Selection { matching: Vec::new(), others: Vec::new() };
        for template in &self.templates {
            match template.check(event) {
                Ok(()) => selection.matching.push(template),
                Err(mismatch) => selection.others.push((template, mismatch)),
            }
        }
        selection
    }
}

impl Selection<'_> {
    /// Why no template matches, in one sentence; the first few templates in full.
    pub fn explain(&self) -> String {
        const SHOWN: usize = 3;
        let mut reasons: Vec<String> = self
            .others
            .iter()
            .take(SHOWN)
            .map(|(template, mismatch)| format!("template {}: {mismatch}", template.name()))
            .collect();
        if self.others.len() > SHOWN {
            reasons.push(format!("and {} more templates", self.others.len() - SHOWN));
        }
        format!("no template matches: {}", reasons.join("; "))
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
