//! Follows text that authors of pull requests choose into the scripts of an inline pipeline, and into fields that choose what
//! runs, or with which rights.
//!
//! Tekton replaces `$(params.x)` in `script`, `command` and `args` before a shell reads them: a branch called `` `id` `` would
//! run. The way out is a param that the step reads through `env`, which no shell interprets. References to Pipelines, Tasks
//! and `StepActions` cannot be looked into; they are named.
//!
//! With `image: builder:$(params.branch)` the author chooses the image. There is no way out but to choose it in the template.

use std::collections::HashMap;

use super::expression::{EventScope, Expression, Place};
use super::placeholder::{Part, Text, tekton_variables};
use super::yaml::{Fault, Node, Value};

/// Fields that choose what runs, or with which rights, with all that is below them.
#[rustfmt::skip]
const CHOICES: &[&str] = &[
    "pipelineRef", "taskRef", "ref", "image", "serviceAccountName", "podTemplate", "securityContext", "secret", "configMap",
    "projected", "csi", "volumes", "valueFrom", "envFrom",
];
/// Fields whose content is data, or is looked at by itself.
const DATA: &[&str] = &["params", "results", "metadata", "taskSpec", "pipelineSpec"];

/// Params with text of an author.
type Scope = HashMap<String, Taint>;

/// The placeholders whose text of an author a value has.
#[derive(Debug, Clone, Default)]
struct Taint {
    /// One that does harm in code.
    code: Option<String>,
    /// One that does harm in a field that chooses.
    choice: Option<String>,
}

impl Taint {
    fn or(self, other: Self) -> Self {
        Self { code: self.code.or(other.code), choice: self.choice.or(other.choice) }
    }
}

/// Checks the spec of a run for these events.
/// Adds injections to `faults`, and what cannot be seen to `warnings`.
pub(super) fn check(spec: &Node, events: EventScope, faults: &mut Vec<Fault>, warnings: &mut Vec<Fault>) {
    let mut checker = Checker { events, faults, warnings };
    let run = checker.given(spec, &Scope::new());
    checker.choices(spec, &run);
    if let Some(reference) = spec.get("pipelineRef") {
        checker.unseen(reference, "Pipeline", &run);
    }
    if let Some(pipeline) = spec.get("pipelineSpec") {
        checker.pipeline(pipeline, run);
    }
}

struct Checker<'f> {
    events: EventScope,
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
            self.choices(task, &scope);
            if let Some(reference) = task.get("taskRef") {
                self.unseen(reference, "Task", &given);
            }
            if let Some(spec) = task.get("taskSpec") {
                // An inline task sees the pipeline's params, too, unless it is given its own. What it declares and its defaults
                // do not keep them out (`propagateParams` in Tekton's `pkg/reconciler/pipelinerun/resources/apply.go`).
                let mut inner = scope.clone();
                for (name, taint) in self.defaults(spec, &scope) {
                    inner.entry(name).or_insert(taint);
                }
                let own = task.items("params").iter().filter_map(|param| param.get("name")?.text());
                own.for_each(|name| drop(inner.remove(name)));
                inner.extend(given);
                self.task(spec, &inner);
            }
            if let Some(pipeline) = task.get("pipelineSpec") {
                self.pipeline(pipeline, given_or(&scope, task, self));
            }
        }
    }

    fn task(&mut self, spec: &Node, scope: &Scope) {
        self.choices(spec, scope);
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

    /// Reports an author's text in fields that choose.
    fn choices(&mut self, node: &Node, scope: &Scope) {
        for (key, value) in node.entries().iter().filter(|(key, _)| !DATA.contains(&key.name.as_str())) {
            match &value.value {
                _ if CHOICES.contains(&key.name.as_str()) => self.choice(value, &key.name, scope),
                Value::Sequence(items) => items.iter().for_each(|item| self.choices(item, scope)),
                _ => self.choices(value, scope),
            }
        }
    }

    fn choice(&mut self, node: &Node, field: &str, scope: &Scope) {
        match &node.value {
            Value::Sequence(items) => items.iter().for_each(|item| self.choice(item, field, scope)),
            Value::Mapping(entries) => entries.iter().for_each(|(_, value)| self.choice(value, field, scope)),
            _ => {
                let Some(source) = self.taint(node, scope).choice else { return };
                let message = format!(
                    "an author would choose `{field}` ({source}), and with it what runs or with which rights; write it out, \
                     or let a condition choose: {{{{ {source} == \"x\" ? \"one\" : \"another\" }}}}"
                );
                self.faults.push(Fault { at: node.at, message });
            }
        }
    }

    /// Reports params with an author's text in code.
    fn code(&mut self, node: &Node, field: &str, scope: &Scope) {
        let Some(text) = node.text() else { return };
        for (at, written, name) in references(text) {
            let Some(source) = scope.get(name).and_then(|taint| taint.code.as_ref()) else { continue };
            let message = format!(
                "`{written}` in `{field}` is text that an author chooses ({source}), and would run as code; give it to the \
                 step as `env`, and write \"$NAME\" here"
            );
            self.faults.push(Fault { at: node.position_in(at), message });
        }
    }

    fn unseen(&mut self, reference: &Node, kind: &str, given: &Scope) {
        let in_code = given.iter().filter(|(_, taint)| taint.code.is_some());
        let mut names: Vec<&str> = in_code.map(|(name, _)| name.as_str()).collect();
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
            let taint = self.taint(param.get(field)?, scope);
            (taint.code.is_some() || taint.choice.is_some()).then(|| (name.to_owned(), taint))
        });
        tainted.collect()
    }

    /// The placeholders whose text of an author a value has.
    fn taint(&self, value: &Node, scope: &Scope) -> Taint {
        let all = |nodes: &mut dyn Iterator<Item = &Node>| {
            nodes.map(|node| self.taint(node, scope)).fold(Taint::default(), Taint::or)
        };
        match &value.value {
            Value::Text(text) => {
                let parts = Text::compile(text).map(|text| text.parts).unwrap_or_default();
                let own = parts.iter().filter_map(|part| match part {
                    Part::Expression(expression) => Some(self.taint_of(expression)),
                    Part::Literal(_) => None,
                });
                let passed = references(text).filter_map(|(_, _, name)| scope.get(name).cloned());
                own.chain(passed).fold(Taint::default(), Taint::or)
            }
            Value::Sequence(items) => all(&mut items.iter()),
            Value::Mapping(entries) => all(&mut entries.iter().map(|(_, item)| item)),
            _ => Taint::default(),
        }
    }

    fn taint_of(&self, expression: &Expression) -> Taint {
        let harmful = |place| expression.is_author_text(place).then(|| expression.to_string());
        Taint { code: harmful(Place::Code(self.events)), choice: harmful(Place::Choice) }
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
