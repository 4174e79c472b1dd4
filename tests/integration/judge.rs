//! What `lint` refuses and accepts, beside what Tekton's own admission and a strict API server say.

use std::process::Command;

use crate::support::control_plane::{ControlPlane, shared};
use crate::support::service::PROGRAM;

/// A run with this metadata and spec, as a template and, because it has no placeholders, as an object.
fn run(metadata: &str, spec: &str) -> String {
    let metadata = if metadata.is_empty() { String::new() } else { format!("\n  {metadata}") };
    format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: judged\n  annotations:\n    \
         github-trigger.dev/on-repository: acme/*{metadata}\n{spec}\n"
    )
}

fn pipeline(inside: &str) -> String {
    format!("spec:\n  pipelineSpec:\n    {}", inside.replace('\n', "\n    "))
}

/// A pipeline of tasks, written in one line each.
fn tasks(tasks: &[&str]) -> String {
    pipeline(&format!("tasks:\n- {}", tasks.join("\n- ")))
}

const STEP: &str = "taskSpec: {results: [{name: out}], steps: [{name: s, image: busybox, script: echo}]}";

/// Whether `lint` takes it, and what it says.
fn lint(text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("template.yaml");
    std::fs::write(&file, text).expect("a file");
    let output =
        Command::new(PROGRAM).args(["lint", "--trigger-config"]).arg(&file).env_clear().output().expect("lint");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Whether Tekton's admission and the API server take it, and what they say.
fn admit(plane: &ControlPlane, text: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("run.yaml");
    std::fs::write(&file, text).expect("a file");
    let kubeconfig = format!("--kubeconfig={}", plane.admin_kubeconfig().display());
    let create = ["create", "--dry-run=server", "--validate=strict", "-n", "default", "-f"];
    let output = Command::new(plane.kubectl_path()).arg(kubeconfig).args(create).arg(&file).output().expect("kubectl");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn refuses_what_tekton_refuses() {
    let Some(plane) = shared() else { return };
    let reference = "spec:\n  pipelineRef:\n    name: build\n";
    let cases = [
        ("needs `name` or `resolver`", run("", "spec:\n  pipelineRef: {}")),
        ("`name` and `resolver`", run("", "spec:\n  pipelineRef: {name: a, resolver: git}")),
        (
            "another param is named `a`",
            run("", &format!("{reference}  params: [{{name: a, value: x}}, {{name: a, value: y}}]")),
        ),
        (
            "another workspace is named `a`",
            run("", &format!("{reference}  workspaces: [{{name: a, emptyDir: {{}}}}, {{name: a, emptyDir: {{}}}}]")),
        ),
        ("has no source", run("", &format!("{reference}  workspaces: [{{name: a}}]"))),
        (
            "several sources",
            run("", &format!("{reference}  workspaces: [{{name: a, emptyDir: {{}}, secret: {{secretName: b}}}}]")),
        ),
        ("is not a duration", run("", &format!("{reference}  timeouts: {{pipeline: 1d}}"))),
        ("is longer than `timeouts.pipeline`", run("", &format!("{reference}  timeouts: {{pipeline: 1h, tasks: 2h}}"))),
        ("together longer", run("", &format!("{reference}  timeouts: {{pipeline: 1h, tasks: 50m, finally: 20m}}"))),
        ("must be one of Cancelled", run("", &format!("{reference}  status: Paused"))),
        (
            "another task is named `a`",
            run("", &tasks(&[&format!("{{name: a, {STEP}}}"), &format!("{{name: a, {STEP}}}")])),
        ),
        ("which the pipeline does not have", run("", &tasks(&[&format!("{{name: a, runAfter: [b], {STEP}}}")]))),
        (
            "names a task that the pipeline does not have",
            run("", &tasks(&[&format!("{{name: a, {STEP}, params: [{{name: x, value: $(tasks.b.results.out)}}]}}")])),
        ),
        ("is `group/version`", run("", &tasks(&["{name: a, taskRef: {name: b, apiVersion: custom, kind: Loop}}"]))),
        ("has no `image`", run("", &tasks(&["{name: a, taskSpec: {steps: [{name: s, script: echo}]}}"]))),
        ("has no steps", run("", &tasks(&["{name: a, taskSpec: {steps: []}}"]))),
        ("names nothing to run", run("", &tasks(&["{name: a}"]))),
        ("both `taskRef` and `taskSpec`", run("", &tasks(&[&format!("{{name: a, taskRef: {{name: b}}, {STEP}}}")]))),
        (
            "a task of `finally` cannot have `runAfter`",
            run(
                "",
                &pipeline(&format!("tasks:\n- {{name: a, {STEP}}}\nfinally:\n- {{name: b, runAfter: [a], {STEP}}}")),
            ),
        ),
    ];
    for (finding, text) in cases {
        let (accepted, said) = lint(&text);
        assert!(!accepted, "lint takes {text}");
        let finding = finding.replace("needs `name` or `resolver`", "is empty; write `name` or `resolver`");
        assert!(said.contains(&finding), "{finding}: {said}\n{text}");
        let (admitted, _) = admit(plane, &text);
        assert!(!admitted, "Tekton takes what lint refuses ({finding}):\n{text}");
    }
}

/// Admission takes them, and the run fails when its controller looks at it.
#[test]
fn refuses_what_fails_when_it_runs() {
    for (finding, text) in [
        (
            "has no result `in`",
            run(
                "",
                &tasks(&[
                    &format!("{{name: a, {STEP}}}"),
                    &format!("{{name: b, {STEP}, params: [{{name: x, value: $(tasks.a.results.in)}}]}}"),
                ]),
            ),
        ),
        ("ClusterTasks are gone", run("", &tasks(&["{name: a, taskRef: {name: b, kind: ClusterTask}}"]))),
    ] {
        let (accepted, said) = lint(&text);
        assert!(!accepted && said.contains(finding), "{finding}: {said}\n{text}");
    }
}

#[test]
fn accepts_what_tekton_accepts() {
    let Some(plane) = shared() else { return };
    let reference = "spec:\n  pipelineRef:\n    name: build\n";
    let both = [
        format!("{{name: a, {STEP}}}"),
        format!("{{name: b, runAfter: [a], {STEP}, params: [{{name: x, value: $(tasks.a.results.out)}}]}}"),
    ];
    for text in [
        run("creationTimestamp: null", reference),
        format!("{}status: {{}}\n", run("", reference)),
        run("", &format!("{reference}  managedBy: tekton.dev/pipeline")),
        run("", &format!("{reference}  status: PipelineRunPending")),
        run("", &format!("{reference}  timeouts: {{pipeline: 1h30m, tasks: 1h, finally: 30m}}")),
        run("", &format!("{reference}  timeouts: {{pipeline: \"0\", tasks: 5h}}")),
        run("", "spec:\n  pipelineRef: {resolver: git, params: [{name: url, value: x}]}"),
        run("", &format!("{reference}  params: [{{name: a, value: 192.0.2.7:6001}}, {{name: b, value: 8080:80}}]")),
        run(
            "",
            &format!("{reference}  workspaces: [{{name: a, emptyDir: {{}}}}, {{name: b, configMap: {{name: c}}}}]"),
        ),
        run("", &tasks(&[&both[0], &both[1]])),
        // A pipeline inside the spec of a custom task has tasks of its own.
        run(
            "",
            &tasks(&[
                "{name: loop, taskSpec: {apiVersion: custom.example.dev/v1, kind: Loop, spec: {pipelineSpec: {tasks: [{name: x, \
                      when: [{input: $(tasks.inner.results.out)}]}]}}}}",
            ]),
        ),
        run("", &tasks(&["{name: a, taskSpec: {stepTemplate: {image: busybox}, steps: [{name: s, script: echo}]}}"])),
    ] {
        let (accepted, said) = lint(&text);
        assert!(accepted && !said.contains("error"), "{said}\n{text}");
        let (admitted, said) = admit(plane, &text);
        assert!(admitted, "{said}\n{text}");
    }
}

/// A table of docs/migrating.md, by the first words of its head: what is written there, and here.
fn table(head: &str) -> Vec<(String, String)> {
    let page = std::fs::read_to_string("docs/migrating.md").expect("the page");
    let rows = page.lines().skip_while(|line| !line.starts_with(&format!("| {head}"))).skip(2);
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    let row = |line: &str| {
        let (there, here) = line.trim_matches('|').split_once("` | `").unwrap_or_else(|| panic!("{line}"));
        (cell(there), cell(here))
    };
    rows.take_while(|line| line.starts_with('|')).map(row).collect()
}

/// Every row of the page on migration: what is there is refused, and what is here passes.
#[test]
fn rows_of_the_migration_page_are_right() {
    let reference = "spec:\n  pipelineRef:\n    name: build\n";
    let param = |value: &str| run("", &format!("{reference}  params:\n  - name: a\n    value: '{value}'"));
    let annotation = |prefix: &str, text: &str| {
        let (name, value) = text.split_once(": ").expect("an annotation");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        run(&format!("  {prefix}/{name}: '{value}'"), reference)
    };
    let refused = |text: &str| {
        let (accepted, said) = lint(text);
        assert!(!accepted, "lint takes {text}");
        assert!(
            said.contains("write") || said.contains("is verified before") || said.contains("name the Secret"),
            "no advice: {said}\n{text}"
        );
    };
    let passes = |text: &str| {
        let (accepted, said) = lint(text);
        assert!(accepted && !said.contains("error"), "{said}\n{text}");
    };
    let mut rows = 0;
    for (there, here) in table("annotation there") {
        refused(&annotation("pipelinesascode.tekton.dev", &there));
        passes(&annotation("github-trigger.dev", &here));
        rows += 1;
    }
    for (there, here) in table("variable there").into_iter().chain(table("value there")) {
        refused(&param(&there));
        passes(&param(&here));
        rows += 1;
    }
    for (there, here) in table("expression there") {
        let condition = |expression: &str| annotation("github-trigger.dev", &format!("on-cel: {expression}"));
        // One function is the same.
        if !there.contains("marshalJSON") {
            refused(&condition(&there));
        }
        passes(&condition(&here));
        rows += 1;
    }
    assert!(rows > 30, "{rows}");
}

#[test]
fn says_what_to_do_with_other_kinds_of_objects() {
    for (kind, advice) in [
        ("ConfigMap", "the text under `data`"),
        ("TriggerTemplate", "docs/migrating.md"),
        ("EventListener", "docs/migrating.md"),
        ("List", "separated by `---`"),
        ("Task", "apply it to the cluster"),
    ] {
        let (accepted, said) =
            lint(&format!("apiVersion: tekton.dev/v1\nkind: {kind}\nmetadata: {{name: a}}\nitems: []\n"));
        assert!(!accepted && said.contains(advice), "{kind}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
