//! Namespaces of the cluster, and its root filesystem.
//!
//! The process that cargo starts ("outside") prepares the assets and runs the same program again ("inside") with
//! network, mount, PID, IPC and UTS namespaces of its own. The one inside replaces its root by an overlay of a Debian
//! filesystem. When it ends, the kernel ends every process of the PID namespace and drops every mount and interface. It
//! ends when its standard input does, which the one outside holds: so nothing survives, however either of them ends.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::assets::{self, Assets, run};
use super::gateway;
use crate::support::github::description;
use crate::support::go;

/// Tells the process inside where everything is.
const INSIDE: &str = "GITHUB_TRIGGER_CLUSTER";
/// Short names of images are those of Docker Hub.
pub const REGISTRIES_CONF: &str = "unqualified-search-registries = [\"docker.io\"]\n";
/// The folders of a running cluster. They have the same paths outside and inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Folders {
    pub assets: Assets,
    /// State, logs and credentials; removed at the next start.
    pub run: PathBuf,
    /// Sockets of the [`gateway`], with a short path.
    pub sockets: PathBuf,
}

/// Returns the folders if this process is the one inside, after it has entered its root filesystem.
pub fn inside() -> Option<Folders> {
    let folders: Folders = serde_json::from_str(&std::env::var(INSIDE).ok()?).expect("the folders");
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    enter(&folders);
    Some(folders)
}

/// Prepares everything, runs this program again inside with the same arguments, and returns its exit code.
///
/// Ports of `forwards` on loopback lead to addresses inside.
///
/// # Errors
/// If this machine cannot run the cluster.
pub fn outside(forwards: &[gateway::Forward]) -> Result<ExitCode, String> {
    requirements()?;
    start(Assets::prepare()?, forwards)
}

fn start(assets: Assets, forwards: &[gateway::Forward]) -> Result<ExitCode, String> {
    // Inside there is no npm.
    description::fetch()?;
    let home = assets::folder();
    let _lock = go::lock(&home)?;
    // The control groups of two kubelets would have the same names.
    let no_pods = "! find /sys/fs/cgroup -path '*/kubepods*' -name cgroup.procs -exec cat {} + 2>/dev/null | grep -q .";
    run(Command::new("sh").args(["-c", no_pods])).map_err(|_| "another kubelet has pods on this machine".to_owned())?;
    let run_folder = home.join("run");
    remove_cgroups();
    let _ = fs::remove_dir_all(&run_folder);
    fs::create_dir_all(&run_folder).expect("a folder");
    let sockets = tempfile::tempdir().expect("a folder");
    gateway::serve_outside(sockets.path(), forwards);
    let folders = Folders { assets, run: run_folder.clone(), sockets: sockets.path().to_owned() };
    // The shell is process 1 of the PID namespace, and reaps orphaned processes.
    let mut child = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", r#"exec 3<&0; "$@" <&3 3<&- & wait $!"#, "sh"])
        .arg(std::env::current_exe().expect("this program"))
        .args(std::env::args_os().skip(1))
        .env(INSIDE, serde_json::to_string(&folders).expect("JSON"))
        .stdin(Stdio::piped())
        .spawn()
        .expect("unshare");
    // `wait` would close it.
    let _held = child.stdin.take();
    let status = child.wait().expect("the end of the cluster");
    remove_cgroups();
    // Several gigabytes of images and build steps; the logs stay.
    let _ = fs::remove_dir_all(run_folder.join("containerd"));
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)))
}

/// Whether this machine can run the cluster.
fn requirements() -> Result<(), String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("it needs Linux on x86-64".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Err("it needs root".to_owned());
    }
    for (program, argument) in [("go", "version"), ("apt-get", "--version"), ("python3", "--version")] {
        run(Command::new(program).arg(argument)).map_err(|_| format!("it needs {program}"))?;
    }
    run(Command::new("unshare").args(["--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "true"]))
        .map_err(|error| format!("it needs the right to make namespaces: {error}"))
}

/// Replaces the root filesystem of this process.
fn enter(folders: &Folders) {
    const SCRIPT: &str = r#"
        set -e
        root=$1 run=$2 sockets=$3 home=$4 project=$5
        mkdir -p "$run/root/new" "$run/root/upper" "$run/root/work"
        new="$run/root/new"
        mount -t overlay -o "lowerdir=$root,upperdir=$run/root/upper,workdir=$run/root/work" overlay "$new"
        mount -t proc proc "$new/proc"
        mount --rbind /sys "$new/sys"
        mount --rbind /dev "$new/dev"
        mount -t tmpfs tmpfs "$new/run"
        mount -t tmpfs tmpfs "$new/tmp"
        mkdir -p "$new/old" "$new$home" "$new$sockets" "$new$project"
        mount --bind "$project" "$new$project"
        mount --bind "$home" "$new$home"
        mount --bind "$sockets" "$new$sockets"
        cd "$new"
        pivot_root . old
        umount -l /old
    "#;
    let home = assets::folder();
    let arguments: [&Path; 5] = [
        &folders.assets.root.join("root"),
        &folders.run,
        &folders.sockets,
        &home,
        Path::new(env!("CARGO_MANIFEST_DIR")),
    ];
    run(Command::new("sh").args(["-c", SCRIPT, "sh"]).args(arguments)).expect("a root filesystem");
    std::env::set_current_dir("/").expect("the root folder");
    // For builds on the node itself. The images of build steps have the same.
    let bundle = folders.assets.pki.join("bundle.crt");
    fs::copy(bundle, "/etc/ssl/certs/ca-certificates.crt").expect("the CAs");
    fs::write("/etc/containers/registries.conf", REGISTRIES_CONF).expect("a file");
}

/// Removes the empty control groups that the kubelet of an earlier cluster has left.
fn remove_cgroups() {
    let script = "find /sys/fs/cgroup -depth -type d -path '*/kubepods*' -exec rmdir {} + 2>/dev/null; true";
    let _ = run(Command::new("sh").args(["-c", script]));
}
