//! Renders a PipelineRun from a template and an event.

use std::cell::Cell;
use std::ops::Range;

use serde_json::{Map, Value, json};

use super::conditions::PREFIX;
use super::expression::{EvaluationError, Expression, Outcome};
use super::model::{Template, Tree};
use super::naming;
use super::placeholder::{Part, Text};
use crate::github::{Commit, Event};
use crate::names;
use crate::telemetry::trace::TraceContext;

/// Annotation with the trace that Tekton continues in a run (`pkg/reconciler/pipelinerun/tracing.go`).
const SPAN_CONTEXT_ANNOTATION: &str = "tekton.dev/pipelinerunSpanContext";

/// Longest part of a value that a message quotes, in characters.
const MAX_QUOTED: usize = 100;
/// Bytes of all values that one event may put into its runs; the API server stores no run of 3 MiB.
const MAX_RENDERED: usize = 16 << 20;

/// A PipelineRun for the API server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PipelineRun {
    /// Namespace the run is created in.
    pub(crate) namespace: String,
    /// Name of the run; the same for the same merge and template.
    pub(crate) name: String,
    /// The complete object, as JSON.
    pub(crate) object: Value,
}

/// Settings of the service for a render.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp<'a> {
    /// Namespace of runs whose template does not set one.
    pub(crate) namespace: &'a str,
}

/// Why a template cannot be rendered for an event. The sender gets 422; the details are in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template {template}: {place}: {message}")]
pub(crate) struct RenderError {
    /// Name of the template as written.
    pub(crate) template: String,
    /// Path of the field, for example `spec.params[1].value`.
    pub(crate) place: String,
    /// The problem and, where possible, its fix.
    pub(crate) message: String,
}

/// Kind of field, with its own rules for values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FieldKind {
    Name,
    Label,
    Annotation,
    Spec,
}

struct Fault {
    place: String,
    message: String,
}

/// Why a placeholder has no value.
#[derive(Debug, thiserror::Error)]
enum ValueError {
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
    #[error("the values of this event have more than {MAX_RENDERED} bytes together")]
    TooLarge,
}

impl PipelineRun {
    /// The run as a YAML document that begins with `---`.
    /// Fails when the object cannot be serialised, which cannot happen for a parsed template.
    pub(crate) fn to_yaml(&self) -> Result<String, serde_saphyr::ser::Error> {
        serde_saphyr::to_string(&self.object).map(|yaml| format!("---\n{yaml}"))
    }
}

/// The values of one event, for all its templates.
pub(crate) struct Values<'e> {
    event: &'e Event,
    /// Bytes of values that may still be rendered.
    left: Cell<usize>,
}

impl<'e> Values<'e> {
    /// The values of an event, of which nothing is rendered yet.
    pub(crate) fn of(event: &'e Event) -> Self {
        Self { event, left: Cell::new(MAX_RENDERED) }
    }

    fn evaluate(&self, expression: &Expression) -> Result<Outcome<'e>, ValueError> {
        let value = expression.evaluate(self.event)?;
        let left = self.left.get().checked_sub(value.length()).ok_or(ValueError::TooLarge)?;
        self.left.set(left);
        Ok(value)
    }
}

impl Template {
    /// Renders the run for an event that the template matches.
    /// Fails when the event lacks a value, or a value is not allowed in its field.
    pub(crate) fn render(&self, values: &Values<'_>, stamp: Stamp<'_>) -> Result<PipelineRun, RenderError> {
        self.object(values, stamp).map_err(|fault| RenderError {
            template: self.name().to_owned(),
            place: fault.place,
            message: fault.message,
        })
    }

    /// Renders a run with a sample value for each placeholder, to have an API server check the rest.
    pub(crate) fn sample(&self, namespace: &str) -> PipelineRun {
        let namespace = self.namespace.as_deref().unwrap_or(namespace).to_owned();
        let strings = |strings: &[(String, Text)]| -> Map<String, Value> {
            strings.iter().map(|(key, text)| (key.clone(), sample_text(text).into())).collect()
        };
        let base = sample_text(&self.base);
        // A literal base was checked when it was compiled, and the sample value is valid in a name.
        let name = format!("{}-sample", naming::base(&base).unwrap_or("sample"));
        let mut metadata = self.metadata.clone();
        metadata.insert("name".into(), name.clone().into());
        metadata.insert("namespace".into(), namespace.clone().into());
        metadata.insert("labels".into(), strings(&self.labels).into());
        metadata.insert("annotations".into(), strings(&self.annotations).into());
        let spec = sample_tree(&self.spec);
        let object = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": metadata, "spec": spec});
        PipelineRun { namespace, name, object }
    }

    fn object(&self, values: &Values<'_>, stamp: Stamp<'_>) -> Result<PipelineRun, Fault> {
        let event = values.event;
        let base = fill(&self.base, values, FieldKind::Name, "metadata.name")?;
        let base =
            naming::base(&base).map_err(|error| Fault { place: "metadata.name".into(), message: error.to_string() })?;
        let identity = naming::Identity { event, namespace: self.namespace.as_deref(), template: self.name() };
        let name = naming::name(base, &identity);
        let namespace = self.namespace.as_deref().unwrap_or(stamp.namespace).to_owned();

        let mut metadata = self.metadata.clone();
        metadata.insert("name".into(), name.clone().into());
        metadata.insert("namespace".into(), namespace.clone().into());
        metadata.insert("labels".into(), self.stamped_labels(values)?.into());
        metadata.insert("annotations".into(), self.stamped_annotations(values)?.into());
        let mut place = String::from("spec");
        let object = json!({
            "apiVersion": "tekton.dev/v1",
            "kind": "PipelineRun",
            "metadata": metadata,
            "spec": fill_tree(&self.spec, values, &mut place)?,
        });
        Ok(PipelineRun { namespace, name, object })
    }

    fn stamped_labels(&self, values: &Values<'_>) -> Result<Map<String, Value>, Fault> {
        let event = values.event;
        let mut labels = fill_strings(&self.labels, values, FieldKind::Label, "metadata.labels")?;
        labels.insert("app.kubernetes.io/managed-by".into(), "github-trigger".into());
        if let Some(number) = event.subject.number {
            labels.insert(format!("{PREFIX}pull-request"), number.to_string().into());
        }
        if let Some(commit) = event.commit() {
            labels.insert(format!("{PREFIX}commit"), commit.short().into());
        }
        if let Some(team) = event.team.name() {
            labels.insert(format!("{PREFIX}team"), team.into());
        }
        Ok(labels)
    }

    fn stamped_annotations(&self, values: &Values<'_>) -> Result<Map<String, Value>, Fault> {
        let event = values.event;
        let mut annotations = fill_strings(&self.annotations, values, FieldKind::Annotation, "metadata.annotations")?;
        let merged_at = event.merged_at().map(|time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        let commits = event.commits_before_merge().map(|commits| commits.to_string());
        let stamps = [
            ("pull-request-commits", commits.as_deref()),
            ("merged-at", merged_at.as_deref()),
            ("delivery-id", Some(event.delivery.as_str())),
            ("repository", event.repository_name()),
            ("pull-request-url", event.subject.number.and(event.subject.page.as_deref())),
            ("commit", event.commit().map(Commit::as_str)),
            ("target-branch", event.subject.target_branch.as_deref()),
            ("sender", event.sender.as_deref()),
            ("token-subject", event.token_subject.as_deref()),
            ("template", Some(self.name())),
        ];
        for (key, value) in stamps {
            if let Some(value) = value {
                annotations.insert(format!("{PREFIX}{key}"), value.into());
            }
        }
        if let Some(trace) = &event.trace {
            annotations.insert(SPAN_CONTEXT_ANNOTATION.into(), span_context(trace).into());
        }
        Ok(annotations)
    }
}

/// Formats a trace for Tekton: its HTTP headers as a JSON object.
fn span_context(trace: &TraceContext) -> String {
    let state = trace.tracestate().map(|state| ("tracestate", state));
    let carrier: Map<String, Value> = [("traceparent", trace.traceparent())]
        .into_iter()
        .chain(state)
        .map(|(k, v)| (k.to_owned(), v.into()))
        .collect();
    Value::Object(carrier).to_string()
}

impl RenderError {
    /// The template's `on-cel` is neither true nor false for the event.
    pub(super) fn condition(template: &Template, error: &EvaluationError) -> Self {
        let place = format!("metadata.annotations.{PREFIX}on-cel");
        Self { template: template.name().to_owned(), place, message: error.to_string() }
    }
}

/// Sample value of a placeholder; valid in names, labels and all other fields.
const SAMPLE: &str = "sample";

fn sample_text(text: &Text) -> String {
    let parts = text.parts.iter().map(|part| match part {
        Part::Literal(literal) => literal.as_str(),
        Part::Expression(_) => SAMPLE,
    });
    parts.collect()
}

fn sample_tree(tree: &Tree) -> Value {
    match tree {
        Tree::Literal(value) => value.clone(),
        Tree::Text(text) => sample_text(text).into(),
        Tree::Param(_) => SAMPLE.into(),
        Tree::Array(items) => items.iter().map(sample_tree).collect(),
        Tree::Object(entries) => entries.iter().map(|(key, tree)| (key.clone(), sample_tree(tree))).collect(),
    }
}

fn fill_strings(
    strings: &[(String, Text)],
    values: &Values<'_>,
    kind: FieldKind,
    place: &str,
) -> Result<Map<String, Value>, Fault> {
    strings
        .iter()
        .map(|(key, text)| Ok((key.clone(), fill(text, values, kind, &format!("{place}.{key}"))?.into())))
        .collect()
}

fn fill_tree(tree: &Tree, values: &Values<'_>, place: &mut String) -> Result<Value, Fault> {
    let length = place.len();
    let value = match tree {
        Tree::Literal(value) => value.clone(),
        Tree::Text(text) => Value::String(fill(text, values, FieldKind::Spec, place)?),
        Tree::Param(expression) => fill_param(expression, values, place)?,
        Tree::Array(items) => {
            let mut array = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                place.push_str(&format!("[{index}]"));
                array.push(fill_tree(item, values, place)?);
                place.truncate(length);
            }
            Value::Array(array)
        }
        Tree::Object(entries) => {
            let mut object = Map::new();
            for (key, tree) in entries {
                place.push('.');
                place.push_str(key);
                object.insert(key.clone(), fill_tree(tree, values, place)?);
                place.truncate(length);
            }
            Value::Object(object)
        }
    };
    Ok(value)
}

/// The value of a param, which may be text, a list or a map.
fn fill_param(expression: &Expression, values: &Values<'_>, place: &str) -> Result<Value, Fault> {
    let fault = |message: String| Fault { place: place.to_owned(), message };
    let outcome = values.evaluate(expression).map_err(|error| fault(error.to_string()))?;
    let refuse = |text: &str| if text.contains("$(") { Err(fault(tekton_variable(text))) } else { Ok(()) };
    match outcome {
        Outcome::Text(text) => refuse(&text).map(|()| text.into_owned().into()),
        Outcome::List(items) => items.iter().try_for_each(|item| refuse(item)).map(|()| items.into()),
        Outcome::Map(entries) => {
            entries.iter().try_for_each(|(key, value)| refuse(key).and_then(|()| refuse(value)))?;
            Ok(entries.into_iter().map(|(key, value)| (key, Value::from(value))).collect())
        }
    }
}

/// The beginning of a value in quotes: it may be of any length.
fn quoted(text: &str) -> String {
    let begin: String = text.chars().take(MAX_QUOTED).collect();
    let more = if begin.len() < text.len() { "..." } else { "" };
    format!("{begin:?}{more}")
}

fn tekton_variable(text: &str) -> String {
    let text = quoted(text);
    format!("{text} contains `$(`, which Tekton would expand; rename the branch or remove the placeholder")
}

/// Replaces the placeholders of a text and checks that the result is allowed in its field.
fn fill(text: &Text, values: &Values<'_>, kind: FieldKind, place: &str) -> Result<String, Fault> {
    let fault = |message: String| Fault { place: place.to_owned(), message };
    let mut filled = String::new();
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for part in &text.parts {
        match part {
            Part::Literal(literal) => filled.push_str(literal),
            Part::Expression(expression) => {
                let value = match values.evaluate(expression).map_err(|error| fault(error.to_string()))? {
                    Outcome::Text(value) => value,
                    Outcome::List(_) => return Err(fault("the value is a list, but this field must be text".into())),
                    Outcome::Map(_) => return Err(fault("the value is a map, but this field must be text".into())),
                };
                let begin = filled.len();
                filled.push_str(&value);
                ranges.push(begin..filled.len());
            }
        }
    }
    match kind {
        FieldKind::Label => {
            if let Some(why) = names::value_fault(&filled) {
                return Err(fault(format!(
                    "{} {why}; write slug(...) around the value, or put it into an annotation",
                    quoted(&filled)
                )));
            }
        }
        FieldKind::Spec if holds_tekton_variable(&filled, &ranges) => {
            return Err(fault(tekton_variable(&filled)));
        }
        FieldKind::Spec | FieldKind::Name | FieldKind::Annotation => {}
    }
    Ok(filled)
}

/// Whether a value adds a `$(` to the text, alone or together with the adjacent characters.
fn holds_tekton_variable(filled: &str, values: &[Range<usize>]) -> bool {
    filled
        .match_indices("$(")
        .any(|(at, _)| values.iter().any(|value| value.contains(&at) || value.contains(&(at + 1))))
}

#[cfg(test)]
mod tests;
