//! Every row of the README's table of answers, and the errors of senders.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::process::comes_true;
use crate::support::service::{LOGGED, Service, Setup, TEMPLATE};
use crate::support::webhook::{SECRET, SHA, headers, merged, sha1, sha256};

fn with(mut headers: Vec<(String, String)>, name: &str, value: &str) -> Vec<(String, String)> {
    headers.retain(|(candidate, _)| candidate != name);
    headers.push((name.to_owned(), value.to_owned()));
    headers
}

fn without(mut headers: Vec<(String, String)>, name: &str) -> Vec<(String, String)> {
    headers.retain(|(candidate, _)| candidate != name);
    headers
}

fn changed(pointer: &str, value: Value) -> Value {
    let mut payload = merged("acme/web", 5, SHA);
    *payload.pointer_mut(pointer).expect("the field") = value;
    payload
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_prints_run_of_merge() {
    let service = Setup::dry_run().start();
    let reply = service.merge("72d3162e", &merged("acme/web", 5, SHA)).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    assert_eq!(reply.headers["content-type"], "application/json");
    let name = reply.json()["pipelineRuns"][0]["name"].as_str().expect("a name").to_owned();
    assert_eq!(
        reply.json(),
        json!({"outcome": "created", "deliveryId": "72d3162e", "dryRun": true,
            "pipelineRuns": [{"namespace": "default", "name": name}]})
    );
    let last = service.output.wait_for("value: main", LOGGED);
    assert_eq!(last, "    value: main");
    let document: Value = serde_saphyr::from_str(&service.output.text()).expect("YAML");
    assert_eq!(service.output.all()[0], "---");
    assert_eq!(document["metadata"]["name"], name);
    assert_eq!(document["spec"]["params"][0]["value"], SHA);

    // A dry run does not remember earlier deliveries.
    let again = service.merge("72d3162e", &merged("acme/web", 5, SHA)).await;
    assert_eq!((again.status, again.body), (reply.status, reply.body));
    let line = service.log.wait_for("outcome=created", LOGGED);
    for part in [
        "INFO delivery",
        "event=pull_request",
        "action=closed",
        "repository=acme/web",
        "pull_request=5",
        "delivery=72d3162e",
        &format!("runs=default/{name}"),
        "duration_ms=",
        "bytes=",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_ping_with_pong() {
    let service = Setup::dry_run().start();
    let reply = service.deliver("ping", "p1", &json!({"zen": "Keep it logically awesome.", "hook_id": 1})).await;
    assert_eq!(
        (reply.status, reply.json()),
        (StatusCode::OK, json!({"outcome": "pong", "deliveryId": "p1", "dryRun": true}))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn ignores_other_events_and_states_reason() {
    let template =
        TEMPLATE.replace("\"*/*\"", "\"acme/*\"\n    github-trigger.dev/on-target-branch: \"main, release/*\"");
    let service = Setup::dry_run().template(&template).start();
    let cases = [
        ("pull_request", changed("/pull_request/merged", json!(false)), "the pull request must be merged"),
        ("pull_request", changed("/pull_request/merged", json!(null)), "the pull request must be merged"),
        ("pull_request", changed("/action", json!("synchronize")), "the action must be closed, got synchronize"),
        ("push", json!({"ref": "refs/heads/main"}), "the event must be pull_request, got push"),
        ("pull_request", changed("/repository/full_name", json!("other/web")), "no template is for this repository"),
        (
            "pull_request",
            changed("/pull_request/base/ref", json!("dev")),
            "on-target-branch wants main, release/*, got dev",
        ),
    ];
    for (event, payload, message) in cases {
        let reply = service.deliver(event, "d1", &payload).await;
        assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::OK, "ignored"), "{}", reply.body);
        assert!(
            ["not_a_merge", "no_template", "unknown_repository"].contains(&reply.reason().as_str()),
            "{}",
            reply.body
        );
        assert!(reply.message().contains(message), "{}", reply.body);
    }
    let reply = service.merge("d1", &changed("/pull_request/base/ref", json!("release/1"))).await;
    assert_eq!(reply.outcome(), "created");
    assert_eq!(service.output.all().iter().filter(|line| *line == "---").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_every_invalid_signature_alike() {
    let service = Setup::dry_run().start();
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let right = headers("pull_request", "d1", &body);
    let good = sha256(SECRET, &body);
    let mut twice = right.clone();
    twice.push(("x-hub-signature-256".into(), good.clone()));
    let wrong = [
        without(right.clone(), "x-hub-signature-256"),
        with(right.clone(), "x-hub-signature-256", ""),
        with(right.clone(), "x-hub-signature-256", &good[7..]),
        with(right.clone(), "x-hub-signature-256", &good[..good.len() - 1]),
        with(right.clone(), "x-hub-signature-256", &good.replace("sha256=", "sha1=")),
        with(right.clone(), "x-hub-signature-256", &sha256("another", &body)),
        with(right.clone(), "x-hub-signature-256", &sha256(SECRET, b"another body")),
        with(without(right.clone(), "x-hub-signature-256"), "x-hub-signature", &sha1("another", &body)),
        // SHA-256 decides when it is present.
        with(with(right.clone(), "x-hub-signature", &sha1(SECRET, &body)), "x-hub-signature-256", "sha256=00"),
        twice,
        // The signature is checked before the other headers: this one also lacks the event.
        without(with(right.clone(), "x-hub-signature-256", "sha256=00"), "x-github-event"),
    ];
    for headers in wrong {
        let reply = service.send(Method::POST, "/", &headers, &body).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{headers:?}");
        assert_eq!(
            reply.json(),
            json!({"outcome": "rejected", "reason": "signature", "dryRun": true,
                "message": "the signature is missing, malformed or wrong"})
        );
    }
    // The signature is checked before the body is parsed: this body is malformed, too.
    let reply =
        service.send(Method::POST, "/", &with(headers("x", "d", b"x"), "x-hub-signature-256", "sha256=00"), b"x").await;
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    let line = service.log.wait_for("outcome=rejected", LOGGED);
    assert!(line.contains("WARN") && line.contains("delivery=d1") && line.contains("no signature"), "{line}");
    assert!(!service.logged().await.join("\n").contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_sha1_unless_sha256_is_required() {
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let sha1_only = with(
        without(headers("pull_request", "d1", &body), "x-hub-signature-256"),
        "x-hub-signature",
        &sha1(SECRET, &body),
    );
    let tolerant = Setup::dry_run().start();
    assert_eq!(tolerant.send(Method::POST, "/", &sha1_only, &body).await.status, StatusCode::CREATED);
    let strict = Setup::dry_run().arg("--require-sha256").start();
    assert_eq!(strict.send(Method::POST, "/", &sha1_only, &body).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(strict.merge("d1", &merged("acme/web", 5, SHA)).await.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_form_encoded_delivery() {
    let service = Setup::dry_run().start();
    let payload = merged("acme/web", 5, SHA);
    let body = form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish();
    let form =
        with(headers("pull_request", "d1", body.as_bytes()), "content-type", "application/x-www-form-urlencoded");
    let reply = service.send(Method::POST, "/", &form, body.as_bytes()).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    assert_eq!(reply.json(), service.merge("d1", &payload).await.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn rejects_signed_malformed_deliveries() {
    let service = Setup::dry_run().start();
    let merge = merged("acme/web", 5, SHA).to_string().into_bytes();
    let cases = [
        (headers("pull_request", "d1", b"{"), b"{".to_vec()),
        (headers("pull_request", "d1", b"[]"), b"[]".to_vec()),
        (headers("pull_request", "d1", b""), b"".to_vec()),
        (without(headers("pull_request", "d1", &merge), "x-github-event"), merge.clone()),
        (without(headers("pull_request", "d1", &merge), "x-github-delivery"), merge.clone()),
        (with(headers("pull_request", "d1", &merge), "x-github-event", "Pull Request"), merge.clone()),
        (
            with(headers("pull_request", "d1", b"a=1"), "content-type", "application/x-www-form-urlencoded"),
            b"a=1".to_vec(),
        ),
    ];
    for (headers, body) in cases {
        let reply = service.send(Method::POST, "/", &headers, &body).await;
        assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::BAD_REQUEST, "malformed"), "{headers:?}");
    }
    for sha in [json!(null), json!("ec26c3e5"), json!("main"), json!("g".repeat(40))] {
        let reply = service.merge("d1", &changed("/pull_request/merge_commit_sha", sha)).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.body);
        assert!(reply.message().contains("merge_commit_sha"), "{}", reply.body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_other_methods_paths_and_content_types() {
    let service = Setup::dry_run().start();
    for method in [Method::GET, Method::PUT, Method::DELETE, Method::PATCH] {
        let reply = service.send(method, "/", &[], b"").await;
        assert_eq!(reply.status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(reply.headers["allow"], "POST, OPTIONS");
    }
    assert_eq!(service.send(Method::GET, "/elsewhere", &[], b"").await.status, StatusCode::NOT_FOUND);
    let origin = [("webhook-request-origin".to_owned(), "events.example.com".to_owned())];
    let handshake = service.send(Method::OPTIONS, "/", &origin, b"").await;
    assert_eq!(handshake.status, StatusCode::OK);
    assert_eq!(handshake.headers["webhook-allowed-origin"], "events.example.com");

    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let signed = headers("pull_request", "d1", &body);
    for content_type in ["text/plain", "application/cloudevents-batch+json", "multipart/form-data", "application/jsonp"]
    {
        let reply = service.send(Method::POST, "/", &with(signed.clone(), "content-type", content_type), &body).await;
        assert_eq!(
            (reply.status, reply.outcome().as_str()),
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "refused"),
            "{content_type}"
        );
    }
    let compressed = with(signed.clone(), "content-encoding", "gzip");
    assert_eq!(service.send(Method::POST, "/", &compressed, &body).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let charset = with(signed, "content-type", "Application/JSON; charset=utf-8");
    assert_eq!(service.send(Method::POST, "/", &charset, &body).await.status, StatusCode::CREATED);
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(service.send(Method::GET, probe, &[], b"").await.status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_422_if_no_template_can_be_rendered() {
    let template = format!("{TEMPLATE}    - name: time\n      value: \"{{{{.TimeString}}}}\"\n");
    let labelled =
        TEMPLATE.replace("generateName: build-", "generateName: labelled-\n  labels: {branch: \"{{.Branch}}\"}");
    let service = Setup::dry_run().template(&template).template_file("labelled.yaml", labelled.as_bytes()).start();
    let cases = [
        (changed("/pull_request/merged_at", json!(null)), "no value for `TimeString`"),
        (changed("/pull_request/base/ref", json!("feature/x")), "put it into an annotation"),
        (changed("/pull_request/base/ref", json!("a$(tasks.a.results.b)")), "Tekton would expand"),
    ];
    for (payload, reason) in cases {
        let reply = service.merge("d1", &payload).await;
        assert_eq!(
            (reply.status, reply.outcome().as_str()),
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            "{}",
            reply.body
        );
        service.log.wait_for(reason, LOGGED);
        assert!(!reply.body.contains("labelled") || !reply.message().contains("labelled"), "quotes the template");
    }
    // The other template still creates its run.
    let reply = service.merge("d1", &changed("/pull_request/base/ref", json!("feature/x"))).await;
    assert_eq!(reply.json()["pipelineRuns"].as_array().map(Vec::len), Some(1), "{}", reply.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_body_of_25_mib_and_refuses_one_byte_more() {
    let service = Setup::dry_run().start();
    let mut payload = merged("acme/web", 5, SHA);
    let rest = 26_214_400 - payload.to_string().len() - ",\"padding\":\"\"".len();
    payload["padding"] = json!("x".repeat(rest));
    let body = payload.to_string().into_bytes();
    assert_eq!(body.len(), 26_214_400);
    let reply = service.send(Method::POST, "/", &headers("pull_request", "d1", &body), &body).await;
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.body);

    payload["padding"] = json!("x".repeat(rest + 1));
    let body = payload.to_string().into_bytes();
    let reply = service.send(Method::POST, "/", &headers("pull_request", "d1", &body), &body).await;
    assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::PAYLOAD_TOO_LARGE, "refused"));
}

#[test]
fn refuses_to_start_without_usable_secret() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |args: &[&str], secret: Option<&str>| {
        let mut command = std::process::Command::new(crate::support::service::PROGRAM);
        command.env_clear().args(["--dry-run", "--port", "0"]).args(args);
        if let Some(secret) = secret {
            command.env("WEBHOOK_SECRET", secret);
        }
        let output = command.output().expect("the program");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let errors: Vec<&str> = text.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(errors.len(), 1, "expected one ERROR line: {text}");
        errors[0].to_owned()
    };
    assert!(start(&[], None).contains("no webhook secret: give --webhook-secret-file"));
    for blank in ["", " ", "\n", "\t "] {
        assert!(start(&[], Some(blank)).contains("is empty or only white space"));
    }
    let path = folder.path().display().to_string();
    assert!(start(&["--webhook-secret-file", &path], None).contains("holds no secret"));
    std::fs::write(folder.path().join("empty"), "\n").expect("a file");
    assert!(start(&["--webhook-secret-file", &path], None).contains("/empty is empty"));
    assert!(start(&["--webhook-secret-file", "/no/such/file"], None).contains("/no/such/file"));
}

#[test]
fn refuses_to_start_with_invalid_template_and_states_position() {
    let cases = [
        ("apiVersion: tekton.dev/v1beta1", "apiVersion: tekton.dev/v1", "2:13: `tekton.dev/v1beta1` is an older API"),
        ("kind: Pipeline", "kind: PipelineRun", "3:7: a template's `kind` must be PipelineRun, not Pipeline"),
        (
            "spec:\n  serviceAccountName: x",
            "spec:",
            "9:3: `spec.serviceAccountName` is not a field of tekton.dev/v1; write it as `spec.taskRunTemplate.serviceAccountName`",
        ),
        ("spec:\n  serviceAccount: x", "spec:", "9:3: `spec.serviceAccount` is not a field"),
        (
            "spec:\n  resources: []",
            "spec:",
            "9:3: `spec.resources` is not a field of tekton.dev/v1; PipelineResources are gone",
        ),
        (
            "value: {{.Comitid}}",
            "value: {{.Commitid}}",
            "13:14: unknown name `Comitid` in an expression; did you mean `Commitid`?",
        ),
    ];
    for (wrong, right, finding) in cases {
        let (code, said) = Setup::dry_run().template(&TEMPLATE.replacen(right, wrong, 1)).refuse();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("/templates/template.yaml:{finding}")), "{finding}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn accepts_any_mounted_secret_and_reloads_rotated_secrets() {
    let setup = Setup::dry_run();
    std::fs::write(setup.secrets().join("next"), "the next one").expect("a file");
    let service = setup.start();
    let body = merged("acme/web", 5, SHA).to_string().into_bytes();
    let signed =
        |secret: &str| with(headers("pull_request", "d1", &body), "x-hub-signature-256", &sha256(secret, &body));
    for secret in [SECRET, "the next one"] {
        assert_eq!(service.send(Method::POST, "/", &signed(secret), &body).await.status, StatusCode::CREATED);
    }
    std::fs::remove_file(service.secrets().join("github")).expect("removed");
    std::fs::write(service.secrets().join("after-next"), "the one after").expect("a file");
    service.log.wait_for("webhook secrets changed and are in use", LOGGED);
    assert_eq!(service.send(Method::POST, "/", &signed(SECRET), &body).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(service.send(Method::POST, "/", &signed("the one after"), &body).await.status, StatusCode::CREATED);

    // A blank secret is skipped: what it held is void, and the others are used, new ones too.
    std::fs::write(service.secrets().join("after-next"), "").expect("a file");
    std::fs::write(service.secrets().join("newest"), "the newest").expect("a file");
    let line = service.log.wait_for("/after-next is empty", LOGGED);
    assert!(line.contains("ERROR"), "{line}");
    assert!(comes_to(&service, &signed("the newest"), &body, StatusCode::CREATED).await);
    assert!(comes_to(&service, &signed("the one after"), &body, StatusCode::UNAUTHORIZED).await);
    assert_eq!(service.send(Method::POST, "/", &signed(""), &body).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(service.send(Method::POST, "/", &signed("the next one"), &body).await.status, StatusCode::CREATED);

    // With none left, every webhook waits for one.
    for name in ["next", "after-next", "newest"] {
        std::fs::remove_file(service.secrets().join(name)).expect("removed");
    }
    // The last line is the state of now.
    let none_left = service.log.wait_for("no usable webhook secret is left", LOGGED);
    let lines = service.log.all();
    let position = |text: &str| lines.iter().rposition(|line| line.contains(text));
    assert!(position("webhook secrets changed") < position(&none_left), "{lines:#?}");
    for secret in ["the next one", "the newest", ""] {
        let reply = service.send(Method::POST, "/", &signed(secret), &body).await;
        assert_eq!((reply.status, reply.reason().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "no_secret"));
    }
    let probe = async |path: &str| service.send(Method::GET, path, &[], b"").await.status;
    assert_eq!((probe("/readyz").await, probe("/healthz").await), (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK));
    std::fs::write(service.secrets().join("github"), "mounted again").expect("a file");
    assert!(comes_to(&service, &signed("mounted again"), &body, StatusCode::CREATED).await);
    assert_eq!(probe("/readyz").await, StatusCode::OK);
}

/// Sends until the answer has this status, or the time is up.
async fn comes_to(service: &Service, headers: &[(String, String)], body: &[u8], status: StatusCode) -> bool {
    comes_true(LOGGED, async || service.send(Method::POST, "/", headers, body).await.status == status).await
}

/// Whether a line matches `(\d+-\d+-\d+\s+\d+:\d+:\d+)\s+(\w+)\s+(.*)`, the pattern of the seed's log collector.
fn is_log_line(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let numbers = |word: Option<&str>, separator: char| {
        word.is_some_and(|word| {
            let parts: Vec<&str> = word.split(separator).collect();
            parts.len() == 3 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
        })
    };
    numbers(words.next(), '-')
        && numbers(words.next(), ':')
        && words.next().is_some_and(|level| ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&level))
        && words.next().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn escapes_control_characters_in_log_lines() {
    let text = Setup::dry_run().start();
    let json = Setup::dry_run().arg("--log-format=json").start();
    let hostile = "closed\r\n2026-11-22 00:00:00 ERROR forged\u{1b}[31m \"quoted\" \u{2028}\u{202e}";
    let payload = changed("/action", json!(hostile));
    text.deliver("pull_request", "d1", &payload).await;
    let line = text.log.wait_for("outcome=ignored", LOGGED);
    assert!(line.contains("delivery=d1") && line.contains("\\r\\n2026"), "{line}");
    for line in text.logged().await {
        assert!(is_log_line(&line), "{line:?}");
        assert!(!line.chars().any(|c| c.is_control() || ['\u{2028}', '\u{202e}'].contains(&c)), "{line:?}");
    }
    json.deliver("pull_request", "d1", &payload).await;
    let line: Value = serde_json::from_str(&json.log.wait_for("\"ignored\"", LOGGED)).expect("one JSON object");
    assert_eq!((line["level"].as_str(), line["outcome"].as_str()), (Some("INFO"), Some("ignored")));
    assert_eq!((line["delivery"].as_str(), line["status"].as_u64()), (Some("d1"), Some(200)));
    assert_eq!(line["action"].as_str(), Some(hostile));
}

#[tokio::test(flavor = "multi_thread")]
async fn ignores_merges_that_only_a_replay_brings() {
    let old = changed("/pull_request/merged_at", json!("2021-11-22T13:46:53Z"));
    let service = Setup::dry_run().start();
    let reply = service.merge("d1", &old).await;
    assert_eq!(
        (reply.status, reply.outcome().as_str(), reply.reason().as_str()),
        (StatusCode::OK, "ignored", "too_old")
    );
    assert!(service.log.wait_for("reason=too_old", LOGGED).contains(" WARN "));
    assert_eq!(service.merge("d2", &merged("acme/web", 5, SHA)).await.outcome(), "created");
    let any_age = Setup::dry_run().arg("--max-merge-age=0").start();
    assert_eq!(any_age.merge("d1", &old).await.outcome(), "created");
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_events_without_their_own_object() {
    let service = Setup::dry_run().start();
    let star =
        json!({"action": "created", "starred_at": "2026-11-22T13:46:53Z", "repository": {"full_name": "acme/web"}});
    for event in ["pull_request", "push", "create", "deployment", "repository_dispatch"] {
        let reply = service.deliver(event, "d1", &star).await;
        assert_eq!((reply.status, reply.reason().as_str()), (StatusCode::BAD_REQUEST, "payload"), "{event}");
    }
    assert_eq!(service.deliver("star", "d1", &star).await.outcome(), "ignored");
}

#[test]
fn refuses_namespace_that_changes_a_path() {
    let (code, said) = Setup::dry_run().arg("--namespace=ci/pipelineruns?dryRun=All&x=").refuse();
    assert!(code == Some(1) && said.contains("not a valid name"), "{said}");
}
