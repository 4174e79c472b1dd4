//! `report` and `token`, against a GitHub that checks each request by GitHub's own description.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::command::{End, run};
use crate::support::github::{APP, Fault, GitHub, TOKEN};
use crate::support::process::free_ports;
use crate::support::webhook::SHA;

const REPOSITORY: &str = "acme/web";

async fn command(github: &GitHub, name: &str, credential: &[&str], args: &[&str]) -> End {
    let address = github.url();
    let begin = [name, "--repository", REPOSITORY, "--github-api-url", &address];
    run(&[&begin[..], credential, args].concat()).await
}

async fn report(github: &GitHub, state: &str, args: &[&str]) -> End {
    let file = github.token_file().display().to_string();
    let fixed = ["--state", state, "--commit", SHA];
    command(github, "report", &["--github-token-file", &file], &[&fixed[..], args].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn report_writes_each_state_once() {
    let Some(github) = GitHub::start().await else { return };
    for (state, code) in
        [("pending", 0), ("pending", 3), ("success", 0), ("success", 3), ("pending", 0), ("failure", 0)]
    {
        let end = report(&github, state, &["--target-url=https://dashboard.example.com/run", "--output=json"]).await;
        assert_eq!(end.code, Some(code), "{end:?}");
        let line: Value = serde_json::from_str(&end.out).expect("a JSON line");
        let outcome = if code == 0 { "reported" } else { "unchanged" };
        assert_eq!((&line["outcome"], &line["state"]), (&json!(outcome), &json!(state)));
    }
    assert_eq!(github.states(REPOSITORY, SHA), ["pending", "success", "pending", "failure"]);
    // Another context is another status, and a long sentence is cut.
    let long = "a sentence of many words ".repeat(20);
    let end = report(&github, "error", &["--context=deploy", "--description", &long]).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(report(&github, "error", &["--context=Deploy", "--description", &long]).await.code, Some(3));
    assert_eq!(github.states(REPOSITORY, SHA).len(), 5);
    let statuses = github.knowledge().statuses[&(REPOSITORY.to_owned(), SHA.to_owned())].clone();
    assert_eq!(statuses[0]["target_url"], "https://dashboard.example.com/run");
    assert!(statuses[4]["description"].as_str().is_some_and(|text| text.len() <= 140 && text.ends_with("...")));
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn report_makes_one_deployment_and_its_states() {
    let Some(github) = GitHub::start().await else { return };
    let environment = ["--environment=production", "--environment-url=https://hello.example.com"];
    for (state, more, code) in [
        ("pending", &[][..], 0),
        ("pending", &[], 3),
        ("success", &["--outcome=deployed"], 0),
        ("success", &["--outcome=deployed"], 3),
        ("success", &["--outcome=rolled-back"], 0),
    ] {
        let end = report(&github, state, &[&environment[..], more].concat()).await;
        assert_eq!(end.code, Some(code), "{end:?}");
    }
    let other = report(&github, "success", &["--environment=test & trial", "--outcome=superseded"]).await;
    assert_eq!(other.code, Some(0), "{other:?}");
    {
        let knowledge = github.knowledge();
        let names: Vec<&Value> = knowledge.deployments.iter().map(|deployment| &deployment["environment"]).collect();
        assert_eq!(names, ["production", "test & trial"]);
        let states = |id: u64| -> Vec<String> {
            let states = knowledge.deployment_statuses[&id].iter().map(|status| status["state"].as_str());
            states.map(|state| state.unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(states(1), ["in_progress", "success", "inactive"]);
        assert_eq!(states(2), ["inactive"], "superseded");
        assert_eq!(knowledge.deployment_statuses[&1][1]["environment_url"], "https://hello.example.com");
    }
    // Killed between the two calls: the deployment is there, its state is not.
    github.knowledge().deployment_statuses.clear();
    let end = report(&github, "success", &[&environment[..], &["--outcome=deployed"]].concat()).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(github.knowledge().deployments.len(), 2, "the same deployment");
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_at_the_same_time_leave_one_deployment() {
    let Some(github) = GitHub::start().await else { return };
    for round in 0..6 {
        let commit = format!("{:040x}", round + 1);
        let file = github.token_file().display().to_string();
        let args = ["--github-token-file", &file];
        let fixed = ["--state=success", "--environment=production", "--commit", &commit];
        let ends = join_all((0..3).map(|_| command(&github, "report", &args, &fixed))).await;
        assert!(ends.iter().all(|end| matches!(end.code, Some(0 | 3))), "{ends:?}");
        let knowledge = github.knowledge();
        let ours = knowledge.deployments.iter().filter(|deployment| deployment["sha"] == commit.as_str());
        let states = ours.map(|deployment| {
            let statuses = &knowledge.deployment_statuses[&deployment["id"].as_u64().expect("an id")];
            statuses.last().expect("a status")["state"].clone()
        });
        let states: Vec<Value> = states.collect();
        assert_eq!(states.iter().filter(|state| *state == "success").count(), 1, "{states:?}");
        assert!(states.iter().all(|state| state == "success" || state == "inactive"), "{states:?}");
    }
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn report_waits_for_a_github_that_is_away_or_limits() {
    let Some(github) = GitHub::start().await else { return };
    let now = jiff::Timestamp::now().as_second();
    let limited = |headers: Vec<(&'static str, String)>, status: u16| {
        Fault::Answer(status, headers, json!({"message": "API rate limit exceeded"}))
    };
    github.knowledge().faults.extend([
        Fault::Answer(502, Vec::new(), json!({"message": "Bad Gateway"})),
        Fault::Reset,
        limited(vec![("retry-after", "1".to_owned())], 429),
        limited(vec![("x-ratelimit-remaining", "0".to_owned()), ("x-ratelimit-reset", (now + 2).to_string())], 403),
        Fault::Slow(Duration::from_millis(100)),
    ]);
    let end = report(&github, "success", &[]).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(end.log.matches("trying again").count(), 4, "{}", end.log);
    assert_eq!(github.states(REPOSITORY, SHA), ["success"]);

    // Longer than our patience: a warning, or a failure with --strict.
    let hour = limited(vec![("retry-after", "3600".to_owned())], 403);
    for (args, code) in [(&[][..], 0), (&["--strict"], 1)] {
        github.knowledge().faults.push_back(hour.clone());
        let end = report(&github, "failure", args).await;
        assert!(end.code == Some(code) && end.log.contains("rate limit is used up for 3600 s more"), "{end:?}");
    }
    let secondary = json!({"message": "You have exceeded a secondary rate limit. Please wait a few minutes."});
    github.knowledge().faults.push_back(Fault::Answer(403, Vec::new(), secondary));
    let end = report(&github, "failure", &["--github-patience=5"]).await;
    assert!(end.code == Some(0) && end.log.contains("WARN") && end.log.contains("rate limit"), "{end:?}");
    assert_eq!(github.states(REPOSITORY, SHA), ["success"]);

    let [port] = free_ports();
    let (away, file) = (format!("http://127.0.0.1:{port}"), github.token_file().display().to_string());
    let args = ["report", "--repository", REPOSITORY, "--github-api-url", &away, "--github-token-file", &file];
    let rest = ["--state=success", "--commit", SHA, "--github-patience=1"];
    let end = run(&[&args[..], &rest].concat()).await;
    assert!(end.code == Some(0) && end.log.contains("does not answer"), "{end:?}");
    assert_eq!(run(&[&args[..], &rest, &["--strict"]].concat()).await.code, Some(1));
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn report_says_what_is_wrong_in_one_line_and_sends_no_credential_elsewhere() {
    let Some(github) = GitHub::start().await else { return };
    let file = |name: &str, content: &str| {
        let path = github.folder.path().join(name);
        fs::write(&path, content).expect("a file");
        path.display().to_string()
    };
    let statuses = ["--state=success", "--commit", SHA];
    let weak = "ghp_weak";
    github.knowledge().tokens.insert(weak.to_owned(), Some(json!({"contents": "read"})));
    for (token, what) in [
        ("ghp_revoked", "is it expired or revoked?"),
        (weak, "needs the permission `statuses: write`"),
        ("two words", "holds no token"),
    ] {
        let end = command(&github, "report", &["--github-token-file", &file("other", token)], &statuses).await;
        let lines = end.log.lines().count();
        assert!(end.code == Some(1) && end.log.contains(what) && lines == 1 && !end.log.contains(token), "{end:?}");
    }
    for (args, what) in [
        (&["--github-token-file", "/no/such/file"][..], "cannot read /no/such/file"),
        (&[], "give --github-token-file"),
    ] {
        let end = command(&github, "report", args, &statuses).await;
        assert!(end.code == Some(1) && end.log.contains(what), "{end:?}");
        let end = command(&github, "report", args, &[&statuses[..], &["--in-pipeline"]].concat()).await;
        assert!(end.code == Some(0) && end.log.contains("nothing is reported"), "{end:?}");
    }
    let token = github.token_file().display().to_string();
    for (args, what) in [
        (&["--target-url=javascript:x"][..], "is not a URL"),
        (&["--outcome=maybe"], "write deployed"),
        (&["--commit=abc"], "hexadecimal digits"),
    ] {
        let end = command(
            &github,
            "report",
            &["--github-token-file", &token],
            &[args, &["--state=success"], &statuses[1..]].concat(),
        )
        .await;
        assert!(end.code != Some(0) && end.log.contains(what), "{end:?}");
    }

    // Another host gets no credential.
    let Some(other) = GitHub::start().await else { return };
    let location = format!("{}/repos/acme/web/statuses/{SHA}", other.url());
    github.knowledge().faults.push_back(Fault::Answer(307, vec![("location", location)], json!({})));
    let end = report(&github, "success", &[]).await;
    assert!(end.code == Some(1) && end.log.contains("where no credential is sent"), "{end:?}");
    assert!(other.knowledge().requests.is_empty());
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_makes_nothing_twice() {
    let Some(github) = GitHub::start().await else { return };
    // Look, write the status; look, make the deployment, look, look, write its state: each write's answer is lost.
    use Fault::{Lost, Pass};
    github.knowledge().faults.extend([Pass, Lost, Pass, Pass, Lost, Pass, Pass, Lost]);
    let end = report(&github, "success", &["--environment=production"]).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(github.states(REPOSITORY, SHA), ["success"]);
    assert_eq!(github.knowledge().deployments.len(), 1);
    assert_eq!(github.knowledge().deployment_statuses[&1].len(), 1);
    assert!(github.knowledge().faults.is_empty(), "{end:?}");
    // Several at once settle on one deployment's state at the end.
    github.knowledge().deployments.clear();
    let ends =
        futures_util::future::join_all((0..4).map(|_| report(&github, "pending", &["--environment=test"]))).await;
    assert!(ends.iter().all(|end| matches!(end.code, Some(0 | 3))), "{ends:?}");
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_githubs_are_errors() {
    let Some(github) = GitHub::start().await else { return };
    for answer in [json!([]), json!({"login": "page"}), Value::Null] {
        github.knowledge().faults.push_back(Fault::Answer(200, Vec::new(), answer.clone()));
        let end = report(&github, "success", &[]).await;
        assert!(end.code == Some(1) && end.log.contains("does not answer like GitHub's API"), "{answer}: {end:?}");
    }
    // A server that repeats the credential does not bring it into the log.
    let echo = json!({"message": format!("Bad credentials: Bearer {TOKEN}")});
    for status in [401, 403, 422] {
        github
            .knowledge()
            .faults
            .extend([Fault::Answer(status, Vec::new(), echo.clone()), Fault::Answer(status, Vec::new(), echo.clone())]);
        let end = report(&github, "success", &[]).await;
        assert!(end.code == Some(1) && end.log.contains("Bearer ***"), "{end:?}");
        github.knowledge().faults.clear();
    }
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn report_follows_a_renamed_repository() {
    let Some(github) = GitHub::start().await else { return };
    github.knowledge().renamed.insert(REPOSITORY.to_owned(), "acme/site".to_owned());
    let end = report(&github, "success", &["--environment=production"]).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert_eq!(github.states("acme/site", SHA), ["success"]);
    // An App asks for the token by the repository's number.
    github.knowledge().installed.push("acme/site".to_owned());
    let key = github.key_file().display().to_string();
    let app = ["--github-app-id", APP, "--github-app-key-file", &key];
    let end = command(&github, "token", &app, &[]).await;
    assert!(end.code == Some(0) && end.out.starts_with("ghs_"), "{end:?}");
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_gets_a_token_for_one_repository_and_the_least_permissions() {
    let Some(github) = GitHub::start().await else { return };
    let pkcs8 = github.folder.path().join("app-pkcs8.pem").display().to_string();
    let key = github.key_file().display().to_string();
    let app = |key: &'_ str| {
        ["--github-app-id".to_owned(), APP.to_owned(), "--github-app-key-file".to_owned(), key.to_owned()]
    };
    let (with_key, with_pkcs8) = (app(&key), app(&pkcs8));
    let credential = |args: &'_ [String; 4]| -> [String; 4] { args.clone() };
    let as_app = async |key: &[String; 4], name: &str, args: &[&str]| {
        let owned = credential(key);
        let flags: Vec<&str> = owned.iter().map(String::as_str).collect();
        command(&github, name, &flags, args).await
    };
    let end = as_app(&with_key, "token", &[]).await;
    assert!(end.code == Some(1) && end.log.contains("the App 12345 is not installed on acme/web"), "{end:?}");
    github.knowledge().installed.push(REPOSITORY.to_owned());
    for key in [&with_key, &with_pkcs8] {
        let end = as_app(key, "token", &["--permission=contents:read"]).await;
        let token = end.out.trim().to_owned();
        assert!(end.code == Some(0) && token.starts_with("ghs_"), "{end:?}");
        assert_eq!(github.knowledge().tokens[&token], Some(json!({"contents": "read"})));
    }
    let end = as_app(&with_key, "report", &["--state=success", "--commit", SHA, "--environment=production"]).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    let needed = json!({"statuses": "write", "deployments": "write"});
    assert!(github.knowledge().tokens.values().any(|granted| *granted == Some(needed.clone())));
    let end = as_app(&with_key, "report", &["--state=failure", "--commit", SHA]).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    assert!(github.knowledge().tokens.values().any(|granted| *granted == Some(json!({"statuses": "write"}))));

    // A clock that differs by more than a JWT lasts.
    github.knowledge().clock = -1_800;
    let end = as_app(&with_key, "token", &["--output=json"]).await;
    assert!(end.code == Some(0) && end.log.contains("our clock differs from GitHub's"), "{end:?}");
    // Keys that are none.
    let wrong = github.folder.path().join("wrong.pem").display().to_string();
    fs::write(&wrong, "ssh-rsa AAAA").expect("a file");
    let end = as_app(&app(&wrong), "token", &[]).await;
    assert!(end.code == Some(1) && end.log.contains("is not an App's private key (it is not PEM)"), "{end:?}");
    let end = as_app(&with_key, "token", &["--permission=contents"]).await;
    assert!(end.code == Some(1) && end.log.contains("write NAME:read"), "{end:?}");
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_secret_and_tektons_words_are_enough_in_a_pipeline() {
    let Some(github) = GitHub::start().await else { return };
    github.knowledge().installed.push(REPOSITORY.to_owned());
    let secret = github.folder.path().join("secret");
    fs::create_dir(&secret).expect("a folder");
    let folder = secret.display().to_string();
    let credential = ["--github-credential-dir", &folder];
    let report = async |args: &[&str]| {
        let fixed = ["--in-pipeline", "--commit", SHA, "--target-url=", "--environment-url=", "--outcome="];
        command(&github, "report", &credential, &[&fixed[..], args].concat()).await
    };
    let end = report(&["--state=pending", "--environment=", "--tasks"]).await;
    assert!(end.code == Some(0) && end.log.contains("no credential for GitHub is mounted"), "{end:?}");
    fs::write(secret.join("app-id"), format!("{APP}\n")).expect("a file");
    let end = report(&["--state=pending", "--environment="]).await;
    assert!(
        end.code == Some(0) && end.log.contains("it needs the file `token`, or `app-id` and `private-key`"),
        "{end:?}"
    );
    fs::copy(github.key_file(), secret.join("private-key")).expect("a file");
    for (state, tasks) in [
        ("pending", &[][..]),
        ("Failed", &["build=Succeeded", "deploy=Failed"]),
        ("None", &["build=None", "deploy=None"]),
        ("Completed", &[]),
        ("Completed", &[]),
        ("Completed", &["build=Succeeded", "deploy=None"]),
        ("Completed", &["build=None", "deploy=None"]),
        ("error", &["build=Succeeded", "deploy=None"]),
    ] {
        let state = format!("--state={state}");
        let end = report(&[&[state.as_str(), "--environment=production", "--tasks"], tasks].concat()).await;
        assert_eq!(end.code, Some(0), "{end:?}");
    }
    assert_eq!(
        github.states(REPOSITORY, SHA),
        ["pending", "failure", "error", "success", "success", "success", "error"]
    );
    let statuses = github.knowledge().statuses[&(REPOSITORY.to_owned(), SHA.to_owned())].clone();
    assert_eq!(statuses[1]["description"], "The task deploy failed");
    assert_eq!(statuses[4]["description"], "No changed path needs a build");
    assert_eq!(statuses[5]["description"], "Not built: something newer is deployed");
    assert_eq!(statuses[6]["description"], "Stopped before it was deployed");
    // A credential that GitHub refuses, and a run without a repository: the build goes on.
    fs::write(secret.join("token"), "ghp_revoked").expect("a file");
    let end = report(&["--state=pending"]).await;
    assert!(end.code == Some(0) && end.log.contains("ERROR") && end.log.contains("expired or revoked"), "{end:?}");
    let end =
        run(&["report", "--in-pipeline", "--state=pending", "--repository=", "--commit=", credential[0], &folder])
            .await;
    assert!(end.code == Some(0) && end.log.contains("the run has no repository or no commit"), "{end:?}");
    let end = run(&["token", "--optional", "--repository=", credential[0], &folder]).await;
    assert_eq!(end.code, Some(0), "{end:?}");
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn token_writes_credentials_for_git() {
    let Some(github) = GitHub::start().await else { return };
    github.knowledge().installed.push(REPOSITORY.to_owned());
    let home = github.folder.path().join("home");
    let (folder, key) = (home.display().to_string(), github.key_file().display().to_string());
    let app = ["--github-app-id", APP, "--github-app-key-file", &key];
    for _ in 0..2 {
        let end = command(&github, "token", &app, &["--git-credentials", &folder]).await;
        assert!(end.code == Some(0) && end.out.is_empty(), "{end:?}");
    }
    for name in [".git-credentials", ".gitconfig"] {
        let mode = fs::metadata(home.join(name)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // A person's own files stay.
    let own = github.folder.path().join("own");
    fs::create_dir(&own).expect("a folder");
    fs::write(own.join(".gitconfig"), "[user]\n").expect("a file");
    let end = command(&github, "token", &app, &["--git-credentials", &own.display().to_string()]).await;
    assert!(end.code == Some(1) && end.log.contains("choose another folder"), "{end:?}");
    assert_eq!(fs::read_to_string(own.join(".gitconfig")).expect("a file"), "[user]\n");
    // git itself finds the password, for this host and no other.
    let fill = |host: &str| {
        let ask = format!("printf 'protocol=http\\nhost={host}\\n\\n' | git credential fill");
        let mut git = Command::new("sh");
        git.args(["-c", &ask]).env("HOME", &home).env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "false");
        String::from_utf8_lossy(&git.output().expect("git").stdout).into_owned()
    };
    let found = fill(&github.address.to_string());
    assert!(found.contains("username=x-access-token\n") && found.contains("password=ghs_"), "{found}");
    assert!(!fill("elsewhere.example.com").contains("ghs_"));
    github.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_key_is_written_for_git() {
    let folder = tempfile::tempdir().expect("a folder");
    let (secret, home) = (folder.path().join("secret"), folder.path().join("home"));
    fs::create_dir(&secret).expect("a folder");
    fs::write(secret.join("deploy-key"), "-----BEGIN OPENSSH PRIVATE KEY-----\r\nAAAA\r\n-----END\r\n")
        .expect("a file");
    let args = ["token", "--optional", "--repository", REPOSITORY, "--github-credential-dir"];
    let (secret_dir, home_dir) = (secret.display().to_string(), home.display().to_string());
    let args = [&args[..], &[&secret_dir, "--git-credentials", &home_dir]].concat();
    let end = run(&args).await;
    assert!(end.code == Some(1) && end.log.contains("needs `deploy-key` and `known_hosts`"), "{end:?}");
    fs::write(secret.join("known_hosts"), "github.com ssh-ed25519 AAAA\n").expect("a file");
    let end = run(&args).await;
    assert!(end.code == Some(0) && end.log.contains("git has the deploy key"), "{end:?}");
    let key = home.join(".deploy-key");
    assert_eq!(fs::metadata(&key).expect("the key").permissions().mode() & 0o777, 0o600);
    assert!(!fs::read_to_string(&key).expect("the key").contains('\r'));
    // git fetches an address of https by ssh, with the key.
    let bin = folder.path().join("bin");
    fs::create_dir(&bin).expect("a folder");
    fs::write(bin.join("ssh"), "#!/bin/sh\necho \"$@\" >&2\nexit 1\n").expect("a script");
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).expect("a script");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let mut git = Command::new("git");
    git.args(["ls-remote", "https://github.com/acme/web"]).env("HOME", &home).env("PATH", path);
    let said = String::from_utf8_lossy(&git.output().expect("git").stderr).into_owned();
    assert!(said.contains("git@github.com") && said.contains("acme/web") && said.contains(".deploy-key"), "{said}");
    assert!(said.contains("StrictHostKeyChecking=yes"), "{said}");
    // A run without the annotation gives an empty name, which the key does not need.
    let unnamed: Vec<&str> = args.iter().map(|arg| if *arg == REPOSITORY { "" } else { arg }).collect();
    let end = run(&unnamed).await;
    assert!(end.code == Some(0) && end.log.contains("git has the deploy key"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_goes_on_whatever_its_report_is_given() {
    let Some(github) = GitHub::start().await else { return };
    let (url, token) = (github.url(), github.token_file().display().to_string());
    let fixed = ["report", "--in-pipeline", "--github-api-url", &url, "--github-token-file", &token, "--state=success"];
    for (more, what) in [
        (&["--commit=main", "--repository", REPOSITORY][..], "a commit has 40"),
        (&["--commit", SHA, "--repository=x"], "write OWNER/NAME"),
        (&["--commit", SHA, "--repository", REPOSITORY, "--outcome=weird"], "write deployed"),
        (&[], "required"),
    ] {
        let end = run(&[&fixed[..], more].concat()).await;
        assert!(end.code == Some(0) && end.log.contains(what) && end.log.contains("the build goes on"), "{end:?}");
    }
    // A link that GitHub does not show is left out.
    let end = run(&[&fixed[..], &["--commit", SHA, "--repository", REPOSITORY, "--target-url=notaurl"]].concat()).await;
    assert!(end.code == Some(0) && end.log.contains("reporting without it"), "{end:?}");
    assert_eq!(github.states(REPOSITORY, SHA), ["success"]);
    let end = run(&["report", "--state=success", "--commit=main"]).await;
    assert_eq!(end.code, Some(2), "outside of a pipeline it is an error");
    // A page instead of GitHub's refusal, and a password in the address.
    github.knowledge().faults.push_back(Fault::Answer(404, Vec::new(), Value::Null));
    let end = report(&github, "success", &["--strict"]).await;
    assert!(end.code == Some(1) && end.log.contains("does not answer like GitHub's API"), "{end:?}");
    let args =
        ["report", "--commit", SHA, "--repository", REPOSITORY, "--state=success", "--github-token-file", &token];
    let end = run(&[&args[..], &["--github-api-url=https://user:s3cret@example.com"]].concat()).await;
    assert!(end.code == Some(1) && end.log.contains("must not have a user") && !end.log.contains("s3cret"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn report_says_how_many_users_see_it() {
    let Some(github) = GitHub::start().await else { return };
    let deployed = ["--environment=production", "--outcome=deployed", "--percent"];
    for (percent, state, description, code) in [
        ("100", "success", "Built and deployed", 0),
        ("10", "success", "Built and deployed, 10 % of users see it", 0),
        ("0", "inactive", "Built and deployed, 0 % of users see it", 0),
        ("", "success", "Built and deployed", 0),
        ("$(tasks.deploy.results.percent)", "success", "Built and deployed", 3),
    ] {
        let end = report(&github, "success", &[&deployed[..], &[percent]].concat()).await;
        assert_eq!(end.code, Some(code), "{end:?}");
        let knowledge = github.knowledge();
        let statuses = &knowledge.statuses[&(REPOSITORY.to_owned(), SHA.to_owned())];
        assert_eq!(statuses.last().expect("a status")["description"], description);
        let id = knowledge.deployments.last().expect("a deployment")["id"].as_u64().expect("an id");
        assert_eq!(knowledge.deployment_statuses[&id].last().expect("a state")["state"], state, "{percent}");
    }
    let end = report(&github, "success", &[&deployed[..], &["101"]].concat()).await;
    assert!(end.code == Some(2) && end.log.contains("write a number from 0 to 100"), "{end:?}");
}
