//! Several teams behind one service: each is proven by its own secrets, and sees its own templates.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use http::{Method, StatusCode};

use crate::support::cloud_event::{PULL_REQUEST, binary};
use crate::support::control_plane::shared;
use crate::support::http::{HttpClient, Reply};
use crate::support::mount::Mount;
use crate::support::process::comes_true;
use crate::support::service::{LOGGED, PROGRAM, Service, Setup};
use crate::support::teams::{dry_run, secret, template};
use crate::support::webhook::{SECRET, SHA, headers, headers_signed_with, merged};

async fn get(service: &Service, path: &str) -> StatusCode {
    service.send(Method::GET, path, &[], b"").await.status
}

async fn metrics(service: &Service) -> String {
    let line = service.log.wait_for("serving metrics", LOGGED);
    let address = line.split("address=").nth(1).and_then(|address| address.parse().ok()).expect("an address");
    HttpClient::new().send(Method::GET, address, "/metrics", &[], "").await.expect("metrics").body
}

fn reason(reply: &Reply) -> String {
    reply.json()["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_teams_own_secret_opens_its_templates() {
    let teams: Vec<String> = (0..50).map(|index| format!("team-{index}")).collect();
    let setup = teams.iter().fold(dry_run(), |setup, team| setup.team(team)).arg("--metrics-addr=127.0.0.1:0");
    let service = setup.start();
    for (row, signer) in teams.iter().enumerate() {
        for (column, owner) in teams.iter().enumerate() {
            let payload = merged(&format!("{owner}/web"), 5, SHA);
            let reply = service.merge_of(signer, &format!("{row}.{column}"), &payload).await;
            if signer == owner {
                assert_eq!(reply.status, StatusCode::CREATED, "{signer} {owner}");
                continue;
            }
            assert_eq!((reply.status, reply.outcome().as_str()), (StatusCode::OK, "ignored"), "{signer} {owner}");
            assert!(!reply.body.contains("team-"), "no word about another team: {}", reply.body);
        }
    }
    // Nothing else is printed than the 50 runs, each with its team's label.
    let runs = service.output.text();
    assert_eq!(runs.matches("kind: PipelineRun").count(), 50);
    for team in &teams {
        assert_eq!(runs.matches(&format!("github-trigger.dev/team: {team}\n")).count(), 1, "{team}\n{runs}");
    }
    let line = service.log.wait_for("delivery=7.7 ", LOGGED);
    assert!(line.contains("team=team-7 ") && line.contains("outcome=created"), "{line}");
    let metrics = metrics(&service).await;
    for (outcome, count) in [("created", 1), ("ignored", 49), ("invalid", 0)] {
        let series = format!("github_trigger_team_deliveries_total{{outcome=\"{outcome}\",team=\"team-7\"}} {count}");
        assert!(metrics.contains(&series), "{series}\n{metrics}");
    }
    // No secret of a team opens the top level, which has none.
    let body = merged("team-1/web", 5, SHA).to_string().into_bytes();
    let reply = service.send(Method::POST, "/", &headers("pull_request", "d1", &body), &body).await;
    assert_eq!((reply.status, reason(&reply).as_str()), (StatusCode::UNAUTHORIZED, "signature"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_top_level_stays_as_it_is_beside_teams() {
    let service = Setup::dry_run().team("acme").start();
    let payload = merged("acme/web", 5, SHA);
    assert_eq!(service.merge("d1", &payload).await.outcome(), "created");
    assert_eq!(service.merge_of("acme", "d2", &payload).await.outcome(), "created");
    let runs = service.output.text();
    assert_eq!(runs.matches("github-trigger.dev/team: acme").count(), 1, "{runs}");
    // Templates of the same name, and the same merge, but two runs.
    let mut names: Vec<&str> = runs.lines().filter(|line| line.starts_with("  name: build-")).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 2, "{runs}");
    let alone = Setup::dry_run().start();
    assert_eq!(alone.merge("d1", &payload).await.outcome(), "created");
    let name = alone.output.wait_for("  name: build-", LOGGED);
    assert!(names.contains(&name.as_str()), "the top level's run has the name that it has without teams: {name}");
}

/// ERROR lines about a team.
fn errors_about(lines: &[String], team: &str) -> Vec<String> {
    let field = format!("team={team} ");
    lines.iter().filter(|line| line.contains(" ERROR ") && format!("{line} ").contains(&field)).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_team_holds_back_nobody_else() {
    let broken = template("bad").replace("pipelineRef", "pipelineReff");
    let setup = dry_run().team("good").team("bad").team_file("bad", "template.yaml", &broken);
    let service = setup.arg("--metrics-addr=127.0.0.1:0").start();
    assert_eq!(get(&service, "/readyz").await, StatusCode::OK);
    for index in 0..5 {
        let reply = service.merge_of("bad", &format!("b{index}"), &merged("bad/web", index, SHA)).await;
        assert_eq!((reply.status, reason(&reply).as_str()), (StatusCode::SERVICE_UNAVAILABLE, "team"));
        assert!(reply.headers.contains_key("retry-after") && !reply.body.contains("pipelineReff"), "{}", reply.body);
        assert_eq!(
            service.merge_of("good", &format!("g{index}"), &merged("good/web", index, SHA)).await.outcome(),
            "created"
        );
    }
    let lines = service.logged().await;
    let errors = errors_about(&lines, "bad");
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("bad/template.yaml:9:3") && errors[0].contains("did you mean"), "{errors:?}");
    let gauges = async |bad: u8, stale: u8| {
        let metrics = metrics(&service).await;
        for series in [
            format!("github_trigger_team_broken{{team=\"bad\"}} {bad}"),
            format!("github_trigger_team_config_stale{{config=\"templates\",team=\"bad\"}} {stale}"),
            "github_trigger_team_broken{team=\"good\"} 0".to_owned(),
        ] {
            assert!(metrics.contains(&series), "{series}\n{metrics}");
        }
    };
    gauges(1, 1).await;

    // Mended, and broken again: the last good template stays in use.
    fs::write(service.templates().join("bad/template.yaml"), template("bad")).expect("a file");
    service.log.wait_for("templates changed and are in use team=bad", LOGGED);
    assert_eq!(service.merge_of("bad", "b6", &merged("bad/web", 6, SHA)).await.outcome(), "created");
    gauges(0, 0).await;
    fs::write(service.templates().join("bad/template.yaml"), &broken).expect("a file");
    service.log.wait_for("changed templates are refused; the last good ones stay in use team=bad", LOGGED);
    assert_eq!(service.merge_of("bad", "b7", &merged("bad/web", 7, SHA)).await.outcome(), "created");
    gauges(0, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_to_start_only_if_no_team_is_valid() {
    let broken = template("bad").replace("pipelineRef", "pipelineReff");
    let only_broken = || dry_run().team("bad").team_file("bad", "template.yaml", &broken);
    let (code, log) = only_broken().refuse();
    assert!(code == Some(1) && log.contains("bad/template.yaml:9:3"), "{log}");
    // A broken top level is like a broken team.
    let service = only_broken().team("good").template(&broken).start();
    assert_eq!(service.merge_of("good", "d1", &merged("good/web", 5, SHA)).await.outcome(), "created");
    assert_eq!(get(&service, "/readyz").await, StatusCode::OK);
    let (code, log) = dry_run().refuse();
    assert!(code == Some(1) && log.contains("holds no secret"), "{log}");
    let halves = dry_run().team_file("x", "template.yaml", &template("x")).team_secret("y", "github", &secret("y"));
    let (code, log) = halves.refuse();
    assert!(code == Some(1) && log.contains("team x: it has no usable webhook secret"), "{log}");
    assert!(log.contains("team y: it has no templates"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_in_force_whatever_the_templates_are() {
    let elsewhere = template("a").replace("metadata:", "metadata:\n  namespace: elsewhere");
    let (other, broken) = (template("b"), template("a").replace("pipelineRef", "pipelineReff"));
    let setup = dry_run().team("b");
    let setup = setup.team_secret("a", "github", &secret("a"));
    let mut mount = Mount::over(&setup.templates(), &[("a/t.yaml", &elsewhere), ("b/t.yaml", &other)]);
    let service = setup.start();
    let merge = async |id: &str| service.merge_of("a", id, &merged("a/web", 5, SHA)).await;
    assert_eq!(merge("free").await.outcome(), "created");
    assert!(service.output.wait_for("namespace: elsewhere", LOGGED).contains("elsewhere"));
    // The operators bind the team: its last good templates no longer fit.
    mount.replace(&[("a/t.yaml", &elsewhere), ("a/namespace", "builds"), ("b/t.yaml", &other)]);
    service.log.wait_for("not in `elsewhere`", LOGGED);
    assert_eq!(reason(&merge("bound").await), "team");
    // A template that fits, then a broken one: the binding holds.
    mount.replace(&[("a/t.yaml", &template("a")), ("a/namespace", "builds"), ("b/t.yaml", &other)]);
    service.log.wait_for("templates changed and are in use team=a", LOGGED);
    assert_eq!(merge("fits").await.outcome(), "created");
    mount.replace(&[("a/t.yaml", &broken), ("a/namespace", "builds-2"), ("b/t.yaml", &other)]);
    service.log.wait_for("did you mean `pipelineRef`", LOGGED);
    assert_eq!(merge("moved").await.outcome(), "created");
    service.output.wait_for("namespace: builds-2", LOGGED);
    // Settings that are none.
    for (index, setting) in
        [("a/namespace", "two names"), ("a/namespace/file", "x"), ("a/subjects", "#"), ("a/subjects/x", "y")]
            .into_iter()
            .enumerate()
    {
        mount.replace(&[("a/t.yaml", &template("a")), setting, ("b/t.yaml", &other)]);
        let refused = comes_true(LOGGED, async || reason(&merge(&format!("bad-{index}")).await) == "team").await;
        assert!(refused, "{setting:?}\n{}", service.log.text());
        mount.replace(&[("a/t.yaml", &template("a")), ("b/t.yaml", &other)]);
        service.log.wait_for("templates changed and are in use team=a", LOGGED);
    }
    // The same beside its secrets.
    let is_created = async || merge("good").await.outcome() == "created";
    assert!(comes_true(LOGGED, is_created).await, "{}", service.log.text());
    let subjects = service.secrets().join("a/subjects");
    fs::write(&subjects, "#").expect("a file");
    assert!(comes_true(LOGGED, async || reason(&merge("bad").await) == "team").await, "{}", service.log.text());
    let line = service.log.wait_for(&format!("{}: ", subjects.display()), LOGGED);
    assert!(line.contains("team a is broken, and its deliveries are refused"), "{line}");
    fs::remove_file(&subjects).expect("removed");
    assert!(comes_true(LOGGED, is_created).await, "{}", service.log.text());
    assert_eq!(service.merge_of("b", "other", &merged("b/web", 5, SHA)).await.outcome(), "created");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_move_from_the_top_into_a_team_leave_no_top_level() {
    let service = Setup::dry_run().arg("--cloudevents-auth=none").start();
    let (templates, secrets) = (service.templates(), service.secrets());
    fs::create_dir(templates.join("a")).expect("a folder");
    fs::create_dir(secrets.join("a")).expect("a folder");
    fs::rename(templates.join("template.yaml"), templates.join("a/template.yaml")).expect("a move");
    fs::rename(secrets.join("github"), secrets.join("a/github")).expect("a move");
    service.log.wait_for("the folder of templates is gone", LOGGED);
    service.log.wait_for("webhook secrets changed and are in use team=a", LOGGED);
    assert_eq!(service.merge("d1", &merged("acme/web", 5, SHA)).await.outcome(), "created");
    assert!(service.log.wait_for("delivery=d1 ", LOGGED).contains("team=a "));
    let body = merged("acme/web", 6, SHA).to_string().into_bytes();
    let reply = service.send(Method::POST, "/", &binary(PULL_REQUEST, "unsigned"), &body).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN, "a Broker must not try it again: {}", reply.body);
    assert!(!service.logged().await.iter().any(|line| line.contains("the top level is broken")));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_incomplete_and_misplaced_folders() {
    let setup = dry_run()
        .team("good")
        .team_file("no-secret", "template.yaml", &template("no-secret"))
        .team_secret("no-template", "github", &secret("no-template"))
        .team_secret("blank", "github", " \n")
        .team_file("blank", "template.yaml", &template("blank"))
        .team("Not_A_Label")
        .team("with-namespace")
        .team_secret("with-namespace", "namespace", "builds");
    fs::create_dir(setup.templates().join("empty")).expect("a folder");
    fs::create_dir(setup.secrets().join("empty")).expect("a folder");
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("template.yaml"), template("outside")).expect("a file");
    fs::write(outside.path().join("github"), secret("outside")).expect("a file");
    symlink(outside.path(), setup.templates().join("outside")).expect("a link");
    symlink(outside.path(), setup.secrets().join("outside")).expect("a link");
    let service = setup.start();
    for (team, status) in [
        ("good", StatusCode::CREATED),
        ("with-namespace", StatusCode::CREATED),
        ("no-secret", StatusCode::UNAUTHORIZED),
        ("no-template", StatusCode::SERVICE_UNAVAILABLE),
        ("blank", StatusCode::UNAUTHORIZED),
        ("Not_A_Label", StatusCode::UNAUTHORIZED),
        ("outside", StatusCode::UNAUTHORIZED),
    ] {
        let reply = service.merge_of(team, &format!("of-{team}"), &merged(&format!("{team}/web"), 5, SHA)).await;
        assert_eq!(reply.status, status, "{team}\n{}", service.log.text());
    }
    // Public text is no secret, wherever it is written.
    let body = merged("with-namespace/web", 5, SHA).to_string().into_bytes();
    let guessed = headers_signed_with("builds", "pull_request", "guessed", &body);
    assert_eq!(service.send(Method::POST, "/", &guessed, &body).await.status, StatusCode::UNAUTHORIZED);
    let lines = service.logged().await;
    for (team, what) in [
        ("no-secret", "no usable webhook secret"),
        ("no-template", "has no templates"),
        ("blank", "is empty or only white space"),
        ("empty", "contains no *.yaml file"),
        ("Not_A_Label", "is not a valid name"),
        ("outside", "leads out of the team's folder"),
        ("with-namespace", "is among its secrets"),
    ] {
        let errors = errors_about(&lines, team);
        assert!(errors.len() == 1 && errors[0].contains(what), "{team}: {errors:?}\n{}", lines.join("\n"));
    }
    assert!(errors_about(&lines, "good").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_two_teams_proves_neither() {
    let setup = Setup::dry_run().team("a").team("b").team("c");
    // `a` has b's secret as well as its own, and `c` has the one of the top level.
    let setup = setup.team_secret("a", "copied", &format!("{}\n", secret("b"))).team_secret("c", "copied", SECRET);
    let service = setup.start();
    let body = merged("b/web", 5, SHA).to_string().into_bytes();
    for (signer, owner, expected) in [
        (secret("a"), "a", "created"),
        (secret("c"), "c", "created"),
        (secret("b"), "b", "unavailable"),
        (secret("b"), "a", "unavailable"),
        (SECRET.to_owned(), "a", "unavailable"),
    ] {
        let body = merged(&format!("{owner}/web"), 5, SHA).to_string().into_bytes();
        let reply =
            service.send(Method::POST, "/", &headers_signed_with(&signer, "pull_request", "d1", &body), &body).await;
        assert_eq!(reply.outcome(), expected, "{owner}: {}", reply.body);
        assert!(expected == "created" || reason(&reply) == "team", "{}", reply.body);
    }
    for (team, other) in [("a", "team b"), ("b", "team a"), ("c", "the top level")] {
        let line = service.log.wait_for(&format!("team={team} error"), LOGGED);
        assert!(line.contains("ERROR") && line.contains(&format!("is also one of {other}")), "{line}");
        assert!(!line.contains("told to nobody") && !line.contains(SECRET), "{line}");
    }
    fs::remove_file(service.secrets().join("a/copied")).expect("removed");
    let mended = async || {
        let headers = headers_signed_with(&secret("b"), "pull_request", "d2", &body);
        service.send(Method::POST, "/", &headers, &body).await.outcome() == "created"
    };
    assert!(comes_true(LOGGED, mended).await, "{}", service.log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projected_volume_adds_and_removes_teams() {
    let setup = dry_run();
    let (config, secrets) = (template("a"), secret("a"));
    let mut templates = Mount::over(&setup.templates(), &[("a/templates.yaml", &config)]);
    let mut mounted = Mount::over(&setup.secrets(), &[("a/github", &secrets)]);
    let service = setup.start();
    let (two, other) = (template("b"), secret("b"));
    assert_eq!(service.merge_of("b", "d1", &merged("b/web", 5, SHA)).await.status, StatusCode::UNAUTHORIZED);
    templates.replace(&[("a/templates.yaml", &config), ("b/templates.yaml", &two)]);
    service.log.wait_for("templates changed and are in use team=b", LOGGED);
    mounted.replace(&[("a/github", &secrets), ("b/github", &other)]);
    // A new secret is used by the first delivery that needs it.
    assert_eq!(service.merge_of("b", "d2", &merged("b/web", 5, SHA)).await.outcome(), "created");
    mounted.replace(&[("b/github", &other)]);
    service.log.wait_for("the folder of webhook secrets is gone, and they are no longer in use team=a", LOGGED);
    assert_eq!(service.merge_of("a", "d3", &merged("a/web", 5, SHA)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(service.merge_of("b", "d4", &merged("b/web", 6, SHA)).await.outcome(), "created");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_teams_start_and_bound_the_cost_of_wrong_signatures() {
    let setup = (0..500).fold(dry_run(), |setup, index| setup.team(&format!("team-{index}")));
    let service = setup.start();
    for index in [0, 250, 499] {
        let team = format!("team-{index}");
        assert_eq!(service.merge_of(&team, &team, &merged(&format!("{team}/web"), 5, SHA)).await.outcome(), "created");
    }
    // Wrong signatures of large bodies whose repository nobody has: some are tried with every secret, not all.
    let mut payload = merged("nobody/web", 5, SHA);
    payload["padding"] = "x".repeat(2_000_000).into();
    let body = payload.to_string().into_bytes();
    let wrong = headers_signed_with("wrong", "pull_request", "wrong", &body);
    let sending = (0..6).map(|_| service.send(Method::POST, "/", &wrong, &body));
    let replies = futures_util::future::join_all(sending).await;
    let answers: Vec<(u16, String)> = replies.iter().map(|reply| (reply.status.as_u16(), reason(reply))).collect();
    assert!(answers.contains(&(401, "signature".to_owned())), "{answers:?}");
    assert!(answers.contains(&(503, "busy".to_owned())), "{answers:?}");
    // Deliveries of known repositories are not touched by it.
    let mut known = merged("team-77/web", 5, SHA);
    known["padding"] = "x".repeat(500_000).into();
    assert_eq!(service.merge_of("team-77", "known", &known).await.outcome(), "created");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unsigned_event_reaches_the_top_level_only() {
    let service = Setup::dry_run().template(&template("top")).team("a").arg("--cloudevents-auth=none").start();
    for (owner, outcome) in [("a", "ignored"), ("top", "created")] {
        let body = merged(&format!("{owner}/web"), 5, SHA).to_string().into_bytes();
        let reply = service.send(Method::POST, "/", &binary(PULL_REQUEST, owner), &body).await;
        assert_eq!(reply.status.as_u16() / 100, 2);
        let line = service.log.wait_for(&format!("delivery={owner}"), LOGGED);
        assert!(line.contains(&format!("outcome={outcome}")) && !line.contains("team="), "{line}");
    }
    // With a team's signature it is the team's.
    let body = merged("a/web", 6, SHA).to_string().into_bytes();
    let mut signed = binary(PULL_REQUEST, "signed");
    signed.push(("x-hub-signature-256".into(), crate::support::webhook::sha256(&secret("a"), &body)));
    assert_eq!(service.send(Method::POST, "/", &signed, &body).await.status, StatusCode::CREATED);
    assert!(service.log.wait_for("delivery=signed", LOGGED).contains("team=a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_proves_the_team_that_names_its_subject() {
    let Some(plane) = shared() else { return };
    plane.namespace("subjects");
    let kubeconfig = plane.trigger_account("subjects");
    let subject = |name: &str| format!("system:serviceaccount:subjects:{name}");
    for name in ["of-a", "of-top", "of-nobody", "of-both", "of-broken", "of-named"] {
        plane.kubectl(&["create", "serviceaccount", name, "-n", "subjects"]);
    }
    let both = format!("# ours\n{}\n{}\n{}\n", subject("of-a"), subject("of-both"), subject("of-named"));
    let service = Setup::cluster(&kubeconfig)
        .template(&template("top"))
        .team("a")
        .team_file("a", "subjects", &both)
        .team("b")
        .team_secret("b", "subjects", &subject("of-both"))
        .team_file("broken", "template.yaml", "kind: Nothing")
        .team_file("broken", "subjects", &subject("of-broken"))
        .args(&[
            "--dry-run",
            "--cloudevents-auth=oidc",
            "--oidc-audience=trigger",
            "--oidc-subject",
            &subject("of-[tb]*"),
            "--oidc-subject",
            &subject("of-named"),
        ])
        .start();
    let send = async |account: &str, owner: &str, signer: Option<&str>| {
        let body = merged(&format!("{owner}/web"), 5, SHA).to_string().into_bytes();
        let id = format!("{account}-{owner}-{}", signer.unwrap_or("nobody"));
        let mut headers = binary(PULL_REQUEST, &id);
        let token = plane.token_for("subjects", account, "trigger");
        headers.push(("authorization".into(), format!("Bearer {token}")));
        if let Some(signer) = signer {
            headers.push(("x-hub-signature-256".into(), crate::support::webhook::sha256(&secret(signer), &body)));
        }
        let status = service.send(Method::POST, "/", &headers, &body).await.status.as_u16();
        (status, service.log.wait_for(&format!("delivery={id} "), LOGGED))
    };
    for (account, owner, signer, status, part) in [
        ("of-a", "a", None, 201, "team=a "),
        ("of-a", "top", None, 200, "outcome=ignored"),
        ("of-top", "top", None, 201, "outcome=created"),
        ("of-top", "a", None, 200, "outcome=ignored"),
        ("of-nobody", "a", None, 403, "reason=subject"),
        ("of-both", "b", None, 403, "team a and team b"),
        ("of-top", "b", Some("b"), 201, "team=b "),
        ("of-a", "b", Some("b"), 403, "but the signature is of team b"),
        ("of-a", "a", Some("a"), 201, "team=a "),
        ("of-broken", "top", None, 503, "reason=team"),
        ("of-named", "a", None, 403, "is given by --oidc-subject"),
    ] {
        let (got, line) = send(account, owner, signer).await;
        assert!(got == status && line.contains(part), "{account} {owner} {signer:?}: {got} {line}");
    }
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(PROGRAM).env_clear().args(args).output().expect("the program");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn lint_and_render_know_teams() {
    let elsewhere = template("b").replace("metadata:", "metadata:\n  namespace: elsewhere");
    let setup = dry_run()
        .template(&template("top"))
        .team("a")
        .team_file("a", "namespace", "builds-of-a\n")
        .team("b")
        .team_file("b", "template.yaml", &elsewhere);
    let path = setup.templates().display().to_string();
    let (code, _, log) = run(&["lint", "--trigger-config", &path]);
    assert!(code == Some(0) && log.contains("3 template(s) pass"), "{log}");
    let (code, _, log) = run(&["lint", "--trigger-config", &path, "--team=a"]);
    assert!(code == Some(0) && log.contains("1 template(s) pass"), "{log}");
    let (code, _, log) = run(&["lint", "--trigger-config", &path, "--team=c"]);
    assert!(code == Some(1) && log.contains("has no folder \"c\"; its teams: a, b"), "{log}");

    let payload = setup.templates().parent().expect("a folder").join("payload.json");
    fs::write(&payload, merged("a/web", 5, SHA).to_string()).expect("a file");
    let payload = payload.display().to_string();
    let (code, out, log) = run(&["render", "--trigger-config", &path, "--payload", &payload]);
    assert_eq!(code, Some(0), "{log}");
    assert!(out.contains("namespace: builds-of-a") && out.contains("github-trigger.dev/team: a"), "{out}");
    assert_eq!(out.matches("kind: PipelineRun").count(), 1, "{out}");
    assert!(log.contains("team a\n") && log.contains("team b\n"), "{log}");
    let (code, _, _) = run(&["render", "--trigger-config", &path, "--payload", &payload, "--team=b"]);
    assert_eq!(code, Some(3));

    // A namespace of its own binds a team's templates.
    let setup = setup.team_file("b", "namespace", "builds-of-b");
    let (code, out, _) = run(&["lint", "--trigger-config", &path]);
    assert!(code == Some(1) && out.contains("b/template.yaml:") && out.contains("not in `elsewhere`"), "{out}");
    let (code, out, log) = run(&["render", "--trigger-config", &path, "--payload", &payload]);
    assert!(
        code == Some(1) && out.matches("kind: PipelineRun").count() == 1 && log.contains("team b is broken"),
        "{log}"
    );
    let (code, _, log) = run(&["lint", "--trigger-config", &path, "--team=a"]);
    assert_eq!(code, Some(0), "{log}");
    for (name, content, what) in
        [("namespace", "Not a name", "is not a valid name"), ("subjects", "\n", "names no subject")]
    {
        let setup = dry_run().team("a").team_file("a", name, content);
        let (code, out, _) = run(&["lint", "--trigger-config", &setup.templates().display().to_string()]);
        assert!(code == Some(1) && out.contains(&format!("a/{name}:1:1: ")) && out.contains(what), "{out}");
    }
    drop(setup);
}
