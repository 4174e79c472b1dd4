//! The project on the cluster, installed with the commands of docs/first-release.md.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use http::Method;
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::harness::assets::{self, run};
use crate::harness::names::{DOMAIN, OWN_REGISTRY, PUBLIC, REGISTRY_LOGIN};
use crate::support::go::say;
use crate::support::http::{HttpClient, Reply};
use crate::support::service::PROGRAM;
use crate::support::webhook::{headers_signed_with, merged, now};

/// The page.
const PAGE: &str = include_str!("../../docs/first-release.md");
/// Namespace of the service and its runs.
pub const NAMESPACE: &str = "github-trigger";
/// The repository of the sample application.
pub const REPOSITORY: &str = "acme/hello-sample";
/// A build of the sample application, from nothing, on a busy machine.
const RUN_TIMEOUT: Duration = Duration::from_secs(900);

/// The installed project.
pub struct Product {
    /// The webhook's secret.
    pub secret: String,
    /// Host name of the service.
    pub host: String,
    /// The copy of the project that the page's commands were run in.
    pub checkout: PathBuf,
    sample: Repository,
    client: HttpClient,
}

/// A repository in the git server.
pub struct Repository {
    name: &'static str,
    /// A working copy.
    pub copy: PathBuf,
}

/// A merge in the git server, and its webhook.
pub struct Merge {
    pub commit: String,
    pub payload: Value,
}

/// A run at its end.
pub struct Run {
    pub name: String,
    pub object: Value,
}

impl Product {
    /// Follows the page up to the merge.
    pub fn install(cluster: &Cluster) -> Self {
        let home = cluster.folders.run.join("user");
        let checkout = home.join("github-trigger");
        fs::create_dir_all(&checkout).expect("a folder");
        let copy =
            "cp -r Cargo.toml Cargo.lock rust-toolchain.toml Dockerfile .dockerignore src config examples service.yaml";
        run(Command::new("sh")
            .args(["-c", &format!("{copy} \"$1\"/"), "sh"])
            .arg(&checkout)
            .current_dir(env!("CARGO_MANIFEST_DIR")))
        .expect("a copy of the project");
        let script = commands().replace("YOUR-REGISTRY", OWN_REGISTRY);
        add_target_url(&checkout.join("config/base/deployer-trigger.yaml"));
        say("cluster: following docs/first-release.md: images, pipeline, service");
        let tools = write_tools(&home);
        let mut bash = cluster.command("bash");
        let path = std::env::var("PATH").unwrap_or_default();
        let kubectl = &cluster.folders.assets.control_plane;
        let output = bash
            .args(["-euo", "pipefail", "-c", &script])
            .env("PATH", format!("{}:{}:/usr/sbin:/usr/bin:/sbin:/bin:{path}", tools.display(), kubectl.display()))
            .env("HOME", &home)
            // Layers of earlier builds stay, as they would at a developer's.
            .env("CONTAINERS", assets::folder().join("containers"))
            .env("REGISTRY_AUTH_FILE", home.join("registries.json"))
            .current_dir(&checkout)
            .stdin(Stdio::null())
            .output()
            .expect("bash");
        let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        assert!(output.status.success(), "the page's commands fail:\n{stdout}\n{stderr}");
        // The last commands print the service's URL and the secret.
        let mut lines = stdout.lines().rev();
        let secret = lines.next().expect("the secret").to_owned();
        let url = lines.next().expect("the URL");
        let host = url.strip_prefix("http://").unwrap_or_else(|| panic!("no URL: {url}")).to_owned();
        let sample = Repository::create(cluster, REPOSITORY, &checkout.join("examples/hello-sample"));
        Self { secret, host, checkout, sample, client: HttpClient::new() }
    }

    /// Commits a version of the sample application whose page greets `version`, and pushes it.
    pub fn merge(&self, number: u64, version: &str) -> Merge {
        self.merge_with(number, version, &format!("ENV TARGET={version} FAIL_PERCENT=0"))
    }

    /// Merges a Dockerfile that cannot be built: its image has no shell.
    pub fn merge_broken(&self, number: u64) -> Merge {
        self.merge_with(number, "broken", "RUN false")
    }

    fn merge_with(&self, number: u64, title: &str, last_line: &str) -> Merge {
        let dockerfile = self.sample.copy.join("Dockerfile");
        let text = fs::read_to_string(&dockerfile).expect("the Dockerfile");
        let ours = ["ENV TARGET=", "RUN false"];
        let lines = text.lines().filter(|line| !ours.iter().any(|begin| line.starts_with(begin)));
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        fs::write(&dockerfile, format!("{text}{last_line}\n")).expect("the Dockerfile");
        self.sample.merge(number, title)
    }

    /// Posts a delivery to the service through the ingress, signed as GitHub does.
    pub async fn deliver(&self, event: &str, payload: &Value) -> Reply {
        deliver(&self.client, &self.host, &self.secret, event, payload).await.expect("an answer")
    }

    /// Waits for the end of the run that an answer names.
    pub fn wait_for_run(&self, cluster: &Cluster, reply: &Reply) -> Run {
        let name = reply.json()["pipelineRuns"][0]["name"].as_str().expect("a run").to_owned();
        let timeout = format!("--timeout={}s", RUN_TIMEOUT.as_secs());
        let condition = "--for=jsonpath={.status.completionTime}";
        cluster.kubectl(&["wait", "-n", NAMESPACE, condition, &timeout, &format!("pipelinerun/{name}")]);
        let object = cluster.json(&["get", "pipelinerun", &name, "-n", NAMESPACE]);
        Run { name, object }
    }
}

/// Applies an overlay of `config/` in a namespace of its own, where its runs find no Pipeline and end at once, and
/// waits for the service. Returns its webhook secret and host name.
pub fn install_copy(cluster: &Cluster, namespace: &str, overlay: &str) -> (String, String) {
    let secret = format!("{:032x}", fastrand::u128(..));
    cluster.kubectl(&["create", "namespace", namespace]);
    create_pull_secret(cluster, namespace, &["github-trigger", "default"]);
    let in_namespace = |args: &[&str]| cluster.kubectl(&[&["-n", namespace], args].concat());
    let from = format!("--from-literal=github={secret}");
    in_namespace(&["create", "secret", "generic", "github-trigger-webhook", &from]);
    let folder = cluster.folders.run.join("copies").join(namespace);
    fs::create_dir_all(&folder).expect("a folder");
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let relative =
        format!("{}{}", "../".repeat(folder.components().count()), base.display().to_string().trim_start_matches('/'));
    // kustomize leaves the namespace of a RoleBinding's subject as it is.
    let subject = json!([{"op": "replace", "path": "/subjects/0/namespace", "value": namespace}]).to_string();
    let kustomization = json!({
        "namespace": namespace, "resources": [format!("{relative}/{overlay}")],
        "patches": [{"target": {"kind": "RoleBinding"}, "patch": subject}],
    })
    .to_string();
    fs::write(folder.join("kustomization.yaml"), kustomization).expect("a file");
    in_namespace(&["apply", "-k", &folder.display().to_string()]);
    in_namespace(&["wait", "ksvc", "github-trigger", "--for=condition=Ready", "--timeout=120s"]);
    let host = format!("github-trigger.{namespace}.{DOMAIN}");
    (secret, host)
}

/// Lets the pods of accounts pull from the project's registry. Accounts that do not exist are created.
pub fn create_pull_secret(cluster: &Cluster, namespace: &str, accounts: &[&str]) {
    let (user, password) = REGISTRY_LOGIN;
    let login = [
        format!("--docker-server={OWN_REGISTRY}"),
        format!("--docker-username={user}"),
        format!("--docker-password={password}"),
    ];
    let login: Vec<&str> = login.iter().map(String::as_str).collect();
    cluster.kubectl(&[&["-n", namespace, "create", "secret", "docker-registry", "pull"], login.as_slice()].concat());
    for account in accounts {
        let _ = cluster.try_kubectl(&["-n", namespace, "create", "serviceaccount", account]);
        let pull = r#"{"imagePullSecrets":[{"name":"pull"}]}"#;
        cluster.kubectl(&["-n", namespace, "patch", "serviceaccount", account, "-p", pull]);
    }
}

/// The names of a namespace's runs.
pub fn runs(cluster: &Cluster, namespace: &str) -> BTreeSet<String> {
    let names = "jsonpath={.items[*].metadata.name}";
    let names = cluster.kubectl(&["get", "pipelineruns", "-n", namespace, "-o", names]);
    names.split_whitespace().map(str::to_owned).collect()
}

/// The seconds between two of Kubernetes' times, which are whole seconds; 0 if one is missing.
pub fn seconds(from: &Value, to: &Value) -> f64 {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time(from).zip(time(to)).map_or(0.0, |(from, to)| to.duration_since(from).as_secs_f64())
}

/// Envoy's public listener.
pub fn ingress() -> SocketAddr {
    SocketAddr::new(PUBLIC, 80)
}

/// Posts a delivery to a service through the ingress, signed as GitHub does.
///
/// # Errors
/// If there is no complete answer.
pub async fn deliver(
    client: &HttpClient,
    host: &str,
    secret: &str,
    event: &str,
    payload: &Value,
) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
    deliver_text(client, host, secret, event, payload.to_string()).await
}

/// Like [`deliver`], with any text as its body.
///
/// # Errors
/// If there is no complete answer.
pub async fn deliver_text(
    client: &HttpClient,
    host: &str,
    secret: &str,
    event: &str,
    body: String,
) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
    let headers = signed(host, secret, event, &body);
    client.send(Method::POST, ingress(), "/", &headers, body).await
}

/// The headers of a delivery to a host, signed as GitHub does.
pub fn signed(host: &str, secret: &str, event: &str, body: &str) -> Vec<(String, String)> {
    let delivery = format!("{:032x}", fastrand::u128(..));
    let mut headers = headers_signed_with(secret, event, &delivery, body.as_bytes());
    headers.push(("host".to_owned(), host.to_owned()));
    headers
}

/// Takes the right to create runs from the service in a namespace, or gives it back, and waits until that has an effect.
pub fn allow(cluster: &Cluster, namespace: &str, allowed: bool) {
    let verb = if allowed { "create" } else { "get" };
    let patch = format!(r#"[{{"op":"replace","path":"/rules/0/verbs","value":["{verb}"]}}]"#);
    cluster.kubectl(&["patch", "role", "github-trigger", "-n", namespace, "--type=json", "-p", &patch]);
    let user = format!("--as=system:serviceaccount:{namespace}:github-trigger");
    let question = ["auth", "can-i", "create", "pipelineruns.tekton.dev", "-n", namespace, &user];
    cluster.wait_for("the changed right", || cluster.try_kubectl(&question).status.success() == allowed);
}

/// Requests a path of a Knative Service through the ingress.
pub async fn get(client: &HttpClient, host: &str, path: &str) -> Reply {
    let headers = [("host".to_owned(), host.to_owned())];
    client.send(Method::GET, ingress(), path, &headers, "").await.expect("an answer")
}

/// Links GitHub's status to the run, as docs/github.md says.
fn add_target_url(template: &Path) {
    let url = "    - name: target-url\n      value: https://tekton.example.com/#/$(context.pipelineRun.name)\n";
    let text = fs::read_to_string(template).expect("the template");
    fs::write(template, text.replace("  params:\n", &format!("  params:\n{url}"))).expect("the template");
}

/// The page's commands before its step 6, where a person merges.
fn commands() -> String {
    let steps = PAGE.split("\n## 6.").next().expect("steps");
    steps.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).collect()
}

/// Writes what the page takes for granted: a builder called `docker` that is logged in, and the program.
fn write_tools(home: &Path) -> PathBuf {
    let folder = home.join("bin");
    fs::create_dir_all(&folder).expect("a folder");
    // docker's own words go on; Buildah needs to be told where it is.
    let docker = "#!/bin/sh\ncommand=$1; shift\n[ \"$command\" != build ] || set -- --isolation=chroot --layers \"$@\"\n\
                  exec buildah --root \"$CONTAINERS\" --runroot /run/containers --storage-driver=overlay \"$command\" \"$@\"\n";
    fs::write(folder.join("docker"), docker).expect("a script");
    run(Command::new("chmod").arg("0755").arg(folder.join("docker"))).expect("a script");
    let program = folder.join("github-trigger");
    std::os::unix::fs::symlink(PROGRAM, program).expect("a link");
    let login = BASE64_STANDARD.encode(format!("{}:{}", REGISTRY_LOGIN.0, REGISTRY_LOGIN.1));
    let logins = json!({"auths": {OWN_REGISTRY: {"auth": login}}});
    fs::write(home.join("registries.json"), logins.to_string()).expect("a file");
    folder
}

impl Repository {
    /// Makes a repository of a folder, which becomes its working copy.
    pub fn create(cluster: &Cluster, name: &'static str, folder: &Path) -> Self {
        let bare = cluster.folders.run.join("git").join(format!("{name}.git"));
        fs::create_dir_all(&bare).expect("a folder");
        git(&bare, &["init", "--quiet", "--bare", "--initial-branch=main"]);
        git(folder, &["init", "--quiet", "--initial-branch=main"]);
        for (key, value) in [("user.name", "tests"), ("user.email", "tests@example.com")] {
            git(folder, &["config", key, value]);
        }
        git(folder, &["add", "."]);
        git(folder, &["commit", "--quiet", "--message", "first"]);
        git(folder, &["remote", "add", "origin", &bare.display().to_string()]);
        Self { name, copy: folder.to_owned() }
    }

    /// Commits the changed files and pushes them, as a pull request that is merged now.
    pub fn merge(&self, number: u64, title: &str) -> Merge {
        git(&self.copy, &["commit", "--quiet", "--all", "--message", title]);
        git(&self.copy, &["push", "--quiet", "origin", "HEAD:main"]);
        let commit = git(&self.copy, &["rev-parse", "HEAD"]);
        let mut payload = merged(self.name, number, &commit);
        payload["pull_request"]["merged_at"] = now().into();
        Merge { commit, payload }
    }
}

fn git(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new("git");
    let output = command.args(args).current_dir(folder).env("HOME", "/root").output().expect("git");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {}: {errors}", args.join(" "));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
