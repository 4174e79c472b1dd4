//! Templates: `lint`, `render`, the shipped templates, and changes while the service runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::control_plane::shared;
use crate::support::http::HttpClient;
use crate::support::mount::Mount;
use crate::support::service::{LOGGED, PROGRAM, Setup, TEMPLATE};
use crate::support::webhook::{SHA, headers, merged};

fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).env_clear().args(args).output().expect("the program")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A merge in `repository` that every shipped template but `release.yaml` matches.
fn sample_merge(repository: &str) -> Value {
    let mut payload = merged(repository, 5, SHA);
    payload["pull_request"]["labels"] = json!([{"name": "deploy"}, {"name": "service/all"}]);
    payload
}

/// Rendered text with a fixed time in place of the time of the sample merge, which is that of the test run.
fn with_fixed_time(text: &str) -> String {
    let merged_at = sample_merge("acme/web")["pull_request"]["merged_at"].as_str().expect("a time").to_owned();
    text.replace(&merged_at, "2026-11-22T13:46:53Z")
}

fn release() -> Value {
    let mut payload = json!({"action": "published", "release": {
        "tag_name": "v1.4.0", "prerelease": false, "target_commitish": "main",
        "published_at": "2026-11-22T13:46:53Z", "html_url": "https://github.com/acme/web/releases/tag/v1.4.0"}});
    payload["repository"] = merged("acme/web", 5, SHA)["repository"].clone();
    payload
}

/// The shipped templates: file, event and matching payload.
fn shipped() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("config/base/deployer-trigger.yaml", "pull_request", sample_merge("acme/web")),
        ("config/templates/short-commit-tag.yaml", "pull_request", sample_merge("acme/web")),
        ("config/templates/deploy-on-label.yaml", "pull_request", sample_merge("acme/web")),
        ("config/templates/monorepo.yaml", "pull_request", sample_merge("acme/shop")),
        ("config/templates/release.yaml", "release", release()),
    ]
}

#[test]
fn tests_cover_every_shipped_template() {
    let listed: Vec<_> = shipped().into_iter().map(|(file, ..)| PathBuf::from(file)).collect();
    for entry in fs::read_dir("config/templates").expect("the folder") {
        let path = entry.expect("an entry").path();
        assert!(path.extension().is_none_or(|end| end != "yaml") || listed.contains(&path), "{}", path.display());
    }
}

/// `UPDATE_GOLDEN=1 cargo test shipped` rewrites the golden files; review the difference.
#[test]
fn shipped_templates_pass_lint_and_render_as_golden_files() {
    let folder = tempfile::tempdir().expect("a folder");
    for (file, event, payload) in shipped() {
        let lint = run(&["lint", "--trigger-config", file]);
        let said = text(&lint.stdout);
        let is_expected = |line: &str| line.contains("warning: lint cannot see this Pipeline");
        assert!(lint.status.success() && said.lines().all(is_expected), "{file}: {said}");
        let saved = folder.path().join("payload.json");
        fs::write(&saved, payload.to_string()).expect("a file");
        let saved = saved.display().to_string();
        let args = ["render", "--trigger-config", file, "--payload", &saved, "--event", event, "--delivery", "d1"];
        let rendered = run(&[&args[..], &["--namespace", "builds"]].concat());
        assert_eq!(rendered.status.code(), Some(0), "{file}: {}", text(&rendered.stderr));
        let name = Path::new(file).file_name().expect("a name");
        let golden = Path::new("tests/data/golden").join(name);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, with_fixed_time(&text(&rendered.stdout))).expect("a file");
        }
        assert_eq!(
            with_fixed_time(&text(&rendered.stdout)),
            fs::read_to_string(&golden).expect("the golden file"),
            "{file}"
        );
    }
}

/// `serve` creates the runs that `render` prints, on a real API server.
#[tokio::test(flavor = "multi_thread")]
async fn shipped_templates_create_rendered_runs() {
    let Some(plane) = shared() else { return };
    plane.namespace("builds");
    let kubeconfig = plane.trigger_account("builds");
    for (file, event, payload) in shipped() {
        let source = fs::read_to_string(file).expect("the template");
        let service = Setup::cluster(&kubeconfig).template(&source).start();
        let reply = service.deliver(event, "d1", &payload).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{file}: {}\n{}", reply.body, service.log.text());
        let golden = Path::new("tests/data/golden").join(Path::new(file).file_name().expect("a name"));
        let golden = fs::read_to_string(golden).expect("the golden file");
        let documents: Vec<Value> = serde_saphyr::from_multiple(&golden).expect("YAML");
        let created = plane.runs("builds");
        for wanted in documents {
            let found = created.iter().find(|run| run["metadata"]["name"] == wanted["metadata"]["name"]);
            let found = found.unwrap_or_else(|| panic!("{file}: {} is missing", wanted["metadata"]["name"]));
            assert_eq!(found["spec"]["params"], wanted["spec"]["params"], "{file}");
            assert_eq!(found["metadata"]["labels"], wanted["metadata"]["labels"], "{file}");
            let annotations = with_fixed_time(&found["metadata"]["annotations"].to_string());
            assert_eq!(annotations, wanted["metadata"]["annotations"].to_string(), "{file}");
        }
    }
}

#[test]
fn lint_server_validates_with_api_server() {
    let Some(plane) = shared() else { return };
    plane.namespace("asked");
    let kubeconfig = plane.trigger_account("asked").display().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.yaml");
    let path = file.display().to_string();
    let ask = || {
        let args = ["lint", "--server", "--trigger-config", &path];
        Command::new(PROGRAM).env_clear().env("KUBECONFIG", &kubeconfig).args(args).output().expect("the program")
    };
    fs::write(&file, TEMPLATE).expect("a file");
    let good = ask();
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    let unknown = format!("{TEMPLATE}  taskRunTemplate:\n    podTemplate:\n      nodeSelectors: {{}}\n");
    fs::write(&file, unknown).expect("a file");
    let bad = ask();
    assert_eq!(bad.status.code(), Some(1));
    let finding = format!("{path}:5:17: template build: the API server says: 400");
    assert!(text(&bad.stdout).contains(&finding), "{}{}", text(&bad.stdout), text(&bad.stderr));
    assert!(plane.runs("asked").is_empty());
}

#[test]
fn lint_names_files_that_it_skips() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["t.yaml", "u.YAML", "v.json", "README.md"] {
        fs::write(folder.path().join(name), TEMPLATE.replace("build-", name.trim_end_matches(".yaml")))
            .expect("a file");
    }
    let args = ["lint", "--trigger-config", &folder.path().display().to_string()];
    let output = Command::new(PROGRAM).env_clear().args(args).output().expect("the program");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for name in ["u.YAML", "v.json"] {
        assert!(said.contains(&format!("{name}:1:1: warning: the file is skipped")), "{said}");
    }
    assert!(!said.contains("README"), "{said}");
}

#[test]
fn lint_and_render_have_stable_exit_codes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let good = file("good.yaml", TEMPLATE);
    let bad = file("bad.yaml", &TEMPLATE.replace("pipelineRef", "pipelineReff"));
    let broken = run(&["lint", "--trigger-config", &bad, "--format", "github"]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(text(&broken.stdout).starts_with("::error file="), "{}", text(&broken.stdout));
    let json = run(&["lint", "--trigger-config", &bad, "--format", "json"]);
    let finding: Value = serde_json::from_str(text(&json.stdout).lines().next().expect("a line")).expect("JSON");
    assert_eq!((finding["line"].as_u64(), finding["severity"].as_str()), (Some(8), Some("error")));
    assert_eq!(run(&["lint", "--trigger-config", "/no/such/file"]).status.code(), Some(1));

    let merge = file("merge.json", &merged("acme/web", 5, SHA).to_string());
    let mut unmerged = merged("acme/web", 5, SHA);
    unmerged["pull_request"]["merged"] = json!(false);
    let unmerged = file("unmerged.json", &unmerged.to_string());
    let render = |template: &str, payload: &str| run(&["render", "--trigger-config", template, "--payload", payload]);
    assert_eq!(render(&good, &merge).status.code(), Some(0));
    let none = render(&good, &unmerged);
    assert_eq!((none.status.code(), text(&none.stdout)), (Some(3), String::new()));
    assert!(
        text(&none.stderr).contains("no: on-event wants merged, got pull_request.closed"),
        "{}",
        text(&none.stderr)
    );
    assert_eq!(render(&bad, &merge).status.code(), Some(1));
    assert_eq!(render(&good, "/no/such/file").status.code(), Some(1));
    assert_eq!(render(&good, &file("x.json", "{\"action\": 1}")).status.code(), Some(1));
}

#[test]
fn render_reads_all_payload_formats_and_explains_conditions() {
    let folder = tempfile::tempdir().expect("a folder");
    let template = folder.path().join("t.yaml");
    let source = TEMPLATE.replace("\"*/*\"", "\"acme/*\"\n    github-trigger.dev/on-cel: body.number > 4");
    fs::write(&template, source).expect("a file");
    let payload = merged("acme/web", 5, SHA);
    let saved = [
        payload.to_string(),
        format!("Request URL: https://x\nX-GitHub-Delivery: d1\nX-GitHub-Event: pull_request\n\n{payload:#}"),
        json!({"specversion": "1.0", "id": "d1", "source": "x", "type": "dev.knative.source.github.pull_request",
            "data": payload})
        .to_string(),
    ];
    let mut names = Vec::new();
    for content in saved {
        let file = folder.path().join("saved");
        fs::write(&file, content).expect("a file");
        let (template, file) = (template.display().to_string(), file.display().to_string());
        let output = run(&["render", "--trigger-config", &template, "--payload", &file]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let run: Value = serde_saphyr::from_str(&text(&output.stdout)).expect("YAML");
        names.push(run["metadata"]["name"].clone());
        let trace = text(&output.stderr);
        for line in [
            "template build",
            "  yes: on-event wants merged, got merged",
            "  yes: on-repository wants acme/*, got acme/web",
            "  yes: on-cel wants body.number > 4, got true",
        ] {
            assert!(trace.contains(line), "{line}: {trace}");
        }
    }
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn serves_other_events_by_on_event() {
    let push = TEMPLATE.replace("\"*/*\"", "\"*/*\"\n    github-trigger.dev/on-event: push, issue_comment.created");
    let service = Setup::dry_run().template(&push).start();
    let repository = merged("acme/web", 5, SHA)["repository"].clone();
    let payload = json!({"ref": "refs/heads/main", "after": SHA, "repository": repository});
    let first = service.deliver("push", "d1", &payload).await;
    assert_eq!(first.status, StatusCode::CREATED, "{}", service.log.text());
    assert_eq!(service.deliver("push", "d1", &payload).await.body, first.body, "one delivery has one run name");
    let recorded = service.deliver("push", "d2", &payload).await;
    assert_eq!(recorded.json()["pipelineRuns"], first.json()["pipelineRuns"], "a delivery's id is not signed");
    let next = json!({"ref": "refs/heads/main", "before": SHA, "after": "a".repeat(40), "repository": repository});
    let next = service.deliver("push", "d2", &next).await;
    assert_ne!(next.json()["pipelineRuns"], first.json()["pipelineRuns"]);
    let deleted = json!({"ref": "refs/heads/x", "after": "0".repeat(40), "deleted": true, "repository": repository});
    assert_eq!(service.deliver("push", "d3", &deleted).await.outcome(), "ignored");
    let merge = service.merge("d4", &merged("acme/web", 5, SHA)).await;
    assert_eq!(merge.outcome(), "ignored");
    assert!(merge.message().contains("on-event wants push, issue_comment.created, got merged"), "{}", merge.body);
    let comment = json!({"action": "created", "issue": {"number": 1}, "comment": {"id": 7}, "repository": repository});
    let reply = service.deliver("issue_comment", "d5", &comment).await;
    assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "a comment has no commit: {}", reply.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_by_cel_and_answers_422_if_cel_fails() {
    let template = TEMPLATE.replace(
        "\"*/*\"",
        "\"*/*\"\n    github-trigger.dev/on-cel: body.pull_request.labels.exists(l, l.name == 'deploy')",
    );
    let service = Setup::dry_run().template(&template).start();
    let labelled = |labels: Value| {
        let mut payload = merged("acme/web", 5, SHA);
        payload["pull_request"]["labels"] = labels;
        payload
    };
    assert_eq!(service.merge("d1", &labelled(json!([{"name": "deploy"}]))).await.outcome(), "created");
    let other = service.merge("d2", &labelled(json!([{"name": "other"}]))).await;
    assert_eq!(other.outcome(), "ignored");
    assert!(other.message().contains("on-cel wants body.pull_request.labels.exists"), "{}", other.body);
    let missing = service.merge("d3", &merged("acme/web", 5, SHA)).await;
    assert_eq!((missing.status, missing.outcome().as_str()), (StatusCode::UNPROCESSABLE_ENTITY, "invalid"));
}

/// An expression that runs far longer than the deadline: its delivery is answered in time, and others are not delayed.
#[tokio::test(flavor = "multi_thread")]
async fn slow_expression_delays_no_other_delivery() {
    let template = TEMPLATE
        .replace("\"*/*\"", "\"*/*\"\n    github-trigger.dev/on-cel: body.items.all(a, body.items.all(b, a + b >= 0))");
    let plain = TEMPLATE.replace("generateName: build-", "generateName: plain-").replace("*/*", "acme/plain");
    let service =
        Setup::dry_run().template(&template.replace("*/*", "acme/slow")).template_file("plain.yaml", plain.as_bytes());
    let service = service.arg("--deadline=2").start();
    let mut slow = merged("acme/slow", 5, SHA);
    slow["items"] = (0..20_000).collect();
    let body = slow.to_string().into_bytes();
    let headers = headers("pull_request", "d1", &body);
    let (late, prompt) = tokio::join!(service.send(Method::POST, "/", &headers, &body), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        service.merge("d2", &merged("acme/plain", 6, SHA)).await
    });
    assert_eq!((late.status, late.reason().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "deadline"), "{}", late.body);
    assert_eq!(prompt.status, StatusCode::CREATED, "{}", prompt.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_templates_under_load_without_wrong_answers() {
    let version = |number: usize| TEMPLATE.replace("target_branch }}\"", &format!("target_branch }}}}-{number}\""));
    let setup = Setup::dry_run();
    let files = move |number: usize| [version(number), version(number).replace("build-", "other-")];
    let [one, other] = files(0);
    let mut mount = Mount::over(&setup.templates(), &[("a.yaml", &one), ("b.yaml", &other)]);
    let service = setup.start();
    let swapping = tokio::task::spawn_blocking(move || {
        for number in 1..=1000 {
            let [one, other] = files(number);
            mount.replace(&[("a.yaml", &one), ("b.yaml", &other)]);
            std::thread::sleep(Duration::from_millis(8));
        }
    });
    let mut answers = 0;
    while !swapping.is_finished() {
        let reply = service.merge("d1", &merged("acme/web", 5, SHA)).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{}\n{}", reply.body, service.log.text());
        assert_eq!(reply.json()["pipelineRuns"].as_array().map(Vec::len), Some(2), "{}", reply.body);
        answers += 1;
    }
    swapping.await.expect("swaps");
    assert!(answers > 100, "{answers}");
    // Both runs of a delivery come from the same version of the templates.
    let values: Vec<String> = service.output.all().into_iter().filter(|line| line.contains("value: main-")).collect();
    for pair in values.chunks_exact(2) {
        assert_eq!(pair[0], pair[1]);
    }
    // The last version is loaded in the end.
    let mut in_use = false;
    for _ in 0..200 {
        service.merge("d1", &merged("acme/web", 5, SHA)).await;
        in_use = service.output.text().contains("value: main-1000");
        if in_use {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(in_use, "the last version was not loaded");
    assert!(!service.log.text().contains("refused"), "{}", service.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_templates_and_reports_stale_until_invalid_change_is_fixed() {
    let service = Setup::dry_run().arg("--metrics-addr=127.0.0.1:0").start();
    let stale = async || {
        let line = service.log.wait_for("serving metrics", LOGGED);
        let address = line.split("address=").nth(1).and_then(|address| address.parse().ok()).expect("an address");
        let reply = HttpClient::new().send(Method::GET, address, "/metrics", &[], "").await.expect("metrics");
        reply.body.contains("github_trigger_config_stale{config=\"templates\"} 1")
    };
    assert!(!stale().await);
    let file = service.templates().join("template.yaml");
    fs::write(&file, TEMPLATE.replace("pipelineRef", "pipelineReff")).expect("a file");
    let line = service.log.wait_for("changed templates are refused", LOGGED);
    assert!(line.contains("ERROR") && line.contains("did you mean `pipelineRef`?"), "{line}");
    assert_eq!(service.merge("d1", &merged("acme/web", 5, SHA)).await.outcome(), "created");
    assert_eq!(service.log.text().matches("changed templates are refused").count(), 1);
    assert!(stale().await);
    fs::write(&file, TEMPLATE.replace("generateName: build-", "generateName: mended-")).expect("a file");
    service.log.wait_for("templates changed and are in use", LOGGED);
    assert!(!stale().await);
    let reply = service.merge("d2", &merged("acme/web", 5, SHA)).await;
    let name = reply.json()["pipelineRuns"][0]["name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("mended-"), "{name}");
}

/// The fields that `lint` lists as known are those of Tekton's CRDs.
#[test]
fn lint_knows_fields_of_tekton_crds() {
    let Some(assets) = crate::support::control_plane::assets() else { return };
    let crd = |name: &str| {
        let text = fs::read_to_string(assets.crd(name)).expect("the CRD");
        let crd: Value = serde_json::from_str(&text).expect("JSON");
        let versions = crd["spec"]["versions"].as_array().expect("versions").clone();
        let v1 = versions.into_iter().find(|version| version["name"] == "v1").expect("v1");
        v1["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
    };
    let (run, pipeline, task) = (crd("pipelineruns.tekton.dev"), crd("pipelines.tekton.dev"), crd("tasks.tekton.dev"));
    let inline = "pipelineSpec: {tasks: [{taskSpec: ";
    // A spec with the unknown field `x_x_x`, and the CRD and JSON pointer with the known fields at that place.
    let levels = [
        ("pipelineRef: {name: a}, x_x_x: 1".to_owned(), &run, ""),
        ("pipelineRef: {x_x_x: 1}".to_owned(), &run, "/properties/pipelineRef"),
        ("pipelineRef: {name: a}, params: [{x_x_x: 1}]".to_owned(), &run, "/properties/params/items"),
        ("pipelineRef: {name: a}, timeouts: {x_x_x: 1}".to_owned(), &run, "/properties/timeouts"),
        ("pipelineRef: {name: a}, taskRunTemplate: {x_x_x: 1}".to_owned(), &run, "/properties/taskRunTemplate"),
        ("pipelineRef: {name: a}, taskRunSpecs: [{x_x_x: 1}]".to_owned(), &run, "/properties/taskRunSpecs/items"),
        ("pipelineRef: {name: a}, workspaces: [{x_x_x: 1}]".to_owned(), &run, "/properties/workspaces/items"),
        ("pipelineSpec: {x_x_x: 1}".to_owned(), &pipeline, ""),
        ("pipelineSpec: {tasks: [{x_x_x: 1}]}".to_owned(), &pipeline, "/properties/tasks/items"),
        (
            "pipelineSpec: {tasks: [{taskRef: {x_x_x: 1}}]}".to_owned(),
            &pipeline,
            "/properties/tasks/items/properties/taskRef",
        ),
        ("pipelineSpec: {params: [{x_x_x: 1}]}".to_owned(), &pipeline, "/properties/params/items"),
        ("pipelineSpec: {results: [{x_x_x: 1}]}".to_owned(), &pipeline, "/properties/results/items"),
        ("pipelineSpec: {workspaces: [{x_x_x: 1}]}".to_owned(), &pipeline, "/properties/workspaces/items"),
        (format!("{inline}{{steps: [{{x_x_x: 1}}]}}}}]}}"), &task, "/properties/steps/items"),
        (format!("{inline}{{stepTemplate: {{x_x_x: 1}}}}}}]}}"), &task, "/properties/stepTemplate"),
        (format!("{inline}{{sidecars: [{{x_x_x: 1}}]}}}}]}}"), &task, "/properties/sidecars/items"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.yaml");
    for (spec, crd, pointer) in levels {
        let source = format!("apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata: {{name: a}}\nspec: {{{spec}}}\n");
        fs::write(&file, source).expect("a file");
        let said = text(&run_lint(&file).stdout);
        let known = said.split("known fields: ").nth(1).and_then(|rest| rest.lines().next());
        let mut known: Vec<&str> = known.unwrap_or_else(|| panic!("{spec}: {said}")).split(", ").collect();
        known.sort_unstable();
        let schema = crd.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
        let mut wanted: Vec<&str> =
            schema["properties"].as_object().expect("properties").keys().map(String::as_str).collect();
        wanted.sort_unstable();
        assert_eq!(known, wanted, "{spec}");
    }
}

fn run_lint(file: &Path) -> Output {
    run(&["lint", "--trigger-config", &file.display().to_string()])
}

/// The first step of the build decides `on-path` for merges, with git itself.
#[test]
fn the_build_compares_the_paths_of_a_merge() {
    let task: Value =
        serde_saphyr::from_str(&fs::read_to_string("config/tekton/build-image.yaml").expect("the task")).expect("YAML");
    let steps = task["spec"]["steps"].as_array().expect("steps");
    let clone = steps.iter().find(|step| step["name"] == "clone").expect("a step");
    let script = clone["script"].as_str().expect("a script");
    let folder = tempfile::tempdir().expect("a folder");
    let origin = folder.path().join("origin");
    let build = r#"
        set -eu
        git init --quiet --initial-branch=main "$1"; cd "$1"
        git config user.name tests; git config user.email tests@example.com; git config uploadpack.allowAnySHA1InWant true
        commit() { mkdir -p "$(dirname "$1")"; echo "$2" >> "$1"; git add .; git commit --quiet -m "$2"; }
        commit README.md zero
        commit other/x one
        git switch --quiet -c merged; commit web/a two; commit docs/b.md three
        git switch --quiet main; commit other/y four; git merge --quiet --no-ff -m merge merged; git tag merge
        commit api/z five; git tag squash
        git switch --quiet -c rebased; commit web/c six; commit other/d seven; git switch --quiet main
        git merge --quiet --ff-only rebased; git tag rebase
        git switch --quiet main
        commit api/z broken; echo five > api/z; git add .; commit other/e note; git tag revert
        commit web/a passing; git tag later
        git switch --quiet --orphan first; commit web/only eight; git tag root
    "#;
    let built = Command::new("bash").args(["-c", build, "bash"]).arg(&origin).output().expect("bash");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut number = 0;
    let mut changed = |tag: &str, commits: &str, on_path: &str| {
        number += 1;
        let work = folder.path().join(format!("work-{number}"));
        fs::create_dir_all(work.join("home")).expect("a folder");
        let result = work.join("changed");
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(&work)
            .env("URL", format!("file://{}", origin.display()))
            .env("REVISION", format!("refs/tags/{tag}"))
            .env("HOME", work.join("home"))
            .envs([("ON_PATH", on_path), ("COMMITS", commits)])
            .env("URL_RESULT", work.join("url"))
            .env("COMMIT_RESULT", work.join("commit"))
            .env("CHANGED_RESULT", &result)
            .output()
            .expect("sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(!work.join("home").exists(), "no credential is left");
        fs::read_to_string(result).expect("a result") == "true"
    };
    for (tag, commits, on_path, expected) in [
        ("merge", "2", "web/**", true),
        ("merge", "2", "web/*, !web/a", false),
        ("merge", "2", "other/**", false),
        ("merge", "2", "**/*.md", true),
        ("merge", "2", "!docs/**, !web/**", false),
        ("merge", "2", "!web/**", true),
        ("merge", "2", "docs/*", true),
        ("merge", "2", "*.md", false),
        // An annotation of several lines, a pattern without a wildcard, and no number of commits.
        ("merge", "2", "nothing/**,\n\tweb/**", true),
        ("merge", "2", "**,\n  !web/**,\n  !docs/**", false),
        ("merge", "2", "docs/**, !docs", true),
        ("merge", "2", "web", false),
        ("merge", "2", "web/a", true),
        ("squash", "0", "web/**", true),
        ("squash", "x", "web/**", true),
        ("squash", "1", "api/**", true),
        ("squash", "1", "web/**", false),
        ("rebase", "2", "web/**", true),
        ("rebase", "2", "other/**", true),
        ("rebase", "2", "api/**", false),
        // Squashed: two commits of the pull request, of which nothing is left of the one before it.
        ("revert", "2", "api/**", true),
        ("revert", "1", "api/**, !web/**", true),
        ("later", "2", "web/**", true),
        ("later", "1", "api/**", false),
        ("root", "1", "api/**", true),
        ("rebase", "", "api/**", true),
        ("rebase", "2", "", true),
    ] {
        assert_eq!(changed(tag, commits, on_path), expected, "{tag} {commits} {on_path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn decides_a_push_by_its_paths_and_leaves_a_merge_to_the_pipeline() {
    let on_path = "metadata:\n  annotations:\n    github-trigger.dev/on-path: \"web/**, !**/*.md\"\n    github-trigger.dev/on-event: \"merged, push\"";
    let template = TEMPLATE.replace("metadata:", on_path).replacen(
        "  annotations:\n    github-trigger.dev/on-repository: \"*/*\"\n",
        "",
        1,
    );
    let service = Setup::dry_run().template(&template.replace("{{ target_branch }}", "main")).start();
    let push = |paths: &[&str], forced: bool| {
        json!({"ref": "refs/heads/main", "before": "a".repeat(40), "after": SHA, "forced": forced,
            "repository": {"full_name": "acme/web", "pushed_at": paths.len()},
            "commits": [{"id": SHA, "added": paths, "removed": [], "modified": []}]})
    };
    for (paths, forced, outcome) in [
        (&["web/a", "README.md"][..], false, "created"),
        (&["web/README.md", "api/x", "z"], false, "ignored"),
        (&["api/x"], true, "created"),
    ] {
        let reply = service.deliver("push", "d1", &push(paths, forced)).await;
        assert_eq!(reply.outcome(), outcome, "{paths:?} {}", reply.body);
        let message = reply.message();
        assert!(outcome == "created" || message.contains("3 changed path(s), the first is web/README.md"), "{message}");
    }
    let mut merge = merged("acme/web", 5, SHA);
    merge["pull_request"]["commits"] = 3.into();
    // A branch that was pushed forward is its own merge commit, which says nothing about what was there before.
    assert_eq!(service.merge("d3", &merge).await.outcome(), "created");
    service.output.wait_for("delivery-id: d3", LOGGED);
    assert!(!service.output.text().contains("pull-request-commits"), "{}", service.output.text());
    merge["pull_request"]["head"]["sha"] = "b".repeat(40).into();
    assert_eq!(service.merge("d2", &merge).await.outcome(), "created");
    service.output.wait_for("github-trigger.dev/pull-request-commits: \"3\"", LOGGED);
    service.output.wait_for("github-trigger.dev/on-path: web/**, !**/*.md", LOGGED);
    // An event that changes no paths.
    let release = template.replace("merged, push", "release.published");
    let (code, log) = Setup::dry_run().template(&release).refuse();
    assert!(code == Some(1) && log.contains("a `release` changes no paths"), "{log}");
}
