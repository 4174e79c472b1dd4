//! Follows text that authors of pull requests choose into the scripts of an inline pipeline.
//!
//! Tekton replaces `$(params.x)` in `script`, `command` and `args` before a shell reads them: a branch called `` `id` `` would
//! run. The way out is a param that the step reads through `env`, which no shell interprets. References to Pipelines, Tasks
//! and `StepActions` cannot be looked into; they are named.

use std::collections::HashMap;

use super::placeholder::{Part, Text, tekton_variables};
use super::yaml::{Fault, Node, Value};

/// Params with text of an author, each with the placeholder that it comes from.
type Scope = HashMap<String, String>;

/// Checks the spec of a run. `merges_only`: whether only merges match, whose target branch is not its author's choice.
/// Adds injections to `faults`, and what cannot be seen to `warnings`.
pub(super) fn check(spec: &Node, merges_only: bool, faults: &mut Vec<Fault>, warnings: &mut Vec<Fault>) {
    let mut checker = Checker { merges_only, faults, warnings };
    let run = checker.given(spec, &Scope::new());
    if let Some(reference) = spec.get("pipelineRef") {
        checker.unseen(reference, "Pipeline", &run);
    }
    if let Some(pipeline) = spec.get("pipelineSpec") {
        checker.pipeline(pipeline, run);
    }
}

struct Checker<'f> {
    merges_only: bool,
    faults: &'f mut Vec<Fault>,
    warnings: &'f mut Vec<Fault>,
}

impl Checker<'_> {
    fn pipeline(&mut self, pipeline: &Node, run: Scope) {
        let mut scope = self.defaults(pipeline, &run);
        scope.extend(run);
        for task in pipeline.items("tasks").iter().chain(pipeline.items("finally").iter()) {
            let mut given = self.given(task, &scope);
            if let Some(matrix) = task.get("matrix") {
                given.extend(self.given(matrix, &scope));
                for include in matrix.items("include").iter() {
                    given.extend(self.given(include, &scope));
                }
            }
            if let Some(reference) = task.get("taskRef") {
                self.unseen(reference, "Task", &given);
            }
            if let Some(spec) = task.get("taskSpec") {
                // An inline task sees the pipeline's params, too, unless it has its own of the same name.
                let clean = self.overridden(task, spec, &given);
                let mut inner: Scope = scope.clone();
                inner.retain(|name, _| !clean.contains(name));
                inner.extend(self.defaults(spec, &scope));
                inner.extend(given);
                self.task(spec, &inner);
            }
            if let Some(pipeline) = task.get("pipelineSpec") {
                self.pipeline(pipeline, given_or(&scope, task, self));
            }
        }
    }

    /// Names that a task gives a value of its own, without an author's text.
    fn overridden(&self, task: &Node, spec: &Node, given: &Scope) -> Vec<String> {
        let names = task
            .items("params")
            .iter()
            .chain(spec.items("params").iter())
            .filter_map(|param| param.get("name")?.text());
        names.filter(|name| !given.contains_key(*name)).map(str::to_owned).collect()
    }

    fn task(&mut self, spec: &Node, scope: &Scope) {
        let template = spec.get("stepTemplate");
        for step in spec.items("steps").iter().chain(spec.items("sidecars").iter()).chain(template) {
            for field in ["script", "command", "args"] {
                let Some(node) = step.get(field) else { continue };
                match &node.value {
                    Value::Sequence(items) => items.iter().for_each(|item| self.code(item, field, scope)),
                    _ => self.code(node, field, scope),
                }
            }
            if let Some(reference) = step.get("ref") {
                let given = self.given(step, scope);
                self.unseen(reference, "StepAction", &given);
            }
        }
    }

    /// Reports params with an author's text in code.
    fn code(&mut self, node: &Node, field: &str, scope: &Scope) {
        let Some(text) = node.text() else { return };
        for (at, written, name) in references(text) {
            let Some(source) = scope.get(name) else { continue };
            let message = format!(
                "`{written}` in `{field}` is text that an author chooses ({source}), and would run as code; give it to the \
                 step as `env`, and write \"$NAME\" here"
            );
            self.faults.push(Fault { at: node.position_in(at), message });
        }
    }

    fn unseen(&mut self, reference: &Node, kind: &str, given: &Scope) {
        let mut names: Vec<&str> = given.keys().map(String::as_str).collect();
        if names.is_empty() {
            return;
        }
        names.sort_unstable();
        let message = format!(
            "lint cannot see this {kind}: it must read {} through `env`, not in `script`, `command` or `args`, because \
             authors of pull requests choose the text",
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        );
        self.warnings.push(Fault { at: reference.at, message });
    }

    /// The params that `parent` gives, as far as they carry an author's text.
    fn given(&self, parent: &Node, scope: &Scope) -> Scope {
        self.tainted(parent.items("params").iter(), "value", scope)
    }

    /// The params that `parent` declares with such a default.
    fn defaults(&self, parent: &Node, scope: &Scope) -> Scope {
        self.tainted(parent.items("params").iter(), "default", scope)
    }

    fn tainted<'n>(&self, params: impl Iterator<Item = &'n Node>, field: &str, scope: &Scope) -> Scope {
        let tainted = params.filter_map(|param| {
            let name = param.get("name")?.text()?;
            Some((name.to_owned(), self.source(param.get(field)?, scope)?))
        });
        tainted.collect()
    }

    /// The placeholder whose text of an author a value carries; `None` if it carries none.
    fn source(&self, value: &Node, scope: &Scope) -> Option<String> {
        match &value.value {
            Value::Text(text) => {
                let parts = Text::compile(text).map(|text| text.parts).unwrap_or_default();
                let by_author = parts.iter().find_map(|part| match part {
                    Part::Expression(expression) if expression.is_author_text(self.merges_only) => {
                        Some(expression.to_string())
                    }
                    _ => None,
                });
                by_author.or_else(|| references(text).find_map(|(_, _, name)| scope.get(name).cloned()))
            }
            Value::Sequence(items) => items.iter().find_map(|item| self.source(item, scope)),
            Value::Mapping(entries) => entries.iter().find_map(|(_, item)| self.source(item, scope)),
            _ => None,
        }
    }
}

/// The scope of a pipeline inside a pipeline: what it sees, and what it is given.
fn given_or(scope: &Scope, task: &Node, checker: &Checker<'_>) -> Scope {
    let mut inner = scope.clone();
    inner.extend(checker.given(task, scope));
    inner
}

/// Tekton's references to params in a text: offset, the whole reference, and the param's name.
fn references(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    tekton_variables(text).filter_map(|(at, written, inner)| {
        let inner = inner.strip_prefix("inputs.").unwrap_or(inner).strip_prefix("params")?;
        let name = match inner.strip_prefix('.') {
            Some(name) => name.split(['.', '[']).next()?,
            None => inner.strip_prefix('[')?.split(']').next()?.trim_matches(['\'', '"']),
        };
        Some((at, written, name))
    })
}

#[cfg(test)]
mod tests {
    use super::references;

    #[test]
    fn finds_references_in_each_notation() {
        let text = "a $(params.x) $(params['y.z']) $(params[\"w\"]) $(params.list[*]) $(inputs.params.old) $(tasks.t.results.r) $(params.o.key";
        let names: Vec<&str> = references(text).map(|(_, _, name)| name).collect();
        assert_eq!(names, ["x", "y.z", "w", "list", "old"]);
    }
}
