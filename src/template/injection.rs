//! Follows text that authors of pull requests choose into the scripts of an inline pipeline, and into fields that choose what
//! runs, or with which rights.
//!
//! Tekton replaces `$(params.x)` in `script`, `command` and `args` before a shell reads them: a branch called `` `id` `` would
//! run. Kubernetes does the same with `$(NAME)` of the environment in `command` and `args`. The way out is a param that a
//! `script` reads through `env`, which no shell interprets. References to Pipelines, Tasks and `StepActions` cannot be looked
//! into; they are named.
//!
//! With `image: builder:$(params.branch)` the author chooses the image. There is no way out but to choose it in the template.

use std::collections::HashMap;

use super::conditions::{Conditions, PREFIX};
use super::expression::{Expression, Name, Place};
use super::placeholder::{Part, Text, tekton_variables};
use super::yaml::{Fault, Node, Value};

/// Fields that choose what runs, or with which rights, with all that is below them.
#[rustfmt::skip]
const CHOICES: &[&str] = &[
    "pipelineRef", "taskRef", "ref", "image", "serviceAccountName", "podTemplate", "securityContext", "secret", "configMap",
    "projected", "csi", "volumes", "valueFrom", "envFrom", "persistentVolumeClaim", "dataSource", "dataSourceRef",
    "volumeName",
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
    /// A commit that anyone can make.
    commit: Option<String>,
}

impl Taint {
    fn or(self, other: Self) -> Self {
        Self {
            code: self.code.or(other.code),
            choice: self.choice.or(other.choice),
            commit: self.commit.or(other.commit),
        }
    }

    fn is_harmless(&self) -> bool {
        self.code.is_none() && self.choice.is_none() && self.commit.is_none()
    }
}

/// Checks a run that is created under these conditions.
/// Adds injections to `faults`, and what cannot be seen, or may be wanted, to `warnings`.
pub(super) fn check(document: &Node, conditions: &Conditions, faults: &mut Vec<Fault>, warnings: &mut Vec<Fault>) {
    let Some(spec) = document.get("spec") else { return };
    let mut checker = Checker { conditions, annotations: Scope::new(), faults, warnings };
    checker.annotations = checker.annotations(document);
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
    conditions: &'f Conditions,
    /// Annotations of the run, which Tekton copies to its pods.
    annotations: Scope,
    faults: &'f mut Vec<Fault>,
    warnings: &'f mut Vec<Fault>,
}

impl Checker<'_> {
    fn pipeline(&mut self, pipeline: &Node, run: Scope) {
        let mut scope = self.defaults(pipeline, &run);
        scope.extend(run);
        for task in pipeline.items("tasks").iter().chain(pipeline.items("finally").iter()) {
            let mut given = self.given(task, &scope);
            let mut own = names_of_params(task);
            if let Some(matrix) = task.get("matrix") {
                for params in std::iter::once(matrix).chain(matrix.items("include")) {
                    given.extend(self.given(params, &scope));
                    own.extend(names_of_params(params));
                }
            }
            self.choices(task, &scope);
            self.conditions(task, &scope);
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
                own.iter().for_each(|name| drop(inner.remove(*name)));
                inner.extend(given);
                self.task(spec, &inner);
            } else if let Some(pipeline) = task.get("pipelineSpec") {
                let mut inner = scope.clone();
                own.iter().for_each(|name| drop(inner.remove(*name)));
                inner.extend(given);
                self.pipeline(pipeline, inner);
            }
        }
    }

    fn task(&mut self, spec: &Node, scope: &Scope) {
        self.choices(spec, scope);
        let template = spec.get("stepTemplate");
        let mut annotations = self.annotations.clone();
        annotations.extend(self.annotations_of(spec, scope));
        let steps = spec.items("steps").iter().map(|step| (step, template));
        for (step, template) in steps.chain(spec.items("sidecars").iter().map(|sidecar| (sidecar, None))) {
            self.conditions(step, scope);
            let environment = self.environment(template, step, scope, &annotations);
            for field in ["script", "command", "args"] {
                let inherited = || template.and_then(|template| template.get(field));
                let Some(node) = step.get(field).or_else(inherited) else { continue };
                let mut check = |text: &Node| {
                    self.code(text, field, scope);
                    if field != "script" {
                        self.expanded(text, field, &environment);
                    }
                };
                match &node.value {
                    Value::Sequence(items) => items.iter().for_each(check),
                    _ => check(node),
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
                let taint = self.taint(node, scope);
                let head = node.text().and_then(head_of_pull_request);
                let Some(source) = taint.choice else { return self.commit(node, field, taint.commit.or(head)) };
                let message = format!(
                    "an author would choose `{field}` ({source}), and with it what runs or with which rights; write it out, \
                     or let a condition choose: {{{{ {source} == \"x\" ? \"one\" : \"another\" }}}}"
                );
                self.faults.push(Fault { at: node.at, message });
            }
        }
    }

    /// Warns of a Pipeline, Task or `StepAction` that is taken from a commit of a fork.
    fn commit(&mut self, node: &Node, field: &str, commit: Option<String>) {
        let Some(source) = commit.filter(|_| self.conditions.take_commits_of_forks()) else { return };
        if !matches!(field, "pipelineRef" | "taskRef" | "ref") {
            return;
        }
        let message = format!(
            "who opens a pull request makes the commit ({source}), and with it chooses `{field}`, also from a fork; take it \
             from a branch of yours, or let on-cel ask for people that you trust"
        );
        self.warnings.push(Fault { at: node.at, message });
    }

    /// Reports a fault, once: steps share what they inherit.
    fn fault(&mut self, fault: Fault) {
        if !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }

    /// Reports params with an author's text in code.
    fn code(&mut self, node: &Node, field: &str, scope: &Scope) {
        let Some(text) = node.text() else { return };
        for (at, written, name) in references(text) {
            let Some(source) = find(scope, name).and_then(|taint| taint.code.as_ref()) else { continue };
            let message = format!(
                "`{written}` in `{field}` is text that an author chooses ({source}), and would run as code; give it to the \
                 step as `env`, and write \"$NAME\" in its `script`"
            );
            self.fault(Fault { at: node.position_in(at), message });
        }
    }

    /// Reports variables of the environment with an author's text, where Kubernetes puts them into a command.
    fn expanded(&mut self, node: &Node, field: &str, environment: &Scope) {
        let Some(text) = node.text() else { return };
        for (at, written, name) in expansions(text) {
            let Some(source) = environment.get(name).and_then(|taint| taint.code.as_ref()) else { continue };
            let message = format!(
                "`{written}` in `{field}` is text that an author chooses ({source}); Kubernetes puts it in before anything \
                 runs, so that it would run as code; write \"${name}\" in a `script`"
            );
            self.fault(Fault { at: node.position_in(at), message });
        }
    }

    /// Reports an author's text in the expressions of `when`.
    fn conditions(&mut self, node: &Node, scope: &Scope) {
        for condition in node.items("when").iter() {
            let Some(cel) = condition.get("cel") else { continue };
            let Some(source) = self.taint(cel, scope).code else { continue };
            let message = format!(
                "text that an author chooses ({source}) would be a part of the expression in `cel`; compare it with `input`, \
                 `operator` and `values`"
            );
            self.faults.push(Fault { at: cel.at, message });
        }
    }

    /// The variables of a step's environment that carry an author's text.
    fn environment(&self, template: Option<&Node>, step: &Node, scope: &Scope, annotations: &Scope) -> Scope {
        let mut environment = Scope::new();
        let inherited = template.map(|template| template.items("env")).unwrap_or_default();
        for variable in inherited.iter().chain(step.items("env")) {
            let Some(name) = variable.get("name").and_then(Node::text) else { continue };
            let taint = match variable.get("value") {
                Some(value) => {
                    let expanded = expansions(value.text().unwrap_or_default())
                        .filter_map(|(_, _, name)| environment.get(name).cloned());
                    expanded.fold(self.taint(value, scope), Taint::or)
                }
                None => field_of_pod(variable, annotations),
            };
            environment.insert(name.to_owned(), taint);
        }
        environment
    }

    /// The annotations in an object's metadata.
    fn annotations_of(&self, object: &Node, scope: &Scope) -> Scope {
        let annotations = object.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let written = annotations.map(Node::entries).unwrap_or_default();
        written.iter().map(|(key, value)| (key.name.clone(), self.taint(value, scope))).collect()
    }

    /// The annotations of the run that carry an author's text: the template's, and those that are written for each run.
    fn annotations(&self, document: &Node) -> Scope {
        let spec = document.get("spec");
        let run = spec.map(|spec| self.given(spec, &Scope::new())).unwrap_or_default();
        let of_tasks = spec.map(|spec| spec.items("taskRunSpecs")).unwrap_or_default();
        let written = std::iter::once(document).chain(of_tasks).flat_map(|object| self.annotations_of(object, &run));
        let stamped =
            [("target-branch", Expression::Name(Name::TargetBranch)), ("sender", Expression::Name(Name::Sender))];
        let stamped = stamped.into_iter().map(|(key, value)| (format!("{PREFIX}{key}"), self.taint_of(&value)));
        written.chain(stamped).collect()
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
            (!taint.is_harmless()).then(|| (name.to_owned(), taint))
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
                let passed = references(text).filter_map(|(_, _, name)| find(scope, name).cloned());
                own.chain(passed).fold(Taint::default(), Taint::or)
            }
            Value::Sequence(items) => all(&mut items.iter()),
            Value::Mapping(entries) => all(&mut entries.iter().map(|(_, item)| item)),
            _ => Taint::default(),
        }
    }

    fn taint_of(&self, expression: &Expression) -> Taint {
        let harmful = |place| expression.is_author_text(place).then(|| expression.to_string());
        Taint {
            code: harmful(Place::Code(self.conditions.event_scope())),
            choice: harmful(Place::Choice),
            commit: harmful(Place::Reference),
        }
    }
}

fn names_of_params(parent: &Node) -> Vec<&str> {
    parent.items("params").iter().filter_map(|param| param.get("name")?.text()).collect()
}

/// What a variable reads from the pod's annotations.
fn field_of_pod(variable: &Node, annotations: &Scope) -> Taint {
    let field = ["valueFrom", "fieldRef", "fieldPath"].into_iter().try_fold(variable, |node, field| node.get(field));
    let annotation =
        field.and_then(Node::text).and_then(|path| path.strip_prefix("metadata.annotations['")?.strip_suffix("']"));
    annotation.and_then(|key| annotations.get(key)).cloned().unwrap_or_default()
}

/// The reference to the head of a pull request, if its number comes with the event.
fn head_of_pull_request(text: &str) -> Option<String> {
    let (_, number) = text.split_once("refs/pull/")?;
    (number.starts_with("{{") || number.starts_with("$(")).then(|| text.to_owned())
}

/// Tekton's references to params in a text: offset, the whole reference, and the param's name, with the keys that follow it.
fn references(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    tekton_variables(text).filter_map(|(at, written, inner)| {
        let inner = inner.strip_prefix("inputs.").unwrap_or(inner).strip_prefix("params")?;
        let name = match inner.strip_prefix('.') {
            Some(name) => name.split('[').next()?,
            None => inner.strip_prefix('[')?.split(']').next()?.trim_matches(['\'', '"']),
        };
        Some((at, written, name))
    })
}

/// The param that a reference names: `a.b` is that name, or the key `b` of `a`.
fn find<'s>(scope: &'s Scope, name: &str) -> Option<&'s Taint> {
    std::iter::successors(Some(name), |name| Some(name.rsplit_once('.')?.0)).find_map(|name| scope.get(name))
}

/// What Kubernetes replaces by variables of the environment: offset, the whole `$(NAME)`, and the name. `$$` is a `$`.
fn expansions(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    tekton_variables(text).filter(|(at, ..)| {
        let before = text.get(..*at).unwrap_or_default();
        (before.len() - before.trim_end_matches('$').len()).is_multiple_of(2)
    })
}

#[cfg(test)]
mod tests {
    use super::{expansions, references};

    #[test]
    fn finds_references_in_each_notation() {
        let text = "a $(params.x) $(params['y.z']) $(params[\"w\"]) $(params.list[*]) $(params.a.b) $(inputs.params.old) $(tasks.t.results.r) $(params.o.key";
        let names: Vec<&str> = references(text).map(|(_, _, name)| name).collect();
        assert_eq!(names, ["x", "y.z", "w", "list", "a.b", "old"]);
    }

    #[test]
    fn finds_what_kubernetes_expands() {
        let names: Vec<&str> = expansions("a $(X) $$(Y) $$$(Z) $W $(V").map(|(_, _, name)| name).collect();
        assert_eq!(names, ["X", "Z"]);
    }
}
