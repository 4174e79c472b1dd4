//! A checked template, and the set of all templates of a service.

use serde_json::{Map, Value};

use super::conditions::Conditions;
use super::expression::Expression;
use super::globs::GlobIndex;
use super::placeholder::Text;

/// A checked template: one document of a template file.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(super) base: Text,
    pub(super) written_name: String,
    pub(super) namespace: Option<String>,
    pub(super) labels: Vec<(String, Text)>,
    pub(super) annotations: Vec<(String, Text)>,
    pub(super) metadata: Map<String, Value>,
    pub(super) spec: Tree,
    pub(super) conditions: Conditions,
    pub(super) needs_cel: bool,
}

/// A template's value: what holds no placeholder is kept as it will be sent.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Literal(Value),
    Text(Text),
    /// Where Tekton takes text, a list or a map: what the expression comes to.
    Param(Expression),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// All templates of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct TemplateSet {
    pub(super) templates: Vec<Template>,
    /// No template is for anything but merges.
    pub(super) only_merges: bool,
    /// By repository; without one all templates are asked.
    pub(super) repositories: Option<GlobIndex>,
    /// Templates for any repository.
    pub(super) anywhere: Vec<usize>,
}

impl Template {
    /// The template's name as written: `metadata.name`, or `metadata.generateName` without its last `-`.
    pub(crate) fn name(&self) -> &str {
        &self.written_name
    }

    /// What tells this template from the others of a set.
    pub(super) fn identity(&self) -> (Option<&str>, &str) {
        (self.namespace.as_deref(), &self.written_name)
    }
}

impl TemplateSet {
    /// How many templates there are.
    pub(crate) fn len(&self) -> usize {
        self.templates.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.templates.is_empty()
    }

    /// The templates, in the order of the files.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Template> {
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
