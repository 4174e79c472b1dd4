//! Compiles a parsed document into a checked [`Template`]; finds every fault that does not depend on an event.

use std::path::PathBuf;

use serde_json::{Map, Value as Json};

use super::conditions::{Conditions, PREFIX};
use super::expression::Name;
use super::model::{Template, Tree};
use super::placeholder::{self, Part, Text};
use super::yaml::{Fault, Node, Position, Value};
use super::{event_names, injection, labels, migration, naming, schema, tekton};
use crate::delivery::EventKind;
use crate::names;

/// A template without faults, and its warnings.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Template that is ready to render.
    pub(super) template: Template,
    /// Position of the value of `metadata.name` or `metadata.generateName`.
    pub(super) at: Position,
    /// Valid, but probably mistakes.
    pub(super) warnings: Vec<Fault>,
}

/// Checks and compiles one document.
/// Fails with every fault of the document.
pub(super) fn compile(document: &Node) -> Result<Compiled, Vec<Fault>> {
    let mut compiler = Compiler::default();
    let compiled = compiler.document(document);
    match compiled {
        Some(compiled) if compiler.faults.is_empty() => Ok(Compiled { warnings: compiler.warnings, ..compiled }),
        _ => Err(compiler.faults),
    }
}

#[derive(Default)]
struct Compiler {
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    /// Every name that the template cannot be rendered without.
    names: Vec<(Position, Name)>,
}

impl Compiler {
    fn fault(&mut self, at: Position, message: impl Into<String>) {
        self.faults.push(Fault { at, message: message.into() });
    }

    fn document(&mut self, document: &Node) -> Option<Compiled> {
        if !matches!(document.value, Value::Mapping(_)) {
            self.fault(document.at, format!("a template must be a PipelineRun, not {}", document.kind()));
            return None;
        }
        // Another kind of object gets one finding instead of one for each of its fields.
        if !self.kind(document) {
            return None;
        }
        schema::check(document, &mut self.faults);
        tekton::check(document, &mut self.faults);
        migration::check(document, &mut self.faults);
        let metadata = document.get("metadata");
        let (at, base, written_name) = self.name(document, metadata)?;
        let annotations = metadata.and_then(|metadata| metadata.get("annotations"));
        let conditions = Conditions::read(annotations, &mut self.faults, &mut self.warnings);
        if conditions.repositories().is_none() {
            self.warnings.push(Fault {
                at,
                message: format!(
                    "this template matches every repository that can reach the service; \
                     set the annotation `{PREFIX}on-repository`, for example `acme/*`"
                ),
            });
        }
        let labels = self.strings(metadata, "labels");
        let annotations = self.strings(metadata, "annotations");
        let spec = self.spec(document)?;
        self.check_names(&conditions);
        injection::check(document, &conditions, &mut self.faults, &mut self.warnings);
        let needs_cel = {
            let mut texts = [&base].into_iter().chain(labels.iter().chain(&annotations).map(|(_, text)| text));
            conditions.needs_cel() || spec.needs_cel() || texts.any(Text::needs_cel)
        };
        let template = Template {
            namespace: self.namespace(metadata),
            metadata: self.other_metadata(metadata),
            base,
            written_name,
            labels,
            annotations,
            spec,
            conditions,
            needs_cel,
            origin: (PathBuf::new(), at),
        };
        Some(Compiled { template, at, warnings: Vec::new() })
    }

    /// Checks `kind` and `apiVersion`. Returns `true` for a PipelineRun of `tekton.dev/v1` or of an older API.
    fn kind(&mut self, document: &Node) -> bool {
        let before = self.faults.len();
        match document.get("kind") {
            None => self.fault(document.at, "`kind` is missing; write `kind: PipelineRun`"),
            Some(kind) if kind.text() != Some("PipelineRun") => {
                let got = kind.text().unwrap_or(kind.kind());
                let message = format!("a template's `kind` must be PipelineRun, not {got}{}", migration::kind(got));
                self.fault(kind.at, message);
                // Its version is that of another API.
                return false;
            }
            Some(_) => {}
        }
        match document.get("apiVersion") {
            None => self.fault(document.at, "`apiVersion` is missing; write `apiVersion: tekton.dev/v1`"),
            Some(version) => match version.text() {
                Some("tekton.dev/v1") => {}
                Some(old @ ("tekton.dev/v1alpha1" | "tekton.dev/v1beta1")) => {
                    self.fault(version.at, format!("`{old}` is an older API; write `apiVersion: tekton.dev/v1`"));
                    // The fields of the older API are reported, too.
                    return self.faults.len() == before + 1;
                }
                other => {
                    let message = format!(
                        "a template's `apiVersion` must be tekton.dev/v1, not {}",
                        other.unwrap_or_else(|| version.kind())
                    );
                    self.fault(version.at, message);
                }
            },
        }
        self.faults.len() == before
    }

    fn name(&mut self, document: &Node, metadata: Option<&Node>) -> Option<(Position, Text, String)> {
        let named = metadata.and_then(|metadata| metadata.get("name").or_else(|| metadata.get("generateName")));
        let Some(node) = named else {
            let at = metadata.map_or(document.at, |metadata| metadata.at);
            self.fault(at, "`metadata.name` is missing; write the first part of the run's name");
            return None;
        };
        let Some(written) = node.text() else {
            self.fault(node.at, format!("`metadata.name` must be text, not {}", node.kind()));
            return None;
        };
        let text = self.text(node, written)?;
        let invalid = match text.parts.as_slice() {
            [Part::Expression(_), ..] | [_, _, ..] => text
                .literals()
                .find_map(|(index, literal)| naming::literal(literal, index == 0).err().map(|error| error.to_string())),
            _ => naming::base(written).err().map(|error| error.to_string()),
        };
        if let Some(message) = invalid {
            self.fault(node.at, message);
            return None;
        }
        Some((node.at, text, written.trim_end_matches('-').to_owned()))
    }

    fn namespace(&mut self, metadata: Option<&Node>) -> Option<String> {
        let node = metadata?.get("namespace")?;
        match node.text() {
            Some(text) if placeholder::present(text) => {
                let message = "the namespace decides the permissions of a run; write it out, without a placeholder";
                self.fault(node.at, message);
            }
            Some(text) if names::is_dns_label(text) => return Some(text.to_owned()),
            _ => {
                let message = "`metadata.namespace` is not a valid name; use lower case letters, digits and `-`";
                self.fault(node.at, message);
            }
        }
        None
    }

    /// Compiles the labels or annotations.
    fn strings(&mut self, metadata: Option<&Node>, field: &str) -> Vec<(String, Text)> {
        let Some(node) = metadata.and_then(|metadata| metadata.get(field)) else {
            return Vec::new();
        };
        if !matches!(node.value, Value::Mapping(_) | Value::Null) {
            self.fault(node.at, format!("`metadata.{field}` must be a map, not {}", node.kind()));
        }
        let mut strings = Vec::new();
        for (key, value) in node.entries() {
            if self.refuse_key_placeholder(key.at, &key.name) {
                continue;
            }
            if !names::is_key(&key.name) {
                let message = format!("`{}` is not a valid key in {field}; write `name` or `prefix/name`", key.name);
                self.fault(key.at, message);
            }
            if field == "labels" && key.name.starts_with(PREFIX) {
                self.fault(key.at, format!("labels with {PREFIX} are set by this service; choose another prefix"));
            }
            let Some(text) = value.text() else {
                let advice =
                    if value.value == Value::Null { "write \"\" or remove the line" } else { "write it in quotes" };
                self.fault(value.at, format!("`{}` must be text, not {}; {advice}", key.name, value.kind()));
                continue;
            };
            if let Some(compiled) = self.text(value, text) {
                if field == "labels" {
                    self.label(value.at, &key.name, &compiled);
                }
                strings.push((key.name.clone(), compiled));
            }
        }
        strings
    }

    /// Rejects a label value that is invalid for every event.
    fn label(&mut self, at: Position, key: &str, text: &Text) {
        if let Some(fault) = labels::fault(text) {
            self.fault(at, format!("the label `{key}` can never be valid: {fault}"));
        }
    }

    /// Copies `finalizers` and `ownerReferences` unchanged.
    fn other_metadata(&mut self, metadata: Option<&Node>) -> Map<String, Json> {
        let mut other = Map::new();
        for field in ["finalizers", "ownerReferences"] {
            if let Some(node) = metadata.and_then(|metadata| metadata.get(field)) {
                match self.tree(node, field) {
                    Tree::Literal(value) => {
                        other.insert(field.to_owned(), value);
                    }
                    _ => {
                        let message = format!("`metadata.{field}` cannot contain a placeholder; write the value out");
                        self.fault(node.at, message);
                    }
                }
            }
        }
        other
    }

    fn spec(&mut self, document: &Node) -> Option<Tree> {
        let Some((key, spec)) = document.entry("spec") else {
            self.fault(document.at, "`spec` is missing; a run needs `spec.pipelineRef` or `spec.pipelineSpec`");
            return None;
        };
        match (spec.get("pipelineRef"), spec.get("pipelineSpec")) {
            (None, None) => self.fault(key.at, "`spec` names no pipeline; write `pipelineRef` or `pipelineSpec`"),
            (Some(_), Some(second)) => {
                self.fault(second.at, "`spec` has both `pipelineRef` and `pipelineSpec`; remove one");
            }
            _ => {}
        }
        Some(self.tree(spec, "spec"))
    }

    fn tree(&mut self, node: &Node, path: &str) -> Tree {
        match &node.value {
            Value::Null => {
                if is_param_value(path) {
                    self.fault(node.at, "the value of a param is empty; write \"\" for an empty text");
                }
                Tree::Literal(Json::Null)
            }
            Value::Bool(value) => Tree::Literal((*value).into()),
            Value::Number(value) => Tree::Literal(value.clone().into()),
            Value::Text(text) if !placeholder::present(text) => Tree::Literal(text.clone().into()),
            Value::Text(text) => {
                self.refuse_shell(node, text, path);
                match self.text(node, text) {
                    None => Tree::Literal(Json::Null),
                    Some(text) if is_param_value(path) => text.into_param(),
                    Some(text) => Tree::Text(text),
                }
            }
            Value::Sequence(items) => {
                if let Some(item) = items.iter().find(|item| is_param_value(path) && item.text().is_none()) {
                    let advice = match item.value {
                        Value::Mapping(_) | Value::Sequence(_) => "write the list as JSON text, in quotes",
                        _ => "write each in quotes",
                    };
                    let message = format!("a param's list takes texts only, not {}; {advice}", item.kind());
                    self.fault(item.at, message);
                }
                let path = format!("{path}[]");
                let trees = items.iter().map(|item| self.tree(item, &path)).collect();
                fold_array(trees)
            }
            Value::Mapping(entries) => {
                let mut trees = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    if !self.refuse_key_placeholder(key.at, &key.name) {
                        trees.push((key.name.clone(), self.tree(value, &format!("{path}.{}", key.name))));
                    }
                }
                fold_object(trees)
            }
        }
    }

    /// Reports names that events of the wanted kinds do not have.
    fn check_names(&mut self, conditions: &Conditions) {
        for (at, name) in std::mem::take(&mut self.names) {
            let lacks = |kind: &EventKind| event_names::lacks(kind, name);
            let Some(kind) = conditions.kinds().flatten().find(|kind| lacks(kind)) else { continue };
            let message = format!(
                "events of the kind `{kind}` have no value for `{}`; use a path into their payload (body.a.b)",
                name.as_str()
            );
            let can_render = conditions.kinds().any(|kind| !kind.is_some_and(lacks));
            let faults = if can_render { &mut self.warnings } else { &mut self.faults };
            faults.push(Fault { at, message });
        }
    }

    fn text(&mut self, node: &Node, text: &str) -> Option<Text> {
        match Text::compile(text) {
            Ok(text) => {
                let needed = text.parts.iter().filter_map(|part| match part {
                    Part::Expression(expression) => Some(expression.needed_names()),
                    Part::Literal(_) => None,
                });
                self.names.extend(needed.flatten().map(|name| (node.at, name)));
                Some(text)
            }
            Err(errors) => {
                errors.into_iter().for_each(|(at, error)| self.fault(node.position_in(at), error.to_string()));
                None
            }
        }
    }

    fn refuse_key_placeholder(&mut self, at: Position, key: &str) -> bool {
        let present = placeholder::present(key);
        if present {
            self.fault(at, "a placeholder is not allowed in a key; write the key out");
        }
        present
    }

    /// Rejects a placeholder inside a script: its value, for example a branch name, would run as code.
    fn refuse_shell(&mut self, node: &Node, text: &str, path: &str) {
        let inline = path.starts_with("spec.pipelineSpec.") && !PARAM_VALUES.iter().any(|value| path.contains(value));
        let last = path.trim_end_matches("[]").rsplit('.').next();
        if let (true, Some(field @ ("script" | "command" | "args"))) = (inline, last) {
            self.fault(
                node.position_in(text.find("{{").unwrap_or_default()),
                format!(
                    "a value inside `{field}` would run as code; pass it as a param and read it from the step's `env`"
                ),
            );
        }
    }
}

impl Text {
    /// A param may also be a list or a map; an expression that is the whole value may return one.
    fn into_param(self) -> Tree {
        match self.whole() {
            Some(expression) => Tree::Param(expression.clone()),
            None => Tree::Text(self),
        }
    }
}

impl Tree {
    fn needs_cel(&self) -> bool {
        match self {
            Self::Literal(_) => false,
            Self::Text(text) => text.needs_cel(),
            Self::Param(expression) => expression.needs_cel(),
            Self::Array(items) => items.iter().any(Self::needs_cel),
            Self::Object(entries) => entries.iter().any(|(_, tree)| tree.needs_cel()),
        }
    }
}

/// Paths of a param's value, which may be text, a list or a map.
const PARAM_VALUES: [&str; 2] = ["params[].value", "params[].default"];

fn is_param_value(path: &str) -> bool {
    PARAM_VALUES.iter().any(|value| path.ends_with(value))
}

fn fold_array(trees: Vec<Tree>) -> Tree {
    if trees.iter().any(|tree| !matches!(tree, Tree::Literal(_))) {
        return Tree::Array(trees);
    }
    Tree::Literal(trees.into_iter().filter_map(literal).collect())
}

fn fold_object(trees: Vec<(String, Tree)>) -> Tree {
    if trees.iter().any(|(_, tree)| !matches!(tree, Tree::Literal(_))) {
        return Tree::Object(trees);
    }
    Tree::Literal(Json::Object(
        trees.into_iter().filter_map(|(key, tree)| literal(tree).map(|value| (key, value))).collect(),
    ))
}

fn literal(tree: Tree) -> Option<Json> {
    match tree {
        Tree::Literal(value) => Some(value),
        _ => None,
    }
}
