//! What is left over from Pipelines-as-Code and Tekton Triggers, and its successor here. See docs/migrating.md.

use super::conditions::PREFIX;
use super::placeholder::tekton_variables;
use super::yaml::{Fault, Node, Value};

const PIPELINES_AS_CODE: &str = "pipelinesascode.tekton.dev/";

/// Annotations of Pipelines-as-Code (without the prefix) that decide which event a run is for, and what to write instead.
const ANNOTATIONS: &[(&str, &str)] = &[
    ("on-event", "write `github-trigger.dev/on-event`; for a merged pull request `merged`, which is the default"),
    ("on-target-branch", "write `github-trigger.dev/on-target-branch: main, release/*`, globs without brackets"),
    (
        "on-cel-expression",
        "write the event into `github-trigger.dev/on-event` (the default is merged pull requests only), and the rest into \
         `github-trigger.dev/on-cel`",
    ),
    ("on-comment", "write `github-trigger.dev/on-event: issue_comment.created` and on-cel with `body.comment.body`"),
    ("on-path-change", "write `github-trigger.dev/on-path: docs/**, src/*.rs`, globs without brackets"),
    ("on-path-change-ignore", "write `github-trigger.dev/on-path: \"**, !docs/**\"`, with `!` before what is ignored"),
    ("on-label", "write `github-trigger.dev/on-cel: body.pull_request.labels.exists(l, l.name == \"x\")`"),
];

fn successor(annotation: &str) -> Option<&'static str> {
    ANNOTATIONS.iter().find(|(theirs, _)| *theirs == annotation).map(|(_, here)| *here)
}

/// What to do with another kind of object; empty for kinds that are not expected here.
pub(super) fn kind(kind: &str) -> &'static str {
    match kind {
        "ConfigMap" => "; take the text under `data` as the file, or name the folder that the ConfigMap is mounted to",
        "TriggerTemplate" => {
            "; take the run out of `resourcetemplates`, and put values for `$(tt.params...)`: docs/migrating.md"
        }
        "TriggerBinding" | "ClusterTriggerBinding" => "; write its values into the run, in {{ }}: docs/migrating.md",
        "EventListener" | "Trigger" | "ClusterInterceptor" | "Interceptor" | "Repository" => {
            "; this service takes its place: docs/migrating.md"
        }
        "List" => "; write each of its items as a document of its own, separated by `---`",
        "Task" | "Pipeline" | "StepAction" | "CustomRun" => "; apply it to the cluster, and name it in the run",
        "TaskRun" => "; write a PipelineRun with one task",
        _ => "",
    }
}

/// Reports leftovers in a document; adds them to `faults`.
pub(super) fn check(document: &Node, faults: &mut Vec<Fault>) {
    let annotations = document.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let entries = annotations.map(Node::entries).unwrap_or_default();
    let has_ours =
        entries.iter().any(|(key, _)| key.name.starts_with(PREFIX) && key.name != format!("{PREFIX}on-repository"));
    for (key, _) in entries.iter().filter(|_| !has_ours) {
        let theirs = key.name.strip_prefix(PIPELINES_AS_CODE);
        let otherwise = "without an annotation `github-trigger.dev/on-...` this run is for every merge; see docs/migrating.md, \
                         and write one";
        if let Some(here) = theirs.map(|name| successor(name).unwrap_or(otherwise)) {
            faults.push(Fault { at: key.at, message: format!("`{}` has no effect here; {here}", key.name) });
        }
    }
    texts(document, faults);
}

fn texts(node: &Node, faults: &mut Vec<Fault>) {
    match &node.value {
        Value::Text(text) => {
            faults.extend(leftovers(text).map(|(at, message)| Fault { at: node.position_in(at), message }))
        }
        Value::Sequence(items) => items.iter().for_each(|item| texts(item, faults)),
        Value::Mapping(entries) => entries.iter().for_each(|(_, value)| texts(value, faults)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Variables of Triggers in a text, by their offset.
fn leftovers(text: &str) -> impl Iterator<Item = (usize, String)> {
    tekton_variables(text).filter_map(|(at, written, inner)| {
        let (root, rest) = inner.split_once('.')?;
        let here = match root {
            "tt" => "write the value itself, for example {{ revision }}".to_owned(),
            "body" => format!("write {{{{ body.{rest} }}}}"),
            "header" => format!("write {{{{ headers[\"{}\"] }}}}", rest.to_ascii_lowercase()),
            "extensions" => "write the expression itself, in {{ }}".to_owned(),
            "context" if rest == "eventID" => "write {{ event.id }}".to_owned(),
            _ => return None,
        };
        Some((at, format!("`{written}` is of Tekton Triggers and stays as it is; {here}")))
    })
}
