//! A checked template, and the set of all templates of a service.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::conditions::Conditions;
use super::expression::Expression;
use super::finding::{Finding, Severity};
use super::globs::{GlobIndex, Globs};
use super::placeholder::Text;
use super::yaml::Position;

/// Least number of templates with `on-repository` for an index. Fewer are compared fast enough one by one, and building the
/// index takes as long as compiling all of their globs again.
pub(super) const INDEXED_FROM: usize = 8;

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
    /// File of the template, and position of its name.
    pub(super) origin: (PathBuf, Position),
}

/// A value of a template; values without placeholders are stored as they will be sent.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Literal(Value),
    Text(Text),
    /// Value of a param: the result of the expression, which may be text, a list or a map.
    Param(Expression),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

/// All templates of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct TemplateSet {
    pub(super) templates: Vec<Template>,
    /// Whether all templates are for merges only.
    pub(super) only_merges: bool,
    /// Index of the templates by `on-repository`; `None` for a few, or too many for one index: then all are checked.
    pub(super) repositories: Option<GlobIndex>,
    /// Indices of the templates without `on-repository`.
    pub(super) for_any_repository: Vec<usize>,
}

impl Template {
    /// The template's name as written: `metadata.name`, or `metadata.generateName` without its last `-`.
    pub(crate) fn name(&self) -> &str {
        &self.written_name
    }

    /// The namespace that is written in the template.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// An error that was found outside its text, at the position of its name.
    pub(crate) fn finding(&self, message: String) -> Finding {
        let (file, at) = self.origin.clone();
        Finding { file, at, severity: Severity::Error, message }
    }

    /// Namespace (`None` if not written) and name; unique in a set.
    pub(super) fn identity(&self) -> (Option<&str>, &str) {
        (self.namespace.as_deref(), &self.written_name)
    }
}

impl TemplateSet {
    /// Number of templates.
    pub(crate) fn len(&self) -> usize {
        self.templates.len()
    }

    /// Whether `on-repository` of a template takes the repository.
    pub(crate) fn names_repository(&self, name: &str) -> bool {
        match &self.repositories {
            Some(index) => index.matches(name),
            None => {
                self.iter().filter_map(|template| template.conditions.repositories()).any(|globs| globs.matches(name))
            }
        }
    }

    /// Whether a template takes every repository.
    pub(crate) fn takes_any_repository(&self) -> bool {
        !self.for_any_repository.is_empty()
    }

    /// The templates, in the order of the files.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Template> {
        self.templates.iter()
    }
}

impl From<Vec<Template>> for TemplateSet {
    fn from(templates: Vec<Template>) -> Self {
        let only_merges = templates.iter().all(|template| template.conditions.wants_only_merges());
        let lists: Vec<(usize, &Globs)> = templates
            .iter()
            .enumerate()
            .filter_map(|(index, template)| Some((index, template.conditions.repositories()?)))
            .collect();
        let repositories = if lists.len() < INDEXED_FROM { None } else { GlobIndex::build(lists.into_iter()) };
        let is_for_any = |index: &usize| templates[*index].conditions.repositories().is_none();
        let for_any_repository = (0..templates.len()).filter(is_for_any).collect();
        Self { templates, only_merges, repositories, for_any_repository }
    }
}
