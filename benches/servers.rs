//! The measured servers, each in its own process.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;

use crate::program;
use crate::support::go::{say, target_folder};
use crate::support::process::{free_ports, memory};
use crate::support::service::TEMPLATE;
use crate::support::webhook::SECRET;

/// Poll interval while connecting.
const PAUSE: Duration = Duration::from_micros(50);

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    folder: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        drop(self.folder.take());
    }
}

impl Server {
    pub fn new(child: Child, port: u16, folder: Option<TempDir>) -> Self {
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)), folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the server accepts connections, and returns the first one.
    pub fn connect(&self) -> TcpStream {
        loop {
            match TcpStream::connect(self.address) {
                Ok(stream) => return stream,
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Pins the server to the second core.
    pub fn pinned(self) -> Self {
        drop(self.connect());
        pin(self.pid(), "1");
        self
    }

    /// A value of `/proc/<pid>/status` in MiB, e.g. `VmRSS`.
    pub fn memory(&self, field: &str) -> f64 {
        let kib = u32::try_from(memory(self.pid(), field)).expect("a size");
        f64::from(kib) / 1024.0
    }
}

/// Settings of the service.
pub struct Service<'a> {
    pub templates: &'a str,
    /// Number of teams, each with these templates; only the last one has the webhook secret [`SECRET`]. 0: no teams.
    pub teams: usize,
    /// Cluster in which to create runs. `None`: dry run.
    pub kubeconfig: Option<&'a Path>,
}

impl Default for Service<'_> {
    fn default() -> Self {
        Self { templates: TEMPLATE, teams: 0, kubeconfig: None }
    }
}

impl Service<'_> {
    /// Writes the templates to a new folder, which will also contain the log.
    pub fn prepare(&self) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |file: &str, content: &str| {
            let file = folder.path().join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, content).expect("a file");
        };
        if self.teams == 0 {
            write("config/templates.yaml", self.templates);
        }
        for index in 0..self.teams {
            let others = format!("the secret of team {index}");
            let secret = if index + 1 == self.teams { SECRET } else { &others };
            write(&format!("config/team-{index}/templates.yaml"), self.templates);
            write(&format!("secrets/team-{index}/github"), secret);
        }
        folder
    }

    /// Starts the service with a prepared folder. Its log goes to a file, as in a container.
    pub fn spawn(&self, folder: TempDir) -> Server {
        let [port] = free_ports();
        let log = File::create(folder.path().join("log")).expect("a file");
        let mut command = Command::new(program());
        command.env_clear();
        match self.teams {
            0 => command.env("WEBHOOK_SECRET", SECRET),
            _ => command.arg("--webhook-secret-file").arg(folder.path().join("secrets")),
        };
        command.args(["--port", &port.to_string(), "--trigger-config"]).arg(folder.path().join("config"));
        match self.kubeconfig {
            Some(path) => command.env("KUBECONFIG", path),
            None => command.arg("--dry-run"),
        };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("the program");
        Server::new(child, port, Some(folder))
    }

    pub fn start(&self) -> Server {
        self.spawn(self.prepare())
    }
}

/// Path of the bare axum servers' program, which is built once.
pub fn baseline() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let version = Command::new("rustc").arg("-vV").output().expect("rustc").stdout;
        let version = String::from_utf8_lossy(&version).into_owned();
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
        let folder = target_folder().join("baseline");
        let program = folder.join(host).join("release/baseline");
        if !program.is_file() {
            say("building the bare axum servers; this is done once and takes about a minute");
        }
        let status = Command::new("cargo")
            .args(["build", "--release", "--locked", "--quiet", "--target", host, "--target-dir"])
            .arg(&folder)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/baseline"))
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .status();
        assert!(status.expect("cargo").success(), "the bare axum servers do not build");
        program
    })
}

/// Starts the bare axum servers with one worker thread.
pub fn bare() -> Server {
    let [port] = free_ports();
    let child = Command::new(baseline())
        .args([&port.to_string(), SECRET])
        .env("TOKIO_WORKER_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("a server");
    Server::new(child, port, None)
}

/// Pins this process to the first core while held, and to all cores afterwards.
pub struct OnFirstCore;

impl OnFirstCore {
    pub fn begin() -> Self {
        pin(std::process::id(), "0");
        Self
    }
}

impl Drop for OnFirstCore {
    fn drop(&mut self) {
        let last = std::thread::available_parallelism().map_or(1, usize::from).max(2) - 1;
        pin(std::process::id(), &format!("0-{last}"));
    }
}

/// Pins all threads of a process to `cores`, if `taskset` is installed.
fn pin(process: u32, cores: &str) {
    let _ = Command::new("taskset").args(["-a", "-c", "-p", cores, &process.to_string()]).output();
}
