mod authors;
mod never;

use std::path::PathBuf;

use super::*;

fn check(sources: &[(&str, &str)]) -> (usize, Vec<String>) {
    let files = sources
        .iter()
        .map(|(path, content)| mounted::File { path: PathBuf::from(path), content: content.as_bytes().to_vec() });
    let (templates, findings) = parse(files.collect());
    (templates.len(), findings.iter().map(Finding::to_string).collect())
}

/// The findings of a valid template with additional `metadata` and `spec` lines.
fn findings(metadata: &str, spec: &str) -> Vec<String> {
    let source = format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build\n  annotations:\n    \
         github-trigger.dev/on-repository: acme/*\n{metadata}spec:\n  pipelineRef:\n    name: build\n{spec}"
    );
    check(&[("t.yaml", &source)]).1
}

fn one(metadata: &str, spec: &str) -> String {
    let mut found = findings(metadata, spec);
    assert_eq!(found.len(), 1, "{metadata}{spec}: {found:#?}");
    found.remove(0)
}

#[test]
fn accepts_valid_template() {
    assert_eq!(findings("", "  params:\n  - name: a\n    value: {{.Branch}}\n"), [""; 0]);
}

#[test]
fn reports_all_findings_of_all_files() {
    let (count, found) = check(&[
        (
            "a.yaml",
            "apiVersion: tekton.dev/v1beta1\nkind: PipelineRun\nmetadata: {name: a}\nspec:\n  pipelineRef: {name: b}\n  timeout: 1h\n",
        ),
        ("b.yaml", "apiVersion: v1\nkind: ConfigMap\n---\na: [\n"),
        ("c.yaml", "# nothing\n"),
        ("d.yaml", "- a list\n"),
    ]);
    assert_eq!(count, 0);
    let wanted = [
        "a.yaml:1:13: `tekton.dev/v1beta1` is an older API; write `apiVersion: tekton.dev/v1`",
        "a.yaml:6:3: `spec.timeout` is not a field of tekton.dev/v1; write it as `spec.timeouts.pipeline`",
        "b.yaml:2:7: a template's `kind` must be PipelineRun, not ConfigMap; take the text under `data` as the file, or name the \
         folder that the ConfigMap is mounted to",
        "c.yaml:1:1: the file contains no template; write a tekton.dev/v1 PipelineRun",
        "d.yaml:1:1: a template must be a PipelineRun, not a list",
    ];
    for line in wanted {
        assert!(found.iter().any(|finding| finding == line), "{line}\n{found:#?}");
    }
    assert!(
        found.iter().any(|finding| finding.starts_with("b.yaml:5:") || finding.starts_with("b.yaml:4:")),
        "{found:#?}"
    );
}

#[test]
fn reports_names_that_events_of_a_kind_never_have() {
    let of = |kinds: &str, name: &str| {
        let spec = format!("  params:\n  - name: a\n    value: \"{{{{ {name} }}}}\"\n");
        let mut found = findings(&format!("    github-trigger.dev/on-event: {kinds}\n"), &spec);
        found.retain(|finding| !finding.contains("lint cannot see"));
        found
    };
    let found = of("release.published", "revision");
    let message = "events of the kind `release` have no value for `revision`; use a path into their payload (body.a.b)";
    assert_eq!(found, [format!("t.yaml:13:12: {message}")]);
    for (kinds, name) in [("issues", ".Branch"), ("push", "source_branch"), ("workflow_job", "target_branch")] {
        assert_eq!(of(kinds, name).len(), 1, "{kinds} {name}");
    }
    // One of the kinds has it.
    let found = of("merged, release.published", "revision");
    assert_eq!(found, [format!("t.yaml:13:12: warning: {message}")]);
    for (kinds, name) in [
        ("push, check_run.completed, status, deployment, merge_group", "revision"),
        ("release", "target_branch"),
        ("issues", "pull_request_number"),
    ] {
        assert_eq!(of(kinds, name), [""; 0], "{kinds} {name}");
    }
}

#[test]
fn suggests_successors_of_older_api_fields() {
    for (spec, successor) in [
        ("  serviceAccountName: x\n", "spec.taskRunTemplate.serviceAccountName"),
        ("  serviceAccount: x\n", "spec.taskRunTemplate.serviceAccountName"),
        ("  podTemplate: {}\n", "spec.taskRunTemplate.podTemplate"),
        ("  timeout: 1h\n", "spec.timeouts.pipeline"),
        ("  resources: []\n", "spec.workspaces"),
        ("  taskRunSpecs:\n  - taskServiceAccountName: x\n", "`serviceAccountName`"),
        ("  params:\n  - {name: a, value: b, type: string}\n", "Pipeline's params"),
    ] {
        let found = one("", spec);
        assert!(found.contains("is not a field of tekton.dev/v1") && found.contains(successor), "{found}");
    }
}

#[test]
fn suggests_known_field_for_unknown_field() {
    assert!(one("", "  parms: []\n").contains("did you mean `params`?"));
    assert!(one("", "  taskRunTemplate: {serviceAcountName: x}\n").contains("did you mean `serviceAccountName`?"));
    assert!(one("  label: {}\n", "").contains("did you mean `labels`?"));
    assert!(one("", "  colour: red\n").contains("known fields: pipelineRef"));
    assert!(one("", "  params: {a: b}\n").contains("must be a list, not a map"));
    assert!(one("", "  timeouts: 1h\n").contains("must be a map, not text"));
}

#[test]
fn checks_names_namespaces_labels_and_annotations() {
    let run = |metadata: &str| {
        check(&[("t.yaml", &format!("apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n{metadata}spec: {{pipelineRef: {{name: a}}}}\n"))]).1
    };
    let has = |metadata: &str, text: &str| {
        let found = run(metadata);
        assert!(found.iter().any(|finding| finding.contains(text)), "{text}: {found:#?}");
    };
    has("  labels: {}\n", "`metadata.name` is missing");
    has("  name: Build\n", "is not a valid name; use lower case letters");
    has("  name: 5\n", "must be text, not a number");
    has("  name: a\n  namespace: \"{{ repo_owner }}\"\n", "write it out, without a placeholder");
    has("  name: a\n  namespace: A_B\n", "`metadata.namespace` is not a valid name");
    has("  name: a\n  labels: {a b: c}\n", "is not a valid key in labels");
    has("  name: a\n  labels: {a: 5}\n", "must be text, not a number; write it in quotes");
    has("  name: a\n  labels: {a: feature/x}\n", "can never be valid");
    has("  name: a\n  labels: {a: \"refs/heads/{{.Branch}}\"}\n", "can never be valid");
    has("  name: a\n  labels: {github-trigger.dev/commit: a}\n", "set by this service");
    has("  name: a\n  annotations: {\"{{.Branch}}\": a}\n", "not allowed in a key");
    has("  name: a\n  annotations: {github-trigger.dev/on-repo: a/b}\n", "unknown annotation");
    has(
        "  name: a\n  annotations: {github-trigger.dev/on-repositry: a/b}\n",
        "did you mean `github-trigger.dev/on-repository`?",
    );
    has("  name: a\n  annotations: {github-trigger.dev/on-repository: web}\n", "can never match `owner/name`");
    has("  name: a\n  annotations: {github-trigger.dev/on-event: Push}\n", "did you mean `push`?");
    has("  name: a\n  annotations: {github-trigger.dev/on-cel: \"1 +\"}\n", "not a CEL expression");
    has(
        "  name: a\n  annotations: {github-trigger.dev/on-target-branch: \"{{.Branch}}\"}\n",
        "on-target-branch` cannot contain a placeholder",
    );
    has("  name: a\n", "warning: this template matches every repository");
}

#[test]
fn requires_exactly_one_pipeline() {
    let spec = |spec: &str| {
        check(&[("t.yaml", &format!("apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: a, annotations: {{github-trigger.dev/on-repository: a/b}}}}\n{spec}"))]).1
    };
    assert!(spec("")[0].contains("`spec` is missing"));
    assert!(spec("spec: {params: []}\n")[0].contains("names no pipeline"));
    assert!(spec("spec: {pipelineRef: {name: a}, pipelineSpec: {tasks: []}}\n")[0].contains("has both"));
}

#[test]
fn rejects_placeholder_in_script() {
    let steps = |field: &str| {
        format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: a, annotations: {{github-trigger.dev/on-repository: a/b}}}}\n\
             spec:\n  pipelineSpec:\n    tasks:\n    - name: t\n      taskSpec:\n        steps:\n        - name: s\n          image: i\n          {field}\n"
        )
    };
    for field in ["script: \"echo {{.Branch}}\"", "args: [a, \"{{.Branch}}\"]", "command: [\"{{.Branch}}\"]"] {
        let found = check(&[("t.yaml", &steps(field))]).1;
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].contains("would run as code"), "{found:#?}");
    }
    let env = "env: [{name: BRANCH, value: \"{{.Branch}}\"}]";
    assert_eq!(check(&[("t.yaml", &steps(env))]).1, [""; 0]);
}

#[test]
fn looks_into_nested_conditions_once() {
    let nested = (0..60).fold("'a'".to_owned(), |inner, _| format!("true?({inner}):'b'"));
    let found = findings("", &format!("  params: [{{name: a, value: \"{{{{ {nested} }}}}\"}}]\n"));
    assert_eq!(found, [""; 0]);
    let nested = (0..20).fold("'a'".to_owned(), |inner, _| format!("has({{'a':{inner}}}.a)"));
    let found = findings("", &format!("  params: [{{name: a, value: \"{{{{ {nested} ? 'a' : 'b' }}}}\"}}]\n"));
    assert!(found.len() == 1 && found[0].contains("`has` is nested too deeply"), "{found:#?}");
}

#[test]
fn reports_the_line_of_a_placeholder_in_a_block() {
    let block = "    tasks:\n    - name: t\n      taskSpec:\n        steps:\n        - name: s\n          image: i\n          script: |\n            \
                 echo one\n            echo $(params.text)\n";
    let found = authors::inline("{{ source_branch }}", block);
    assert!(found[0].starts_with("t.yaml:19:18: "), "{found:#?}");
    let found = findings("    example.com/a: |\n      one\n      two {{ nothing }}\n", "");
    assert!(found[0].starts_with("t.yaml:9:11: unknown name `nothing`"), "{found:#?}");
}

#[test]
fn rejects_duplicate_name_in_namespace() {
    let template = |name: &str| {
        format!(
            "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{{name}, annotations: {{github-trigger.dev/on-repository: a/b}}}}\nspec: {{pipelineRef: {{name: a}}}}\n"
        )
    };
    let two = |first: &str, second: &str| check(&[("a.yaml", &template(first)), ("b.yaml", &template(second))]);
    assert_eq!(two("name: a", "name: b").0, 2);
    assert_eq!(two("name: a", "{name: a, namespace: x".trim_start_matches('{')).0, 2);
    let (_, found) = two("name: a", "generateName: a-");
    assert!(
        found[0].starts_with("b.yaml:3:") && found[0].contains("another template is named `a` (a.yaml:3)"),
        "{found:?}"
    );
}

#[test]
fn reports_position_of_invalid_utf8() {
    let file = mounted::File { path: "t.yaml".into(), content: b"a: b\nc: \xff\n".to_vec() };
    let (_, findings) = parse(vec![file]);
    assert_eq!(findings[0].to_string(), "t.yaml:2:4: not UTF-8 text; save the file as UTF-8");
}
