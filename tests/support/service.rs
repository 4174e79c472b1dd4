//! The program under test, started as a user would start it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{HttpClient, Reply};
use super::process;
use super::webhook::{self, SECRET};

/// The program that cargo built for these tests.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_github-trigger");

/// A template that takes every merge.
pub const TEMPLATE: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  generateName: build-
  annotations:
    github-trigger.dev/on-repository: "*/*"
spec:
  pipelineRef:
    name: build
  params:
    - name: revision
      value: {{.Commitid}}
    - name: branch
      value: "{{ target_branch }}"
"#;

/// How to start the program.
pub struct Setup {
    args: Vec<String>,
    env: Vec<(String, String)>,
    folder: TempDir,
}

impl Setup {
    /// With a template and the secret of [`webhook`], in a dry run.
    pub fn dry_run() -> Self {
        Self::with_template(TEMPLATE).arg("--dry-run")
    }

    /// With a template and the secret of [`webhook`], creating runs in the cluster of a kubeconfig.
    pub fn cluster(kubeconfig: &Path) -> Self {
        Self::with_template(TEMPLATE).env("KUBECONFIG", &kubeconfig.display().to_string())
    }

    fn with_template(template: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("templates")).expect("a folder");
        std::fs::create_dir(folder.path().join("secrets")).expect("a folder");
        std::fs::write(folder.path().join("secrets/github"), format!("{SECRET}\n")).expect("a file");
        let setup = Self { args: Vec::new(), env: Vec::new(), folder };
        setup.template(template)
    }

    /// Another template.
    pub fn template(self, template: &str) -> Self {
        std::fs::write(self.templates().join("template.yaml"), template).expect("a file");
        self
    }

    /// One more template file.
    pub fn template_file(self, name: &str, content: &[u8]) -> Self {
        std::fs::write(self.templates().join(name), content).expect("a file");
        self
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The folder of templates.
    pub fn templates(&self) -> PathBuf {
        self.folder.path().join("templates")
    }

    /// The folder of secrets.
    pub fn secrets(&self) -> PathBuf {
        self.folder.path().join("secrets")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .arg("--trigger-config")
            .arg(self.templates())
            .arg("--webhook-secret-file")
            .arg(self.secrets())
            .args(["--port", "0"])
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts the program and waits until it takes deliveries.
    pub fn start(self) -> Service {
        let Started { child, address, log, output } = self.spawn();
        Service { child, address, log, output, setup: self, client: HttpClient::new() }
    }

    fn spawn(&self) -> Started {
        let mut child = self.command().spawn().expect("the program");
        let log = Lines::of(child.stderr.take().expect("stderr"));
        let output = Lines::of(child.stdout.take().expect("stdout"));
        let line = log.wait_for("taking deliveries", Duration::from_secs(20));
        // As text and as JSON.
        let port = line.split("[::]:").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let port = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no address in {line}"));
        Started { child, address: SocketAddr::from(([127, 0, 0, 1], port)), log, output }
    }

    /// Starts the program, which must refuse to; returns its exit code and what it said.
    pub fn refuse(self) -> (Option<i32>, String) {
        let output = self.command().output().expect("the program");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

struct Started {
    child: Child,
    address: SocketAddr,
    log: Lines,
    output: Lines,
}

/// A running program; killed when dropped.
pub struct Service {
    child: Child,
    pub address: SocketAddr,
    pub log: Lines,
    pub output: Lines,
    setup: Setup,
    client: HttpClient,
}

impl Service {
    /// The folder of templates.
    pub fn templates(&self) -> PathBuf {
        self.setup.templates()
    }

    /// The folder of secrets.
    pub fn secrets(&self) -> PathBuf {
        self.setup.secrets()
    }

    /// Starts it again, on another port and with another log; what still runs is killed.
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let Started { child, address, log, output } = self.setup.spawn();
        (self.child, self.address, self.log, self.output) = (child, address, log, output);
    }

    /// Sends one request.
    pub async fn send(&self, method: Method, path: &str, headers: &[(String, String)], body: &[u8]) -> Reply {
        let reply = self.client.send(method, self.address, path, headers, body.to_vec()).await;
        reply.unwrap_or_else(|error| panic!("no answer: {error}\n{}", self.log.text()))
    }

    /// Sends one request and lets it fail.
    pub async fn try_post(&self, headers: &[(String, String)], body: &[u8]) -> Option<Reply> {
        self.client.send(Method::POST, self.address, "/", headers, body.to_vec()).await.ok()
    }

    /// Sends a signed delivery.
    pub async fn deliver(&self, event: &str, delivery: &str, payload: &Value) -> Reply {
        let body = payload.to_string().into_bytes();
        self.send(Method::POST, "/", &webhook::headers(event, delivery, &body), &body).await
    }

    /// Sends a signed merge.
    pub async fn merge(&self, delivery: &str, payload: &Value) -> Reply {
        self.deliver("pull_request", delivery, payload).await
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, e.g. `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill").success());
    }

    /// Waits for the end of the program.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let end = Instant::now() + limit;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// A value of `/proc/<pid>/status` in KiB, e.g. `VmRSS`.
    pub fn memory(&self, field: &str) -> u64 {
        process::memory(self.pid(), field)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program writes, line by line, as it comes.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    /// Collects what a pipe brings until it ends.
    pub fn of(pipe: impl std::io::Read + Send + 'static) -> Self {
        let lines = Self::default();
        let sink = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { return };
                sink.0.lock().expect("the lines").push(line);
            }
        });
        lines
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().expect("the lines").clone()
    }

    pub fn text(&self) -> String {
        self.all().join("\n")
    }

    /// The first line that holds `needle`; waits for it.
    pub fn wait_for(&self, needle: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            if let Some(line) = self.all().into_iter().find(|line| line.contains(needle)) {
                return line;
            }
            assert!(Instant::now() < end, "no line with {needle:?} in\n{}", self.text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
