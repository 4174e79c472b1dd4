//! A real Gitea, built from its own Go module: it has a part of GitHub's API, and its webhooks are like GitHub's.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::control_plane::assets;
use super::go::{self, say, target_folder};
use super::http::{HttpClient, Reply};
use super::process::{Guarded, free_ports};

/// The module, its version and its checksum. 1.27 needs modules that Go's proxy does not give out.
const MODULE: &str = "code.gitea.io/gitea@v1.26.0";
const SUM: &str = "h1:fJP9dqLbzKrKWUVnCVTfVersZdVDuyJQLEDzCAOmKKA=";
const USER: &str = "mona";
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running Gitea with one user; it ends with the test.
pub struct Gitea {
    pub address: SocketAddr,
    /// The user's access token.
    pub token: String,
    pub folder: tempfile::TempDir,
    client: HttpClient,
    _process: Guarded,
}

/// The program and the folder with its templates, built once.
fn program() -> Result<(PathBuf, PathBuf), String> {
    let folder = target_folder().join("gitea").join(MODULE.rsplit('@').next().unwrap_or_default());
    let (source, finished) = (folder.join("source"), folder.join("gitea"));
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let _lock = go::lock(&folder)?;
    if finished.exists() {
        return Ok((finished, source));
    }
    let output = Command::new("go")
        .args(["mod", "download", "-json", MODULE])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("go: {error}"))?;
    let module: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("go mod: {error}"))?;
    if module["Sum"] != SUM {
        return Err(format!("{MODULE} has another checksum: {module}"));
    }
    // It has `replace` lines, which count only in a main module.
    let _ = fs::remove_dir_all(&source);
    let dir = module["Dir"].as_str().unwrap_or_default();
    let copied = Command::new("cp").args(["-r", "--no-preserve=mode", dir]).arg(&source).status();
    copied
        .map_err(|error| error.to_string())
        .and_then(|status| if status.success() { Ok(()) } else { Err("cp".to_owned()) })?;
    let started = Instant::now();
    say("building gitea; this is done once and takes some minutes");
    let unfinished = folder.join("gitea.part");
    let status = Command::new("go")
        .args(["build", "-ldflags=-s -w", "-tags=sqlite sqlite_unlock_notify", "-o"])
        .arg(&unfinished)
        .current_dir(&source)
        // SQLite is written in C.
        .env("CGO_ENABLED", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("go: {error}"))?;
    if !status.success() {
        return Err("the build of gitea failed, see above".to_owned());
    }
    fs::rename(&unfinished, &finished).map_err(|error| error.to_string())?;
    say(&format!("built gitea in {} s", started.elapsed().as_secs()));
    Ok((finished, source))
}

impl Gitea {
    /// Starts one. `None`, with a line that says so, where the tests with Go are left out.
    pub async fn start() -> Option<Self> {
        assets()?;
        let (program, source) = program().unwrap_or_else(|why| panic!("gitea: {why}"));
        let folder = tempfile::tempdir().expect("a folder");
        let [port] = free_ports();
        let work = folder.path().display().to_string();
        let config = folder.path().join("app.ini");
        fs::write(&config, settings(&work, &source, port)).expect("a file");
        let gitea = |args: &[&str]| {
            let output = Command::new(&program).args(args).arg("--config").arg(&config).env("HOME", &work).output();
            let output = output.expect("gitea");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "gitea {}: {errors}", args.join(" "));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        gitea(&["migrate"]);
        let password = ["--password", "s3cret-s3cret", "--email", "mona@example.com"];
        let create = ["admin", "user", "create", "--username", USER, "--admin", "--must-change-password=false"];
        gitea(&[&create[..], &password[..]].concat());
        let token = gitea(&["admin", "user", "generate-access-token", "--username", USER, "--scopes", "all", "--raw"]);
        let token = token.lines().last().unwrap_or_default().trim().to_owned();
        let command = ["env".to_owned(), format!("HOME={work}"), program.display().to_string(), "web".to_owned()];
        let command = [&command[..], &["--config".to_owned(), config.display().to_string()]].concat();
        let process = Guarded::spawn(&command, &folder.path().join("log"));
        fs::write(folder.path().join("token"), &token).expect("a file");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let gitea = Self { address, token, folder, client: HttpClient::new(), _process: process };
        let until = Instant::now() + START_TIMEOUT;
        while gitea.try_call(Method::GET, "/version", &Value::Null).await.is_none_or(|reply| reply.status != 200) {
            let log = || fs::read_to_string(gitea.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "Gitea does not answer:\n{}", log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Some(gitea)
    }

    /// Address of the API.
    pub fn api(&self) -> String {
        format!("http://{}/api/v1", self.address)
    }

    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    async fn try_call(&self, method: Method, path: &str, body: &Value) -> Option<Reply> {
        let headers =
            [("authorization", format!("token {}", self.token)), ("content-type", "application/json".to_owned())]
                .map(|(name, value)| (name.to_owned(), value));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.client.send(method, self.address, &format!("/api/v1{path}"), &headers, body).await.ok()
    }

    /// Calls the API, which must succeed.
    pub async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let reply = self.try_call(method.clone(), path, body).await.expect("an answer");
        assert!(reply.status.is_success(), "{method} {path}: {} {}", reply.status, reply.body);
        serde_json::from_str(&reply.body).unwrap_or_default()
    }

    /// Makes a repository with one commit. Returns its name.
    pub async fn repository(&self, name: &str, is_private: bool) -> String {
        let body = json!({"name": name, "private": is_private, "auto_init": true, "default_branch": "main"});
        self.call(Method::POST, "/user/repos", &body).await;
        format!("{USER}/{name}")
    }

    /// Merges a pull request with one new file. Returns its number and the merge commit.
    pub async fn merge(&self, repository: &str, file: &str) -> (u64, String) {
        let body = json!({"content": "aGVsbG8K", "message": file, "branch": "main", "new_branch": file});
        self.call(Method::POST, &format!("/repos/{repository}/contents/{file}"), &body).await;
        let body = json!({"base": "main", "head": file, "title": file});
        let pull = self.call(Method::POST, &format!("/repos/{repository}/pulls"), &body).await;
        let number = pull["number"].as_u64().expect("a number");
        let path = format!("/repos/{repository}/pulls/{number}");
        // Whether it can be merged is found out in the background.
        let until = Instant::now() + START_TIMEOUT;
        while self.call(Method::GET, &path, &Value::Null).await["mergeable"] != true {
            assert!(Instant::now() < until, "the pull request cannot be merged");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.call(Method::POST, &format!("{path}/merge"), &json!({"Do": "merge"})).await;
        let merged = self.call(Method::GET, &path, &Value::Null).await;
        (number, merged["merge_commit_sha"].as_str().expect("a commit").to_owned())
    }
}

fn settings(work: &str, source: &Path, port: u16) -> String {
    let user = Command::new("id").arg("-un").output().expect("id").stdout;
    format!(
        "APP_NAME = tests\nRUN_USER = {user}\nI_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true\nWORK_PATH = {work}\n\
         [server]\nSTATIC_ROOT_PATH = {source}\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = {port}\nROOT_URL = http://127.0.0.1:{port}/\n\
         OFFLINE_MODE = true\nDISABLE_SSH = true\n\
         [database]\nDB_TYPE = sqlite3\nPATH = {work}/gitea.db\n\
         [security]\nINSTALL_LOCK = true\nSECRET_KEY = {key}\n\
         [webhook]\nALLOWED_HOST_LIST = loopback\n\
         [actions]\nENABLED = false\n[indexer]\nREPO_INDEXER_ENABLED = false\n[mailer]\nENABLED = false\n\
         [log]\nMODE = console\nLEVEL = Warn\n",
        user = String::from_utf8_lossy(&user).trim(),
        source = source.display(),
        key = "0123456789abcdef".repeat(4),
    )
}
