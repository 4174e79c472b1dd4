//! A parsed document to a checked [`Template`]; everything that can be wrong before an event arrives is found here.

use serde_json::{Map, Value as Json};

use super::conditions::{Conditions, PREFIX};
use super::model::{Template, Tree};
use super::placeholder::{self, Part, Text};
use super::yaml::{Fault, Node, Position, Value};
use super::{label, naming, schema};

/// What the compiler found besides faults.
#[derive(Debug)]
pub(super) struct Compiled {
    /// The template.
    pub(super) template: Template,
    /// Where its name stands.
    pub(super) at: Position,
    /// What is legal and probably not meant.
    pub(super) warnings: Vec<Fault>,
}

/// Checks and compiles one document.
///
/// # Errors
/// Everything that is wrong with it.
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
}

impl Compiler {
    fn fault(&mut self, at: Position, message: impl Into<String>) {
        self.faults.push(Fault { at, message: message.into() });
    }

    fn document(&mut self, document: &Node) -> Option<Compiled> {
        if !matches!(document.value, Value::Mapping(_)) {
            self.fault(document.at, format!("a template is a PipelineRun, not {}", document.kind()));
            return None;
        }
        // Of another kind of object the fields say nothing: one clear line instead of one for each of them.
        if !self.kind(document) {
            return None;
        }
        schema::check(document, &mut self.faults);
        let metadata = document.get("metadata");
        let (at, base, written_name) = self.name(document, metadata)?;
        let annotations = metadata.and_then(|metadata| metadata.get("annotations"));
        let conditions = Conditions::read(annotations, &mut self.faults);
        if conditions.repositories().is_none() {
            self.warnings.push(Fault {
                at,
                message: format!(
                    "this template is for every repository that can reach the service; \
                     set the annotation `{PREFIX}on-repository`, for example `acme/*`"
                ),
            });
        }
        let labels = self.strings(metadata, "labels");
        let annotations = self.strings(metadata, "annotations");
        let spec = self.spec(document)?;
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
        };
        Some(Compiled { template, at, warnings: Vec::new() })
    }

    /// Whether the document is a `tekton.dev/v1` PipelineRun.
    fn kind(&mut self, document: &Node) -> bool {
        let before = self.faults.len();
        match document.get("kind") {
            None => self.fault(document.at, "`kind` is missing; write `kind: PipelineRun`"),
            Some(kind) if kind.text() != Some("PipelineRun") => {
                let message = format!("a template's `kind` is PipelineRun, not {}", kind.text().unwrap_or(kind.kind()));
                self.fault(kind.at, message);
            }
            Some(_) => {}
        }
        match document.get("apiVersion") {
            None => self.fault(document.at, "`apiVersion` is missing; write `apiVersion: tekton.dev/v1`"),
            Some(version) => match version.text() {
                Some("tekton.dev/v1") => {}
                Some(old @ ("tekton.dev/v1alpha1" | "tekton.dev/v1beta1")) => {
                    self.fault(version.at, format!("`{old}` is an older API; write `apiVersion: tekton.dev/v1`"));
                    // The fields of the older API are still worth naming.
                    return self.faults.len() == before + 1;
                }
                other => {
                    let message = format!(
                        "a template's `apiVersion` is tekton.dev/v1, not {}",
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
            self.fault(at, "`metadata.name` is missing; write the beginning of the run's name");
            return None;
        };
        let Some(written) = node.text() else {
            self.fault(node.at, format!("`metadata.name` must be text, not {}", node.kind()));
            return None;
        };
        let text = self.text(node.at, written)?;
        if !placeholder::present(written)
            && let Err(error) = naming::base(written)
        {
            self.fault(node.at, error.to_string());
            return None;
        }
        Some((node.at, text, written.trim_end_matches('-').to_owned()))
    }

    fn namespace(&mut self, metadata: Option<&Node>) -> Option<String> {
        let node = metadata?.get("namespace")?;
        match node.text() {
            Some(text) if placeholder::present(text) => {
                let message = "the namespace decides which rights a run has; write it out, without a placeholder";
                self.fault(node.at, message);
            }
            Some(text) if label::is_dns_label(text) => return Some(text.to_owned()),
            _ => self.fault(node.at, "`metadata.namespace` is no name of a namespace"),
        }
        None
    }

    /// Labels or annotations.
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
            if !label::is_key(&key.name) {
                self.fault(key.at, format!("`{}` is no key for {field}; write `name` or `prefix/name`", key.name));
            }
            if field == "labels" && key.name.starts_with(PREFIX) {
                self.fault(key.at, format!("labels under {PREFIX} are set by this service; choose another prefix"));
            }
            let Some(text) = value.text() else {
                self.fault(value.at, format!("`{}` must be text, not {}; write it in quotes", key.name, value.kind()));
                continue;
            };
            if let Some(compiled) = self.text(value.at, text) {
                if field == "labels" {
                    self.label(value.at, &key.name, &compiled);
                }
                strings.push((key.name.clone(), compiled));
            }
        }
        strings
    }

    /// A label that no event can make valid is found now.
    fn label(&mut self, at: Position, key: &str, text: &Text) {
        let fault = match text.parts.as_slice() {
            [] => None,
            [Part::Literal(literal)] => label::value_fault(literal),
            parts => parts.iter().find_map(|part| match part {
                Part::Literal(literal) if !label::can_be_part_of_value(literal) => {
                    Some(format!("`{literal}` can stand in no label value; put the value into an annotation instead"))
                }
                _ => None,
            }),
        };
        if let Some(fault) = fault {
            self.fault(at, format!("the label `{key}` can never be valid: {fault}"));
        }
    }

    /// `finalizers` and `ownerReferences`: taken over as they are.
    fn other_metadata(&mut self, metadata: Option<&Node>) -> Map<String, Json> {
        let mut other = Map::new();
        for field in ["finalizers", "ownerReferences"] {
            if let Some(node) = metadata.and_then(|metadata| metadata.get(field)) {
                match self.tree(node, field) {
                    Tree::Literal(value) => {
                        other.insert(field.to_owned(), value);
                    }
                    _ => self.fault(node.at, format!("`metadata.{field}` takes no placeholder")),
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
                self.fault(second.at, "`pipelineRef` and `pipelineSpec` exclude each other; keep one");
            }
            _ => {}
        }
        if let Some(manager) = spec.get("managedBy")
            && manager.text() != Some("tekton.dev/pipeline")
        {
            self.fault(manager.at, "with another `managedBy` nobody would run it; remove it");
        }
        Some(self.tree(spec, "spec"))
    }

    fn tree(&mut self, node: &Node, path: &str) -> Tree {
        match &node.value {
            Value::Null => Tree::Literal(Json::Null),
            Value::Bool(value) => Tree::Literal((*value).into()),
            Value::Number(value) => Tree::Literal(value.clone().into()),
            Value::Text(text) if !placeholder::present(text) => Tree::Literal(text.clone().into()),
            Value::Text(text) => {
                self.refuse_shell(node.at, path);
                match self.text(node.at, text) {
                    None => Tree::Literal(Json::Null),
                    Some(text) if path.ends_with("params[].value") => text.into_param(),
                    Some(text) => Tree::Text(text),
                }
            }
            Value::Sequence(items) => {
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

    fn text(&mut self, at: Position, text: &str) -> Option<Text> {
        match Text::compile(text) {
            Ok(text) => Some(text),
            Err(errors) => {
                errors.into_iter().for_each(|error| self.fault(at, error.to_string()));
                None
            }
        }
    }

    fn refuse_key_placeholder(&mut self, at: Position, key: &str) -> bool {
        let present = placeholder::present(key);
        if present {
            self.fault(at, "a placeholder may not stand in a key; write the key out");
        }
        present
    }

    /// A value inside a script is code of whoever wrote the value.
    fn refuse_shell(&mut self, at: Position, path: &str) {
        let inline = path.starts_with("spec.pipelineSpec.");
        let last = path.trim_end_matches("[]").rsplit('.').next();
        if let (true, Some(field @ ("script" | "command" | "args"))) = (inline, last) {
            self.fault(
                at,
                format!(
                    "a value inside `{field}` would run as code; pass it as a param and read it from the step's `env`"
                ),
            );
        }
    }
}

impl Text {
    /// Where Tekton takes a list or map, too, an expression that is the whole value may give one.
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
