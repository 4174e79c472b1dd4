//! What Tekton's admission refuses in a PipelineRun, as far as it follows from the template alone.
//!
//! Source: `pkg/apis/pipeline/v1` of Tekton Pipelines, the files `*_validation.go`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::references::{in_a_cycle, literal, result_references, texts};
use super::yaml::{Fault, Node, Value};
use crate::names;

/// States that a run may be created in, or be put into.
const STATES: [&str; 4] = ["Cancelled", "CancelledRunFinally", "StoppedRunFinally", "PipelineRunPending"];
/// Sources of a workspace; exactly one must be given.
const SOURCES: [&str; 7] =
    ["volumeClaimTemplate", "persistentVolumeClaim", "emptyDir", "configMap", "secret", "projected", "csi"];

/// Checks a document; adds faults to `faults`.
pub(super) fn check(document: &Node, faults: &mut Vec<Fault>) {
    let mut checker = Checker { faults };
    if let Some(status) = document.get("status") {
        let is_empty = matches!(&status.value, Value::Null) || status.entries().is_empty();
        if !is_empty || matches!(&status.value, Value::Text(_)) {
            checker.fault(status, "`status` is written by Tekton; remove it");
        }
    }
    if let Some(time) = document.get("metadata").and_then(|metadata| metadata.get("creationTimestamp"))
        && time.value != Value::Null
    {
        checker.fault(time, "`creationTimestamp` is written by the API server; remove it");
    }
    if let Some(spec) = document.get("spec") {
        checker.run(spec);
    }
}

struct Checker<'f> {
    faults: &'f mut Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, node: &Node, message: impl Into<String>) {
        self.faults.push(Fault { at: node.at, message: message.into() });
    }

    fn run(&mut self, spec: &Node) {
        self.unique(spec, "params", "name");
        self.unique(spec, "workspaces", "name");
        self.unique(spec, "taskRunSpecs", "pipelineTaskName");
        if let Some(reference) = spec.get("pipelineRef") {
            self.reference(reference, "pipelineRef");
        }
        if let Some(controller) = spec.get("managedBy")
            && controller.value != Value::Null
            && controller.text() != Some("tekton.dev/pipeline")
        {
            self.fault(controller, "`managedBy` names another controller, so that Tekton never runs it; remove it");
        }
        for value in spec.items("params").iter().filter_map(|param| param.get("value")) {
            if texts(value).iter().any(|text| result_references(text).next().is_some()) {
                self.fault(
                    value,
                    "a param of the run cannot use results of its tasks; use them in the params of a task",
                );
            }
        }
        for workspace in spec.items("workspaces").iter() {
            self.workspace(workspace);
        }
        if let Some(status) = spec.get("status").and_then(|status| literal(status).map(|text| (status, text)))
            && !status.1.is_empty()
            && !STATES.contains(&status.1)
        {
            self.fault(status.0, format!("`spec.status` must be one of {}", STATES.join(", ")));
        }
        if let Some(timeouts) = spec.get("timeouts") {
            self.timeouts(timeouts);
        }
        if let Some(pipeline) = spec.get("pipelineSpec") {
            if pipeline.items("tasks").is_empty() && spec.get("pipelineRef").is_none() {
                self.fault(pipeline, "`pipelineSpec` has no tasks; write at least one");
            }
            self.pipeline(pipeline);
        }
    }

    /// A reference to a Pipeline or Task: by name, or by a resolver.
    fn reference(&mut self, reference: &Node, field: &str) {
        if let Some(kind) = reference.get("kind")
            && kind.text() == Some("ClusterTask")
        {
            let message = "ClusterTasks are gone; write `resolver: cluster` with the params `kind: task`, `name` and \
                           `namespace`";
            return self.fault(kind, message);
        }
        match (reference.get("name"), reference.get("resolver")) {
            // A custom task's kind may be all there is to say.
            (None, None) if field == "taskRef" && reference.get("apiVersion").is_some() => {}
            (None, None) => self.fault(reference, format!("`{field}` is empty; write `name` or `resolver`")),
            (Some(name), Some(_)) => {
                self.fault(
                    name,
                    format!("`{field}` has `name` and `resolver`; write the name as a param of the resolver"),
                );
            }
            _ => {}
        }
    }

    fn workspace(&mut self, workspace: &Node) {
        let sources = workspace.entries().iter().filter(|(key, _)| SOURCES.contains(&key.name.as_str())).count();
        let name = workspace.get("name").and_then(Node::text).unwrap_or_default();
        match sources {
            0 => self.fault(
                workspace,
                format!(
                    "the workspace `{name}` has no source; write one of {}, for example `emptyDir: {{}}`",
                    SOURCES.join(", ")
                ),
            ),
            1 => {}
            _ => self.fault(workspace, format!("the workspace `{name}` has several sources; keep one")),
        }
    }

    /// Go's durations, and their sum: tasks and finally must fit into the pipeline's.
    fn timeouts(&mut self, timeouts: &Node) {
        let mut read = |field: &str| timeouts.get(field).and_then(|node| self.duration(node).map(|time| (node, time)));
        let (pipeline, tasks, last) = (read("pipeline"), read("tasks"), read("finally"));
        let Some((_, whole)) = pipeline.filter(|(_, whole)| !whole.is_zero()) else { return };
        for (field, part) in [("tasks", tasks), ("finally", last)] {
            if let Some((node, part)) = part
                && part > whole
            {
                return self.fault(node, format!("`timeouts.{field}` is longer than `timeouts.pipeline`; shorten it"));
            }
        }
        if let (Some((node, tasks)), Some((_, last))) = (tasks, last)
            && tasks + last > whole
        {
            self.fault(node, "`timeouts.tasks` and `timeouts.finally` are together longer than `timeouts.pipeline`");
        }
    }

    fn duration(&mut self, node: &Node) -> Option<Duration> {
        let text = match &node.value {
            Value::Number(number) => number.to_string(),
            _ => literal(node)?.to_owned(),
        };
        let duration = go_duration(&text);
        if duration.is_none() {
            let message = format!("`{text}` is not a duration; write for example 1h30m, 10m or 45s");
            self.fault(node, message);
        }
        duration
    }

    fn pipeline<'n>(&mut self, pipeline: &'n Node) {
        for list in ["params", "workspaces", "results"] {
            self.unique(pipeline, list, "name");
        }
        let tasks: Vec<&Node> = pipeline.items("tasks").iter().collect();
        let last: Vec<&Node> = pipeline.items("finally").iter().collect();
        let named = |task: &&'n Node| Some((task.get("name")?.text()?, *task));
        let names: HashMap<&str, &Node> = tasks.iter().filter_map(named).collect();
        let all: HashMap<&str, &Node> = last.iter().chain(&tasks).filter_map(named).collect();
        self.no_duplicates(tasks.iter().chain(&last).filter_map(|task| task.get("name")), "task");
        for task in tasks.iter().chain(&last) {
            self.task(task);
        }
        if let Some(task) = in_a_cycle(&tasks, &names) {
            let message =
                "this task waits for itself, by `runAfter` or results of tasks that wait for it; remove one of them";
            self.fault(task, message);
        }
        for task in &tasks {
            for before in task.items("runAfter").iter() {
                let own = task.get("name").and_then(Node::text);
                match literal(before) {
                    Some(name) if own == Some(name) => self.fault(before, format!("`{name}` runs after itself")),
                    Some(name) if !names.contains_key(name) => {
                        self.fault(
                            before,
                            format!("`runAfter` names the task `{name}`, which the pipeline does not have"),
                        );
                    }
                    _ => {}
                }
            }
        }
        for task in &last {
            if let Some(after) = task.get("runAfter") {
                self.fault(after, "a task of `finally` cannot have `runAfter`; all of them run at the end");
            }
        }
        for part in ["tasks", "finally", "results"] {
            if let Some(node) = pipeline.get(part) {
                self.results(node, &all);
            }
        }
    }

    fn task(&mut self, task: &Node) {
        match task.get("name") {
            None => self.fault(task, "a task has no `name`; write one"),
            Some(name) if literal(name).is_some_and(|name| !names::is_dns_label(name)) => {
                let message = "a task's name has at most 63 lower case letters, digits and `-`, with a letter or digit at both ends";
                self.fault(name, message);
            }
            Some(_) => {}
        }
        self.unique(task, "params", "name");
        if let Some(reference) = task.get("taskRef") {
            self.reference(reference, "taskRef");
        }
        if let Some(timeout) = task.get("timeout") {
            self.duration(timeout);
        }
        for custom in ["taskRef", "taskSpec"].into_iter().filter_map(|field| task.get(field)?.get("apiVersion")) {
            if literal(custom).is_some_and(|version| !version.is_empty() && !version.contains('/')) {
                self.fault(custom, "the `apiVersion` of a custom task is `group/version`, for example example.dev/v1");
            }
        }
        match (task.get("taskRef"), task.get("taskSpec")) {
            (Some(_), Some(second)) => self.fault(second, "a task has both `taskRef` and `taskSpec`; remove one"),
            (None, None) if task.get("pipelineRef").is_none() && task.get("pipelineSpec").is_none() => {
                self.fault(task, "a task names nothing to run; write `taskRef` or `taskSpec`");
            }
            _ => {}
        }
        if let Some(pipeline) = task.get("pipelineSpec") {
            self.pipeline(pipeline);
        }
        let Some(spec) = task.get("taskSpec") else { return };
        // A custom task has its own fields.
        if spec.get("apiVersion").is_some() {
            return;
        }
        for list in ["params", "results", "workspaces", "steps"] {
            self.unique(spec, list, "name");
        }
        let has_image = |step: &Node| step.get("image").is_some();
        let template = spec.get("stepTemplate").is_some_and(has_image);
        if spec.items("steps").iter().next().is_none() {
            self.fault(spec, "`taskSpec` has no steps; write at least one");
        }
        for step in spec.items("steps").iter() {
            if !has_image(step) && !template && step.get("ref").is_none() {
                self.fault(step, "a step has no `image`; write one, or a `ref` to a StepAction");
            }
            if let Some(timeout) = step.get("timeout") {
                self.duration(timeout);
            }
        }
    }

    /// References to results (`$(tasks.<task>.results.<result>)`) in all texts below `node`.
    fn results(&mut self, node: &Node, tasks: &HashMap<&str, &Node>) {
        match &node.value {
            Value::Sequence(items) => items.iter().for_each(|item| self.results(item, tasks)),
            Value::Mapping(entries) => {
                // A pipeline in this one has tasks of its own, and so may the spec of a custom task.
                let is_custom = node.get("apiVersion").is_some();
                let is_other = |name: &str| name == "pipelineSpec" || (is_custom && name == "spec");
                let inside = entries.iter().filter(|(key, _)| !is_other(&key.name));
                inside.for_each(|(_, value)| self.results(value, tasks));
            }
            Value::Text(text) => {
                for (task, result) in result_references(text) {
                    let Some(found) = tasks.get(task) else {
                        self.fault(node, format!("`$(tasks.{task}...)` names a task that the pipeline does not have"));
                        continue;
                    };
                    let Some(spec) = found.get("taskSpec").filter(|spec| spec.get("apiVersion").is_none()) else {
                        continue;
                    };
                    if spec.items("results").iter().all(|known| known.get("name").and_then(Node::text) != Some(result))
                    {
                        self.fault(
                            node,
                            format!("the task `{task}` has no result `{result}`; declare it in its `results`"),
                        );
                    }
                }
            }
            _ => {}
        }
    }

    fn unique(&mut self, parent: &Node, list: &str, key: &str) {
        let what = if key == "name" { list.trim_end_matches('s') } else { key };
        self.no_duplicates(parent.items(list).iter().filter_map(|item| item.get(key)), what);
    }

    fn no_duplicates<'n>(&mut self, names: impl Iterator<Item = &'n Node>, what: &str) {
        let mut seen = HashSet::new();
        for node in names {
            match literal(node).filter(|name| !name.is_empty()) {
                Some(name) if !seen.insert(name) => {
                    self.fault(node, format!("another {what} is named `{name}`, too; rename one"));
                }
                _ => {}
            }
        }
    }
}

/// Parses a duration as Go's `time.ParseDuration` does. Returns `None` if Go would fail, or it is negative.
fn go_duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest.get(..number)?.parse().ok()?;
        rest = rest.get(number..)?;
        let (unit, length) =
            [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))
                .map(|(unit, seconds)| (seconds, unit.len()))?;
        seconds += value * unit;
        rest = rest.get(length..)?;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_durations_as_go_does() {
        for (text, seconds) in [
            ("1h30m", Some(5400.0)),
            ("45s", Some(45.0)),
            ("0", Some(0.0)),
            ("1.5h", Some(5400.0)),
            ("500ms", Some(0.5)),
            ("0s", Some(0.0)),
        ] {
            assert_eq!(go_duration(text).map(|duration| duration.as_secs_f64()), seconds, "{text}");
        }
        for text in ["", "1", "90", "1d", "1 h", "-1h", "h", "1h30", "PT1H", "one hour", ".s"] {
            assert_eq!(go_duration(text), None, "{text}");
        }
    }
}
