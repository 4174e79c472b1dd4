//! The program under test, as a child process.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{HttpClient, Reply};
use super::process;
use super::webhook::{self, SECRET};

/// The program that cargo built for these tests.
pub const PROGRAM: &str = match option_env!("CARGO_BIN_EXE_github-trigger") {
    Some(path) => path,
    None => "github-trigger",
};

/// Timeout for an expected log line or another reaction of the program.
pub const LOGGED: Duration = Duration::from_secs(20);

/// A template that matches every merge.
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

/// Arguments, environment and files of the program.
pub struct Setup {
    args: Vec<String>,
    env: Vec<(String, String)>,
    folder: TempDir,
    memory_limit: Option<u64>,
}

impl Setup {
    /// A dry run with [`TEMPLATE`] and the webhook secret [`SECRET`].
    pub fn dry_run() -> Self {
        Self::with_template(TEMPLATE).arg("--dry-run")
    }

    /// Creates runs in the cluster of a kubeconfig, with [`TEMPLATE`] and the webhook secret [`SECRET`].
    pub fn cluster(kubeconfig: &Path) -> Self {
        Self::with_template(TEMPLATE).env("KUBECONFIG", &kubeconfig.display().to_string())
    }

    fn with_template(template: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("templates")).expect("a folder");
        std::fs::create_dir(folder.path().join("secrets")).expect("a folder");
        std::fs::write(folder.path().join("secrets/github"), format!("{SECRET}\n")).expect("a file");
        let setup = Self { args: Vec::new(), env: Vec::new(), folder, memory_limit: None };
        setup.template(template)
    }

    /// Replaces the template.
    pub fn template(self, template: &str) -> Self {
        std::fs::write(self.templates().join("template.yaml"), template).expect("a file");
        self
    }

    /// Adds a template file.
    pub fn template_file(self, name: &str, content: &[u8]) -> Self {
        std::fs::write(self.templates().join(name), content).expect("a file");
        self
    }

    /// Creates runs in the cluster of a kubeconfig instead of printing them.
    pub fn without_dry_run(mut self, kubeconfig: &Path) -> Self {
        self.args.retain(|arg| arg != "--dry-run");
        self.env("KUBECONFIG", &kubeconfig.display().to_string())
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    pub fn args(self, args: &[&str]) -> Self {
        args.iter().fold(self, |setup, arg| setup.arg(arg))
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Limits the program's memory to `kib` KiB, as a container does: it is ended when it needs more.
    pub fn memory_limit(mut self, kib: u64) -> Self {
        self.memory_limit = Some(kib);
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
        let mut command = match self.memory_limit {
            None => Command::new(PROGRAM),
            Some(kib) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("ulimit -d {kib} && exec \"$0\" \"$@\""), PROGRAM]);
                shell
            }
        };
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

    /// Starts the program and waits until it accepts deliveries, 20 s at most.
    pub fn start(self) -> Service {
        let Started { child, address, log, output } = self.spawn();
        Service { child, address, log, output, setup: self, client: HttpClient::new() }
    }

    fn spawn(&self) -> Started {
        let mut child = self.command().spawn().expect("the program");
        let log = Lines::of(child.stderr.take().expect("stderr"));
        let output = Lines::of(child.stdout.take().expect("stdout"));
        let line = log.wait_for("taking deliveries", Duration::from_secs(20));
        // Works for text and JSON logs.
        let port = line.split("[::]:").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        let port = port.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no address in {line}"));
        Started { child, address: SocketAddr::from(([127, 0, 0, 1], port)), log, output }
    }

    /// Starts the program, which is expected to exit, and returns its exit code and stderr.
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

    /// Kills the program if it runs, and starts it again: on another port, with a new log.
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let Started { child, address, log, output } = self.setup.spawn();
        (self.child, self.address, self.log, self.output) = (child, address, log, output);
    }

    /// Sends one request. Panics if there is no answer.
    pub async fn send(&self, method: Method, path: &str, headers: &[(String, String)], body: &[u8]) -> Reply {
        let reply = self.client.send(method, self.address, path, headers, body.to_vec()).await;
        reply.unwrap_or_else(|error| panic!("no answer: {error:?}\n{}", self.log.text()))
    }

    /// Sends one POST to `/`. Returns `None` if there is no answer.
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

    /// Waits until the program exits. Returns `None` if it does not within `limit`.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        process::eventually(limit, || self.child.try_wait().expect("a status"))
    }

    /// All log lines until now. The log is written asynchronously but in order: this sends a ping and waits for its
    /// line, after which all earlier lines are there.
    pub async fn logged(&self) -> Vec<String> {
        static PINGS: AtomicU32 = AtomicU32::new(0);
        let id = format!("logged-{}", PINGS.fetch_add(1, Ordering::Relaxed));
        self.deliver("ping", &id, &json!({"zen": "Keep it logically awesome."})).await;
        self.log.wait_for(&format!("delivery={id}"), LOGGED);
        self.log.all()
    }

    /// Processor time of all threads until now.
    pub fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 10)
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

/// The lines that a program writes to a pipe. Each read includes everything that is in the pipe at that time.
#[derive(Clone)]
pub struct Lines(Arc<Mutex<Reader>>);

struct Reader {
    pipe: File,
    lines: Vec<String>,
    /// An incomplete last line.
    rest: Vec<u8>,
}

impl Reader {
    /// Reads everything that is in the pipe now, without blocking. Returns `false` at the end of the pipe.
    fn drain(&mut self) -> bool {
        let mut chunk = vec![0; 64 << 10];
        while is_readable(&self.pipe, Some(Duration::ZERO)) {
            match self.pipe.read(&mut chunk) {
                Ok(0) | Err(_) => return false,
                Ok(count) => self.rest.extend_from_slice(&chunk[..count]),
            }
            while let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
            }
        }
        true
    }
}

/// Waits until the pipe has data or is closed, `limit` at most (`None`: no limit). Returns `false` at the limit.
fn is_readable(pipe: &File, limit: Option<Duration>) -> bool {
    let limit = limit.map(|limit| limit.try_into().expect("a short time"));
    let mut polled = [PollFd::new(pipe, PollFlags::IN)];
    poll(&mut polled, limit.as_ref()).is_ok_and(|ready| ready > 0)
}

impl Lines {
    /// Collects the lines of a pipe in the background, until its end.
    pub fn of(pipe: impl Into<OwnedFd>) -> Self {
        let pipe = File::from(pipe.into());
        let other = pipe.try_clone().expect("a descriptor");
        let lines = Self(Arc::new(Mutex::new(Reader { pipe, lines: Vec::new(), rest: Vec::new() })));
        let reader = lines.clone();
        // Drain it always: a full pipe would block the program.
        std::thread::spawn(move || {
            while is_readable(&other, None) {
                if !reader.0.lock().expect("the lines").drain() {
                    return;
                }
            }
        });
        lines
    }

    /// All complete lines until now.
    pub fn all(&self) -> Vec<String> {
        let mut reader = self.0.lock().expect("the lines");
        reader.drain();
        reader.lines.clone()
    }

    pub fn text(&self) -> String {
        self.all().join("\n")
    }

    /// Waits for a line that contains `needle` and returns the first one. Panics if there is none within `limit`.
    pub fn wait_for(&self, needle: &str, limit: Duration) -> String {
        let found = || self.all().into_iter().find(|line| line.contains(needle));
        process::eventually(limit, found).unwrap_or_else(|| panic!("no line with {needle:?} in\n{}", self.text()))
    }
}
