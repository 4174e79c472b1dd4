//! Templates that never match, and those that no event makes a valid run of.

use super::{check, findings, one};

/// The findings of a template for these events with a condition.
fn conditions(events: &str, condition: &str, value: &str) -> Vec<String> {
    let repository = if condition == "on-repository" { "" } else { "github-trigger.dev/on-repository: acme/*\n    " };
    let source = format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build\n  annotations:\n    \
         {repository}github-trigger.dev/on-event: {events}\n    github-trigger.dev/{condition}: {value:?}\nspec:\n  \
         pipelineRef: {{name: build}}\n"
    );
    check(&[("t.yaml", &source)]).1
}

#[test]
fn reports_conditions_about_what_an_event_lacks() {
    for (events, condition, value, finding) in [
        ("issue_comment.created", "on-target-branch", "**", "a `issue_comment` has no target branch"),
        ("release", "on-path", "docs/**", "a `release` changes no paths"),
        ("merged, release", "on-path", "docs/**", "a `release` changes no paths"),
        ("organization.member_added", "on-repository", "acme/*", "a `organization` belongs to no repository"),
        ("push", "on-cel", "source_branch.startsWith('x')", "a `push` has no value for `source_branch`"),
    ] {
        let found = conditions(events, condition, value);
        let is_fault = !found[0].contains(": warning: ");
        assert!(found.len() == 1 && is_fault && found[0].contains(finding), "{events} {condition}: {found:#?}");
    }
    // The template matches others of its events.
    for (events, condition, value, finding) in [
        ("merged, issues", "on-target-branch", "main", "a `issues` has no target branch"),
        ("push, organization", "on-repository", "acme/*", "a `organization` belongs to no repository"),
        ("merged, release.published", "on-cel", "revision != 'x'", "a `release` has no value for `revision`"),
    ] {
        let found = conditions(events, condition, value);
        let is_warning = found[0].contains(": warning: ");
        assert!(found.len() == 1 && is_warning && found[0].contains(finding), "{events} {condition}: {found:#?}");
    }
    for (events, condition, value) in [
        ("push, release, workflow_run", "on-target-branch", "main"),
        ("merged, push", "on-path", "docs/**"),
        ("issues, member, repository", "on-repository", "acme/*"),
        ("merged, push", "on-cel", "event.type == 'push' || source_branch.startsWith('x')"),
        ("push", "on-cel", "body.commits.all(c, event.type == 'push')"),
    ] {
        assert_eq!(conditions(events, condition, value), [""; 0], "{events} {condition}");
    }
    let found = conditions("ping", "on-cel", "true");
    assert!(found.len() == 1 && found[0].contains("starts no run; write `merged`"), "{found:#?}");
}

#[test]
fn compares_numbers_and_texts_with_fields_that_have_a_lists_name_elsewhere() {
    for (events, value) in [
        ("merged", "body.pull_request.commits == 1"),
        ("push", "body.repository.organization == 'acme'"),
        ("push", "body.commits.size() == 1"),
    ] {
        assert_eq!(conditions(events, "on-cel", value), [""; 0], "{value}");
    }
    for value in ["body.commits == 1", "body.organization == 'acme'"] {
        let found = conditions("push", "on-cel", value);
        assert!(found.len() == 1 && found[0].contains("never equals"), "{value}: {found:#?}");
    }
}

#[test]
fn reports_names_that_an_expression_always_reads() {
    let of = |kinds: &str, expression: &str| {
        let spec = format!("  params:\n  - name: a\n    value: \"{{{{ {expression} }}}}\"\n");
        let mut found = findings(&format!("    github-trigger.dev/on-event: {kinds}\n"), &spec);
        found.retain(|finding| !finding.contains("lint cannot see"));
        found
    };
    for (kinds, expression) in [
        ("push", "slug(source_branch)"),
        ("release.published", "revision.substring(0, 7)"),
        ("issues", "[target_branch].join('') + 'x'"),
    ] {
        let found = of(kinds, expression);
        assert!(found.len() == 1 && found[0].contains("have no value for"), "{kinds} {expression}: {found:#?}");
    }
    for (kinds, expression) in [
        ("push", "has(body.x) ? source_branch : 'none'"),
        ("push", "slug(target_branch)"),
        ("push", "body.commits.filter(c, c.id == source_branch).size()"),
    ] {
        assert_eq!(of(kinds, expression), [""; 0], "{kinds} {expression}");
    }
}

#[test]
fn reports_names_and_labels_that_no_value_makes_valid() {
    let metadata = |metadata: &str| {
        let source = format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{{metadata}, annotations: {{github-trigger.dev/on-repository: \
             a/b}}}}\nspec: {{pipelineRef: {{name: a}}}}\n"
        );
        check(&[("t.yaml", &source)]).1
    };
    let long = format!("name: a, labels: {{x: \"{0}{{{{.Branch}}}}{0}\"}}", "a".repeat(40));
    for (invalid, finding) in [
        ("name: \"Build_{{.ShortCommitid}}\"", "`Build_` is not a valid name"),
        ("name: \"-{{.ShortCommitid}}\"", "`-` is not a valid name"),
        ("name: \"{{.ShortCommitid}}/x\"", "`/x` is not a valid name"),
        ("name: a, labels: {x: \"{{.ShortCommitid}}_\"}", "begins and ends with a letter or digit, not with `_`"),
        ("name: a, labels: {x: \"-{{.ShortCommitid}}\"}", "begins and ends with a letter or digit, not with `-`"),
        ("name: a, labels: {x: \"{{ repo_url }}\"}", "cannot be a URL"),
        (&long, "at most 63 characters"),
    ] {
        let found = metadata(invalid);
        assert!(found.len() == 1 && found[0].contains(finding), "{invalid}: {found:#?}");
    }
    for valid in [
        "name: \"build-{{.ShortCommitid}}\"",
        "name: \"{{.ShortCommitid}}-x.y\"",
        "name: a, labels: {x: \"v_{{.Branch}}\"}",
    ] {
        assert_eq!(metadata(valid), [""; 0], "{valid}");
    }
}

#[test]
fn reports_what_tekton_refuses_or_never_runs() {
    let pipeline = |spec: &str| {
        let source = format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: a, annotations: {{github-trigger.dev/on-repository: \
             a/b}}}}\nspec: {{{spec}}}\n"
        );
        check(&[("t.yaml", &source)]).1
    };
    let task = |name: &str, more: &str| format!("{{name: {name}, taskRef: {{name: x}}{more}}}");
    let tasks = |tasks: &[String]| pipeline(&format!("pipelineSpec: {{tasks: [{}]}}", tasks.join(", ")));
    let result = ", params: [{name: p, value: $(tasks.b.results.r)}]";
    for (found, finding) in [
        (pipeline("pipelineRef: {name: x}, params: [{name: p, value: $(tasks.a.results.b)}]"), "cannot use results"),
        (pipeline("pipelineSpec: {}"), "has no tasks"),
        (pipeline("pipelineSpec:"), "has no tasks"),
        (pipeline("pipelineRef: {name: x}, managedBy: example.com/other"), "names another controller"),
        (tasks(&[task("Build_Image", "")]), "a task's name has at most 63"),
        (tasks(&["{taskRef: {name: x}}".to_owned()]), "a task has no `name`"),
        (tasks(&[task("a", ", runAfter: [b]"), task("b", ", runAfter: [a]")]), "waits for itself"),
        (tasks(&[task("a", result), task("b", ", runAfter: [c]"), task("c", ", runAfter: [a]")]), "waits for itself"),
    ] {
        assert!(found.len() == 1 && found[0].contains(finding), "{finding}: {found:#?}");
    }
    for found in [
        tasks(&[task("a", result), task("b", ", runAfter: [c]"), task("c", "")]),
        pipeline("pipelineRef: {name: x}, managedBy: tekton.dev/pipeline"),
    ] {
        assert_eq!(found, [""; 0]);
    }
}

#[test]
fn takes_functions_of_a_shell_and_maps_for_what_they_are() {
    let script = "  pipelineSpec: {tasks: [{name: t, taskSpec: {steps: [{name: s, image: i, script: \"curl -d $(body) x\"}]}}]}\n";
    let found = findings("", script);
    assert!(found.iter().all(|finding| !finding.contains("Tekton Triggers")), "{found:#?}");
    assert!(one("", "  params: [{name: a, value: $(body.ref)}]\n").contains("write {{ body.ref }}"));
    let map = "  params: [{name: a, value: {args: \"{{ revision }}\"}}]\n";
    assert_eq!(findings("", map), [""; 0]);
}

#[test]
fn knows_custom_tasks_and_pipelines_in_pipelines() {
    let pipeline = |tasks: &str| {
        let source = format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: a, annotations: {{github-trigger.dev/on-repository: \
             a/b}}}}\nspec: {{pipelineSpec: {{tasks: [{tasks}]}}}}\n"
        );
        check(&[("t.yaml", &source)]).1
    };
    let nested = |tasks: &str| pipeline(&format!("{{name: outer, pipelineSpec: {{tasks: [{tasks}]}}}}"));
    let step = "taskSpec: {results: [{name: r}], steps: [{image: i}]}";
    assert_eq!(pipeline("{name: a, taskRef: {apiVersion: example.dev/v1alpha1, kind: ApprovalTask}}"), [""; 0]);
    let uses = "{name: second, taskRef: {name: x}, params: [{name: p, value: $(tasks.first.results.r)}]}";
    assert_eq!(nested(&format!("{{name: first, {step}}}, {uses}")), [""; 0]);
    for (tasks, finding) in [
        (uses, "names a task that the pipeline does not have"),
        ("{name: First_X, taskRef: {name: x}}", "a task's name has at most 63"),
        ("{name: a, taskRef: {name: x}, runAfter: [nope]}", "names the task `nope`"),
    ] {
        let found = nested(tasks);
        assert!(found.len() == 1 && found[0].contains(finding), "{tasks}: {found:#?}");
    }
}
