//! What a person does by hand: `send` and `rerun`.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::command::{End, run, run_with};
use crate::support::control_plane::{ControlPlane, shared};
use crate::support::process::free_ports;
use crate::support::service::{LOGGED, PROGRAM, Service, Setup};
use crate::support::webhook::{SECRET, SHA, merged};

/// Files and the service's address for `send`.
struct Sending {
    service: Service,
    folder: tempfile::TempDir,
}

impl Sending {
    fn to(service: Service) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("secret"), format!("{SECRET}\n")).expect("a file");
        Self { service, folder }
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, content).expect("a file");
        path.display().to_string()
    }

    async fn send(&self, payload: &str, more: &[&str]) -> End {
        let payload = self.file("payload", payload);
        let url = format!("http://{}", self.service.address);
        run(&[&["send", "--url", &url, "--payload", &payload], more].concat()).await
    }

    fn secret(&self) -> String {
        format!("--secret-file={}", self.folder.path().join("secret").display())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn send_posts_what_render_takes() {
    let sending = Sending::to(Setup::dry_run().arg("--require-sha256").start());
    let secret = sending.secret();
    let payload = merged("acme/web", 5, SHA);
    let page = format!("X-GitHub-Event: pull_request\nX-GitHub-Delivery: page-1\nX-GitHub-Hook-ID: 7\n\n{payload}");
    let of_api = json!({"guid": "api-1", "event": "pull_request", "request": {
        "headers": {"X-GitHub-Event": "pull_request", "X-GitHub-Delivery": "api-1", "X-Hub-Signature-256": "sha256=00"},
        "payload": payload}});
    let mut pull = payload["pull_request"].clone();
    pull["base"]["repo"] = payload["repository"].clone();
    for (text, delivery) in [
        (payload.to_string(), "00000000-0000-0000-0000-000000000000"),
        (page, "page-1"),
        (of_api.to_string(), "api-1"),
        (pull.to_string(), "00000000-0000-0000-0000-000000000000"),
    ] {
        let End { code, out, log } = sending.send(&text, &[&secret]).await;
        assert_eq!(code, Some(0), "{out}{log}");
        assert!(out.starts_with("201 Created\n") && out.contains("\"outcome\":\"created\""), "{out}");
        sending.service.log.wait_for(&format!("delivery={delivery} "), LOGGED);
    }
    let End { code, out, .. } =
        sending.send(&payload.to_string(), &[&secret, "--delivery=mine", "--output=json"]).await;
    let line: Value = serde_json::from_str(&out).expect("a JSON line");
    assert_eq!((code, &line["deliveryId"], &line["status"]), (Some(0), &json!("mine"), &json!(201)), "{out}");
    assert_eq!(line["answer"]["outcome"], "created");

    // An event that needs no run, a wrong secret, a service that is not there.
    let closed = payload.to_string().replace("\"merged\":true", "\"merged\":false");
    let End { code, out, .. } = sending.send(&closed, &[&secret]).await;
    assert!(code == Some(3) && out.contains("ignored"), "{out}");
    let other = sending.file("other", "another secret");
    let End { code, out, .. } = sending.send(&payload.to_string(), &["--secret-file", &other]).await;
    assert!(code == Some(1) && out.starts_with("401 Unauthorized\n"), "{out}");
    // Another server's success is none of the service's.
    let Some(github) = crate::support::github::GitHub::start().await else { return };
    github.knowledge().faults.push_back(crate::support::github::Fault::Answer(
        200,
        Vec::new(),
        json!({"page": "\u{1b}[31m"}),
    ));
    let file = sending.file("saved", &payload.to_string());
    let End { code, out, log } = run(&["send", "--url", &github.url(), "--payload", &file, &secret]).await;
    assert!(code == Some(1) && log.contains("is not the service") && !out.contains('\u{1b}'), "{out}{log}");
    let ping = r#"{"zen": "Keep it logically awesome."}"#;
    let End { code, out, .. } = sending.send(ping, &[&secret, "--event=ping"]).await;
    assert!(code == Some(0) && out.contains("pong"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn send_says_what_is_wrong_in_one_line() {
    let sending = Sending::to(Setup::dry_run().start());
    let (secret, payload) = (sending.secret(), merged("acme/web", 5, SHA).to_string());
    let blank = format!("--secret-file={}", sending.file("blank", "\n"));
    let file = sending.file("saved", &payload);
    let [port] = free_ports();
    let nobody = format!("http://127.0.0.1:{port}");
    for (args, what) in [
        (&["--url", &nobody, "--payload", &file, &secret][..], "does not answer"),
        (&["--url", "localhost:8080", "--payload", &file, &secret], "write https://HOST or http://HOST"),
        (&["--url", "ftp://localhost", "--payload", &file, &secret], "write https://HOST or http://HOST"),
        (&["--url", &nobody, "--payload", "/no/such/file", &secret], "cannot read the payload"),
        (&["--url", &nobody, "--payload", &file, "--secret-file=/no/such/file"], "cannot read the secret"),
        (&["--url", &nobody, "--payload", &file, &blank], "is empty"),
    ] {
        let End { code, out, log } = run(&[&["send"], args].concat()).await;
        assert!(code == Some(1) && out.is_empty() && log.contains(what) && log.lines().count() == 1, "{args:?}: {log}");
        assert!(!log.contains(SECRET), "{log}");
    }
    // A secret in every case but that of an event.
    let End { code, log, .. } = run(&["send", "--url", &nobody, "--payload", &file]).await;
    assert!(code == Some(2) && log.contains("--secret-file"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn send_posts_cloud_events() {
    let sending = Sending::to(Setup::dry_run().arg("--cloudevents-auth=none").start());
    let (secret, payload) = (sending.secret(), merged("acme/web", 5, SHA).to_string());
    for mode in ["binary", "structured"] {
        for signed in [&[][..], &[secret.as_str()]] {
            let id = format!("{mode}-{}", signed.len());
            let args = [&["--cloudevent", mode, "--delivery", &id][..], signed].concat();
            let End { code, out, log } = sending.send(&payload, &args).await;
            assert!(code == Some(0) && out.trim() == "201 Created", "{out}{log}");
            let line = sending.service.log.wait_for(&format!("delivery={id} "), LOGGED);
            assert!(line.contains(&format!("via=cloudevent-{mode}")) && line.contains("repository=acme/web"), "{line}");
        }
    }
}

/// Ends a run, as Tekton does.
fn end(plane: &ControlPlane, namespace: &str, name: &str, status: &str) {
    let patch = json!({"status": {"conditions": [{"type": "Succeeded", "status": status, "reason": "Played"}]}});
    let patch = patch.to_string();
    let args = ["patch", "pipelinerun", name, "-n", namespace, "--subresource=status", "--type=merge", "-p", &patch];
    plane.kubectl(&args);
}

#[tokio::test(flavor = "multi_thread")]
async fn rerun_repeats_an_ended_run_once_and_keeps_it() {
    let Some(plane) = shared() else { return };
    plane.namespace("reruns");
    let service = Setup::cluster(&plane.trigger_account("reruns")).start();
    let reply = service.merge("d1", &merged("acme/web", 5, SHA)).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let name = reply.json()["pipelineRuns"][0]["name"].as_str().expect("a name").to_owned();
    let (reference, admin) = (format!("reruns/{name}"), plane.admin_kubeconfig());
    let rerun = async |reference: &str| run_with(Some(&admin), &["rerun", reference, "--output=json"]).await;

    let End { code, out, .. } = rerun(&reference).await;
    assert!(code == Some(3) && out.contains("\"outcome\":\"under-way\""), "{out}");
    end(plane, "reruns", &name, "False");
    // Pressed by several people at once.
    let ends = futures_util::future::join_all((0..4).map(|_| rerun(&reference))).await;
    let second = format!("{name}-r2");
    let count = |wanted: i32| ends.iter().filter(|end| end.code == Some(wanted)).count();
    assert_eq!((count(0), count(3)), (1, 3), "{ends:?}");
    assert!(ends.iter().all(|end| end.out.contains(&format!("\"name\":\"{second}\""))), "{ends:?}");
    let runs = plane.runs("reruns");
    assert_eq!(runs.len(), 2, "the failed one is kept");
    let of = |name: &str| runs.iter().find(|run| run["metadata"]["name"] == name).expect("a run").clone();
    let (one, two) = (of(&name), of(&second));
    assert_eq!(one["spec"], two["spec"]);
    assert_eq!(two["metadata"]["annotations"]["github-trigger.dev/rerun-of"], name.as_str());
    for stamp in ["merged-at", "commit", "repository", "delivery-id"] {
        let stamp = format!("github-trigger.dev/{stamp}");
        assert_eq!(one["metadata"]["annotations"][&stamp], two["metadata"]["annotations"][&stamp], "{stamp}");
        assert!(two["metadata"]["annotations"][&stamp].is_string(), "{stamp}");
    }
    assert_eq!(one["metadata"]["labels"], two["metadata"]["labels"]);

    // The repetition fails, too: the next one has the next number, whichever of the two is named.
    end(plane, "reruns", &second, "False");
    let End { code, out, log } = run_with(Some(&admin), &["rerun", &format!("reruns/{second}")]).await;
    assert!(code == Some(0) && out.trim() == format!("reruns/{name}-r3 repeats reruns/{second}"), "{out}{log}");
    // A repetition that was pruned leaves a gap; the one after it is still found.
    plane.kubectl(&["delete", "pipelinerun", &second, "-n", "reruns"]);
    let End { code, out, .. } = rerun(&reference).await;
    assert!(code == Some(3) && out.contains(&format!("{name}-r3")), "{out}");
    // A merge that is delivered again is still the first run.
    assert_eq!(service.merge("d2", &merged("acme/web", 5, SHA)).await.outcome(), "duplicate");
}

#[tokio::test(flavor = "multi_thread")]
async fn rerun_says_what_is_wrong_in_one_line() {
    let Some(plane) = shared() else { return };
    plane.namespace("norerun");
    let (admin, nobody) = (plane.admin_kubeconfig(), plane.account("norerun", "nobody"));
    for (kubeconfig, reference, what) in [
        (&admin, "norerun/gone", "there is no run norerun/gone"),
        (&nobody, "norerun/gone", "no right to get pipelineruns.tekton.dev in the namespace norerun"),
    ] {
        let End { code, out, log } = run_with(Some(kubeconfig), &["rerun", reference]).await;
        assert!(code == Some(1) && out.is_empty() && log.contains(what) && log.lines().count() == 1, "{log}");
    }
    let End { code, log, .. } = run(&["rerun", "norerun/gone"]).await;
    assert!(code == Some(1) && log.contains("no Kubernetes API server is configured"), "{log}");
    for reference in ["norerun", "norerun/", "a/b/c", "a/B", "a/b?x=y"] {
        let End { code, log, .. } = run_with(Some(&admin), &["rerun", reference]).await;
        assert!(code == Some(2) && log.contains("NAMESPACE/NAME"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_and_pages_come_out_of_the_program() {
    for shell in ["bash", "zsh", "fish"] {
        let End { code, out, log } = run(&["completions", shell]).await;
        assert!(code == Some(0) && out.contains("github-trigger") && out.contains("rerun"), "{log}");
    }
    // bash itself completes a command's name, its flags and their values.
    let script = run(&["completions", "bash"]).await.out;
    let function = script.split("complete -F ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let function = function.expect("a function");
    for (words, completed) in [
        ("rer", "rerun"),
        ("recover --sched", "--scheduled"),
        ("why --hook", "--hook-url"),
        ("send --cloudevent str", "structured"),
        ("completions fi", "fish"),
    ] {
        let last = words.split(' ').count();
        let (current, previous) = (words.split(' ').next_back().unwrap_or_default(), words.rsplit(' ').nth(1));
        let previous = previous.unwrap_or("github-trigger");
        let ask = format!(
            "{script}\nCOMP_WORDS=(github-trigger {words}); COMP_CWORD={last}; {function} github-trigger {current} {previous}; \
             echo \"${{COMPREPLY[@]}}\""
        );
        let output = End::from(Command::new("bash").args(["-c", &ask]).output().expect("bash"));
        assert_eq!(output.out.trim(), completed, "{words}: {}", output.log);
    }
    for (command, code) in [("completions bash | true; exit ${PIPESTATUS[0]}", 0), ("completions zsh > /dev/full", 1)] {
        let ask = format!("{PROGRAM} {command}");
        let output = End::from(Command::new("bash").args(["-c", &ask]).output().expect("bash"));
        assert!(output.code == Some(code) && !output.log.contains("panicked"), "{command}: {output:?}");
    }
    let End { code, out: page, .. } = run(&["man"]).await;
    assert!(code == Some(0) && page.contains(".TH github-trigger 1") && page.contains("Repeat a run"), "{page}");
    let folder = tempfile::tempdir().expect("a folder");
    let End { code, log, .. } = run(&["man", "--folder", &folder.path().display().to_string()]).await;
    assert_eq!(code, Some(0), "{log}");
    let page = fs::read_to_string(folder.path().join("github-trigger-rerun.1")).expect("a page");
    assert!(page.contains("NAMESPACE/NAME"), "{page}");
}

/// The README's first steps, with this program in place of cargo's.
#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_first_steps_work() {
    let page = fs::read_to_string("README.md").expect("the page");
    let section = page.split("## Try it").nth(1).expect("a section").split("\n## ").next().expect("its end");
    let blocks: Vec<&str> = section.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert_eq!(blocks.len(), 4, "{blocks:#?}");
    assert_eq!(blocks[0], "WEBHOOK_SECRET=development cargo run --release -- --dry-run\n");
    let shipped = fs::read_to_string("config/base/deployer-trigger.yaml").expect("the template");
    let service = Setup::dry_run().template(&shipped).env("WEBHOOK_SECRET", "development").start();
    let folder = tempfile::tempdir().expect("a folder");
    let address = format!("http://{}", service.address);
    for (block, status) in [(blocks[1], "201 Created"), (blocks[2], "HTTP/1.1 201 Created")] {
        let script = block.replace("cargo run --release --", PROGRAM).replace("http://localhost:8080", &address);
        let output = Command::new("bash").args(["-euc", &script]).current_dir(folder.path()).output().expect("bash");
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && said.starts_with(status), "{said}{errors}");
        assert!(said.contains("\"outcome\":\"created\""), "{said}");
    }
}

#[test]
fn variables_of_the_service_break_no_other_command() {
    let end = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = Command::new(PROGRAM);
        command.env_clear().envs(variables.iter().copied()).args(args);
        End::from(command.output().expect("the program"))
    };
    let lint = ["lint", "--trigger-config", "config/base/deployer-trigger.yaml"];
    let empty =
        ["LOG_FORMAT", "RUST_LOG", "CLOUDEVENTS_AUTH", "WEBHOOK_SECRET_FILE", "PORT", "TRIGGER_CONFIG", "NAMESPACE"];
    let empty: Vec<(&str, &str)> = empty.into_iter().map(|name| (name, "")).collect();
    for variables in [&[("PORT", "abc")][..], &[("CLOUDEVENTS_AUTH", "x"), ("LOG_FORMAT", "x")], &empty] {
        let end = end(&lint, variables);
        assert_eq!(end.code, Some(0), "{variables:?}: {end:?}");
    }
    let render = [&["render"][..], &lint[1..], &["--payload=tests/data/github/pull_request.json"]].concat();
    let unread = end(&render, &empty);
    assert!(unread.code == Some(1) && !unread.log.contains("--namespace"), "{unread:?}");
    for args in [&[][..], &["serve"], &["--dry-run"]] {
        let end = end(args, &[("PORT", "abc")]);
        assert!(end.code == Some(2) && end.log.contains("'abc' for '--port <N>'"), "{args:?}: {end:?}");
    }
    let help = end(&["--help"], &[("PORT", "abc")]);
    assert!(help.code == Some(0) && help.out.contains("--port <N>") && help.out.contains("recover"), "{help:?}");
    for args in [&["--help"][..], &["serve", "--help"]] {
        assert!(end(args, &[]).out.contains("[env: PORT"), "{args:?}");
    }
}

#[test]
fn arguments_that_are_no_text_are_refused() {
    let end = |args: &[&[u8]]| {
        let args = args.iter().map(|argument| OsStr::from_bytes(argument));
        End::from(Command::new(PROGRAM).env_clear().args(args).output().expect("the program"))
    };
    assert_eq!(end(&[b"\xff"]).code, Some(2));
    let report = end(&[b"report", b"--in-pipeline", b"--state=success", b"--description=\xff"]);
    assert!(report.code == Some(0) && report.log.contains("the build goes on"), "{report:?}");
    let output = Command::new(PROGRAM).env_clear().env("WEBHOOK_SECRET", OsStr::from_bytes(b"caf\xe9")).output();
    let serve = End::from(output.expect("the program"));
    assert!(serve.code == Some(1) && serve.log.contains("WEBHOOK_SECRET is not UTF-8 text"), "{serve:?}");
}
