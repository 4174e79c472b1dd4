use proptest::prelude::*;

use super::*;
use crate::mounted::File;
use crate::template::{self, TemplateSet, testing};

const STAMP: Stamp<'_> = Stamp { namespace: "builds" };
const SHA: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

fn templates(source: &str) -> TemplateSet {
    let file = File { path: "t.yaml".into(), content: source.as_bytes().to_vec() };
    let (templates, findings) = template::parse(vec![file]);
    assert!(findings.iter().all(|finding| finding.severity == template::Severity::Warning), "{source}: {findings:#?}");
    templates
}

/// A valid template with additional `metadata` and `spec` lines.
fn template(metadata: &str, spec: &str) -> Template {
    let source = format!(
        "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  generateName: build-\n  annotations:\n    \
         github-trigger.dev/on-repository: \"*/*\"\n{metadata}spec:\n  pipelineRef:\n    name: build\n{spec}"
    );
    templates(&source).iter().next().expect("a template").clone()
}

fn event_with(base: &str, head: &str, sender: &str) -> Event {
    let payload = json!({
        "action": "closed",
        "pull_request": {
            "number": 5, "merged": true, "merge_commit_sha": SHA, "merged_at": "2026-11-22T13:46:53+02:00",
            "html_url": "https://github.com/Acme/web/pull/5", "base": {"ref": base}, "head": {"ref": head, "repo": null}
        },
        "repository": {"full_name": "Acme/web", "html_url": "https://github.com/Acme/web"},
        "sender": {"login": sender}
    });
    testing::event("pull_request", "d1", &payload)
}

fn render(template: &Template, event: &Event) -> Result<PipelineRun, RenderError> {
    template.render(&Values::of(event), STAMP)
}

fn params(list: &str) -> Template {
    let line = |(index, value)| format!("  - name: p{index}\n    value: {value}\n");
    let lines: String = list.lines().enumerate().map(line).collect();
    template("", &format!("  params:\n{lines}"))
}

#[test]
fn renders_value_of_each_name() {
    let names = "{{.Commitid}}\n{{.ShortCommitid}}\n{{.Branch}}\n{{.TimeString}}\n{{ revision }}\n{{target_branch}}\n\
        {{ source_branch }}\n{{repo_url}}\n{{repo_owner}}\n{{repo_name}}\n{{sender}}\n{{event_type}}\n{{pull_request_number}}\n\
        \"{{.Branch}}-{{ .ShortCommitid }}\"\nx-{{.Branch}}";
    let run = render(&params(names), &event_with("main", "feature/x", "octo")).expect("a run");
    let values: Vec<&str> = run.object["spec"]["params"]
        .as_array()
        .expect("params")
        .iter()
        .map(|param| param["value"].as_str().expect("text"))
        .collect();
    assert_eq!(
        values,
        [
            SHA,
            "ec26c3e5",
            "main",
            "20261122114653",
            SHA,
            "main",
            "feature/x",
            "https://github.com/Acme/web",
            "Acme",
            "web",
            "octo",
            "pull_request",
            "5",
            "main-ec26c3e5",
            "x-main"
        ]
    );
}

#[test]
fn sets_name_namespace_labels_and_annotations() {
    let template = template("  namespace: ci\n  labels:\n    app: \"{{ repo_name }}\"\n  finalizers: [a/b]\n", "");
    let run = render(&template, &event_with("main", "x", "octo")).expect("a run");
    assert_eq!(run.namespace, "ci");
    assert!(run.name.starts_with("build-") && run.name.len() == "build-".len() + 12, "{}", run.name);
    let metadata = &run.object["metadata"];
    assert_eq!(
        *metadata,
        json!({
            "name": run.name, "namespace": "ci", "finalizers": ["a/b"],
            "labels": {
                "app": "web", "app.kubernetes.io/managed-by": "github-trigger",
                "github-trigger.dev/pull-request": "5", "github-trigger.dev/commit": "ec26c3e5"
            },
            "annotations": {
                "github-trigger.dev/merged-at": "2026-11-22T11:46:53Z",
                "github-trigger.dev/on-repository": "*/*", "github-trigger.dev/delivery-id": "d1",
                "github-trigger.dev/repository": "Acme/web", "github-trigger.dev/commit": SHA,
                "github-trigger.dev/pull-request-url": "https://github.com/Acme/web/pull/5",
                "github-trigger.dev/target-branch": "main", "github-trigger.dev/sender": "octo",
                "github-trigger.dev/template": "build"
            }
        })
    );
    let without_namespace = render(&super::tests::template("", ""), &event_with("main", "x", "octo")).expect("a run");
    assert_eq!(without_namespace.namespace, "builds");
}

#[test]
fn renders_and_checks_placeholder_in_name() {
    let source = "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build-{{ repo_name }}\n  annotations:\n    \
                  github-trigger.dev/on-repository: \"*/*\"\nspec:\n  pipelineRef: {name: build}\n";
    let set = templates(source);
    let run = render(set.iter().next().expect("a template"), &event_with("main", "x", "octo")).expect("a run");
    assert!(run.name.starts_with("build-web-"), "{}", run.name);
    let owner = templates(&source.replace("repo_name", "repo_owner"));
    let error =
        render(owner.iter().next().expect("a template"), &event_with("main", "x", "octo")).expect_err("upper case");
    assert!(error.to_string().contains("metadata.name: `build-Acme` is not a valid name"), "{error}");
}

#[test]
fn reports_field_of_missing_value() {
    let mut event = event_with("main", "x", "octo");
    event.sender = None;
    let error = render(&params("{{.Branch}}\n{{ sender }}"), &event).expect_err("no sender");
    assert_eq!(error.to_string(), "template build: spec.params[1].value: this event has no value for `sender`");
}

#[test]
fn rejects_invalid_label_value() {
    let template = template("  labels:\n    branch: \"{{.Branch}}\"\n", "");
    assert!(render(&template, &event_with("main", "x", "octo")).is_ok());
    for branch in ["feature/x", "-x", "a b", &"x".repeat(64), "ü", "a$(b)"] {
        let error = render(&template, &event_with(branch, "x", "octo")).expect_err("no label");
        assert!(error.to_string().contains("metadata.labels.branch"), "{error}");
    }
}

#[test]
fn rejects_tekton_variables_of_event_only_in_spec() {
    let spec = params("{{.Branch}}");
    let around = params("\"$(params.a) {{.Branch}}(x) $(context.pipelineRun.name)\"");
    let adjacent = params("\"{{.Branch}}{{ source_branch }}\"");
    let before = params("\"${{ source_branch }}\"");
    let annotation = template("    branch: \"{{.Branch}}\"\n", "");
    for branch in ["$(tasks.a.results.b)", "a$$(params.b)", "a$("] {
        assert!(render(&spec, &event_with(branch, "x", "octo")).is_err(), "{branch}");
        assert!(render(&annotation, &event_with(branch, "x", "octo")).is_ok(), "{branch}");
    }
    assert!(render(&around, &event_with("a$", "x", "octo")).is_err(), "together with the following text");
    assert!(render(&adjacent, &event_with("a$", "(b", "octo")).is_err(), "together with the next value");
    assert!(render(&before, &event_with("a", "(b", "octo")).is_err(), "together with the preceding text");
    let run = render(&around, &event_with("a$b(c)", "x", "octo")).expect("harmless");
    assert_eq!(run.object["spec"]["params"][0]["value"], "$(params.a) a$b(c)(x) $(context.pipelineRun.name)");
}

#[test]
fn renders_same_object_for_same_merge() {
    let template = params("{{.TimeString}}");
    let event = event_with("main", "x", "octo");
    assert_eq!(render(&template, &event), render(&template, &event));
}

/// The object without its texts; it must not depend on any value.
fn structure(value: &Value) -> Value {
    match value {
        Value::String(_) => "text".into(),
        Value::Array(items) => items.iter().map(structure).collect(),
        Value::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), structure(value))).collect(),
        other => other.clone(),
    }
}

fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "\n",
        "\r\n",
        ": ",
        " #",
        "- ",
        "{{",
        "}}",
        "{{.Branch}}",
        "\"",
        "'",
        "\\",
        "*a",
        "&a",
        "!!int",
        "|",
        ">",
        "%",
        "@",
        "`",
        "---",
        "...",
        "null",
        "true",
        "1e3",
        "0x1",
        "$",
        "(",
        "$(",
        "${",
        "<<",
        "\t",
        "\u{0}",
        "\u{2028}",
        "\u{F0000}",
        "\u{FFFFD}",
        "\u{FEFF}",
        "ü",
        "[",
        "]",
        "{",
        "}",
        ",",
        "?",
        "key",
        " ",
    ]);
    prop::collection::vec(prop_oneof![pieces.prop_map(str::to_owned), any::<String>()], 0..6)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn values_never_change_structure(branch in hostile(), head in hostile(), sender in hostile()) {
        let template = template(
            "    note: \"by {{ sender }}: {{ source_branch }}\"\n",
            "  params:\n  - name: a\n    value: {{.Branch}}\n  - name: b\n    value: [\"{{ source_branch }}\", \"x{{.Branch}}y\"]\n  - name: c\n    value: {k: \"{{ sender }}\"}\n",
        );
        let plain = render(&template, &event_with("main", "x", "octo")).expect("a run");
        if let Ok(run) = render(&template, &event_with(&branch, &head, &sender)) {
            prop_assert_eq!(structure(&run.object), structure(&plain.object));
            prop_assert_eq!(&run.name, &plain.name);
            prop_assert_eq!(run.object["spec"]["params"][0]["value"].as_str(), Some(branch.as_str()));
            prop_assert_eq!(run.object["spec"]["params"][2]["value"]["k"].as_str(), Some(sender.as_str()));
            // The output of a dry run parses to the same object.
            let printed: Value = serde_saphyr::from_str(&run.to_yaml().expect("YAML")).expect("YAML");
            prop_assert_eq!(printed, run.object);
        } else {
            prop_assert!([&branch, &head, &sender].iter().any(|value| value.contains('$') || value.contains('(')));
        }
    }
}
