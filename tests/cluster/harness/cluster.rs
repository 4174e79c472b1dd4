//! The running cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};

use super::assets::{Assets, IMAGES, remove_other_versions};
use super::images::{Blob, Content, Layer, Registry, Runs, layer_of_folder};
use super::ingress::{self, Files};
use super::manifests::{self, SHELL_IMAGE, is_first};
use super::names::{PRIVATE_REGISTRY_PUSH, REGISTRY_PUSH};
use super::node::{Node, PAUSE_IMAGE};
use super::sandbox::{Folders, REGISTRIES_CONF};
use super::{gateway, git, network, pki};
use crate::support::control_plane::client_of;
use crate::support::github::GitHub;
use crate::support::go::say;
use crate::support::process::eventually;

/// All controllers run by then, also on a busy machine.
const START: Duration = Duration::from_secs(300);

/// Images of build steps, by the names that the pipeline's manifests use.
const BUILD_IMAGES: &[(&str, &str)] =
    &[("buildah/stable", "v1"), ("tektoncd-catalog/git-clone", "v1.7.0"), (SHELL_IMAGE.0, SHELL_IMAGE.1)];

/// The file of trusted certificates in images.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// A node with Tekton and Knative. It ends with the process.
pub struct Cluster {
    pub folders: Folders,
    pub client: Client,
    /// GitHub's API, as `api.github.com`.
    pub github: GitHub,
    /// `github.com`.
    pub git_host: Arc<git::Host>,
    node: Mutex<Node>,
}

impl Cluster {
    /// Starts everything and waits until all controllers are ready. Panics with the cause if they are not in time.
    pub async fn start(folders: Folders) -> Self {
        let began = Instant::now();
        let step = |name: &str| say(&format!("cluster: {name} after {:.0} s", began.elapsed().as_secs_f32()));
        network::set_up();
        gateway::serve_inside(&folders.sockets).await.expect("the gateway");
        let mut node = Node::new(&folders);
        let storage = folders.assets.registry();
        remove_other_versions("registry", &storage);
        if !storage.exists() {
            say("cluster: packing images; this is done once and takes a minute or two");
            let unfinished = storage.with_extension("part");
            let _ = fs::remove_dir_all(&unfinished);
            node.start_registries(&unfinished);
            push_images(&folders).await;
            node.stop_registries();
            fs::rename(&unfinished, &storage).expect("the registry's folder");
            step("images are packed");
        }
        // What this run pushes stays in its own folder.
        node.start_registries(&overlay(&storage, &folders.run.join("registries")));
        let repositories = folders.run.join("git");
        let pki = &folders.assets.pki;
        let github = GitHub::start().await.expect("GitHub's description");
        let git_host = git::Host::new(&repositories, github.address);
        git::serve(&git_host, &pki.join("git.crt"), &pki.join("git.key")).await.expect("the git server");
        node.start_api_server();
        let files = Files::create(&folders.run.join("envoy"));
        node.start_envoy();
        let client = client_of(&pki::kubeconfig(&folders.run, "admin")).await;
        node.start_containerd_and_dns();
        let cluster = Self { folders, client, github, git_host, node: Mutex::new(node) };
        cluster.wait_for("the API server", || cluster.try_kubectl(&["get", "--raw", "/readyz"]).status.success());
        cluster.node().start_controllers();
        cluster.wait_for("containerd", || cluster.node.try_lock().is_ok_and(|node| node.has_containerd()));
        cluster.node().start_kubelet();
        step("the API server is ready");
        tokio::spawn(ingress::run(cluster.client.clone(), files));
        cluster.wait_for("the default account", || {
            cluster.try_kubectl(&["get", "serviceaccount", "default"]).status.success()
        });
        cluster.apply(&ingress::services());
        cluster.install();
        step("Tekton, Serving and Eventing are applied");
        cluster.wait_for("the node", || {
            let ready = ["wait", "node/node", "--for=condition=Ready", "--timeout=5s"];
            cluster.try_kubectl(&ready).status.success()
        });
        cluster.wait_for_controllers();
        step("all controllers are ready");
        cluster
    }

    /// Polls until `is_there`. Panics after [`START`], or when a process of the node has ended.
    pub fn wait_for(&self, what: &str, is_there: impl Fn() -> bool) {
        let there = eventually(START, || {
            self.node().check();
            let there = is_there();
            if !there {
                std::thread::sleep(Duration::from_millis(200));
            }
            there.then_some(())
        });
        assert!(there.is_some(), "{what}: not there after {} s", START.as_secs());
    }

    /// Applies objects, those first on which others depend.
    pub fn apply_in_order(&self, objects: Vec<Value>) {
        let (first, then): (Vec<Value>, Vec<Value>) = objects.into_iter().partition(is_first);
        self.apply(&first);
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"]);
        // Images are of a CRD of the same list, and some objects pass webhooks that do not run yet.
        self.wait_for("the manifests", || self.try_apply(&then).status.success());
    }

    fn install(&self) {
        let manifests = &self.folders.assets.manifests;
        let ca = fs::read_to_string(self.folders.assets.pki.join("ca.crt")).expect("the CA");
        for objects in
            [manifests::tekton(manifests, &ca), manifests::serving(manifests), manifests::eventing(manifests)]
        {
            self.apply_in_order(objects);
        }
    }

    /// Waits until all Deployments have their pods.
    pub fn wait_for_controllers(&self) {
        self.wait_for("controllers", || {
            let deployments = self.json(&["get", "deployments", "-A"]);
            let mut deployments = deployments["items"].as_array().into_iter().flatten();
            deployments.all(|deployment| {
                let wanted = deployment["spec"]["replicas"].as_i64().unwrap_or(1);
                deployment["status"]["readyReplicas"].as_i64().unwrap_or(0) >= wanted
            })
        });
    }

    /// Applies objects as administrator.
    pub fn apply(&self, objects: &[Value]) {
        let output = self.try_apply(objects);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// As [`Self::apply`], and returns kubectl's output.
    pub fn try_apply(&self, objects: &[Value]) -> Output {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        let file = self.folders.run.join("apply.json");
        fs::write(&file, list.to_string()).expect("a file");
        self.try_kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file.display().to_string()])
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        pki::kubeconfig(&self.folders.run, "admin")
    }

    /// A kubeconfig of the administrator for programs outside, where `port` leads to the API server.
    pub fn kubeconfig_for_outside(&self, port: u16) -> PathBuf {
        let folder = self.folders.run.join("outside");
        fs::create_dir_all(&folder).expect("a folder");
        pki::write_kubeconfigs(&self.folders.assets.pki, &folder, &format!("https://127.0.0.1:{port}"));
        pki::kubeconfig(&folder, "admin")
    }

    /// Runs kubectl as administrator.
    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        self.command("kubectl").args(args).output().expect("kubectl")
    }

    /// Runs kubectl as administrator, which must succeed, and returns its stdout.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {errors}", args.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Conditions, taints and events of the node, and what the machine has left.
    pub fn condition(&self) -> String {
        let of_node = "{range .status.conditions[*]}{.type}={.status} {end}{.spec.taints}";
        let node = self.try_kubectl(&["get", "node", "node", "-o", &format!("jsonpath={of_node}")]);
        let events = self.try_kubectl(&["get", "events", "-A", "--field-selector=involvedObject.kind=Node"]);
        let mut free = self.command("sh");
        let free = free.args(["-c", "df -h /; df -i /; head -3 /proc/meminfo"]).output().expect("a shell");
        [node, events, free].map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).join("\n")
    }

    /// The output of `kubectl ... -o json`.
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.kubectl(&[args, &["-o", "json"]].concat())).expect("JSON")
    }

    /// A program of the node with the administrator's kubeconfig.
    pub fn command(&self, name: &str) -> Command {
        let mut command = self.node().program(name);
        command
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", &self.folders.run)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null());
        command
    }

    /// Actions on the node's processes.
    pub fn node(&self) -> std::sync::MutexGuard<'_, Node> {
        self.node.lock().expect("the node")
    }

    /// Pushes an image with one of a controller's programs under the name that manifests give it.
    pub async fn push_controller(&self, prefix: &str, package: &str, file: &Path) {
        let (layers, program) = controller_image(&self.folders.assets, super::assets::last(package), file);
        let runs = Runs { entrypoint: &[&program], user: "65532", ..Runs::default() };
        Registry::new(REGISTRY_PUSH).push(&manifests::image(prefix, package), "1", &layers, &runs).await;
    }

    /// The registry of the project's pages.
    pub fn registry(&self) -> Registry {
        Registry::new(PRIVATE_REGISTRY_PUSH)
    }
}

/// Mounts a folder of which `lower` is the content, and what is written goes to `scratch`.
fn overlay(lower: &Path, scratch: &Path) -> PathBuf {
    let [merged, upper, work] = ["merged", "upper", "work"].map(|name| scratch.join(name));
    for folder in [&merged, &upper, &work] {
        fs::create_dir_all(folder).expect("a folder");
    }
    let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let mut mount = Command::new("mount");
    super::assets::run(mount.args(["-t", "overlay", "-o", &options, "overlay"]).arg(&merged)).expect("an overlay");
    merged
}

/// The layers of an image with one of a controller's programs, and the program's path in it.
fn controller_image(assets: &Assets, name: &str, file: &Path) -> ([Blob; 1], String) {
    let program = format!("/ko-app/{name}");
    let bundle = Content::File(assets.pki.join("bundle.crt"));
    let layer = Layer::new().add(BUNDLE, 0o644, bundle).add("tmp", 0o1777, Content::Folder).add(
        &program[1..],
        0o755,
        Content::File(file.to_owned()),
    );
    ([Blob::new(layer.bytes())], program)
}

async fn push_images(folders: &Folders) {
    let registry = Registry::new(REGISTRY_PUSH);
    while !registry.is_up().await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let assets = &folders.assets;
    let pause = Layer::new().add("pause", 0o755, Content::File(assets.programs.join("pause")));
    let runs = Runs { entrypoint: &["/pause"], user: "65535", ..Runs::default() };
    registry.push(PAUSE_IMAGE.0, PAUSE_IMAGE.1, &[Blob::new(pause.bytes())], &runs).await;
    for (prefix, _, packages) in IMAGES {
        for package in *packages {
            let name = super::assets::last(package);
            let file = assets.pods.join(format!("{prefix}-{name}"));
            let (layers, program) = controller_image(assets, name, &file);
            let runs = Runs { entrypoint: &[&program], user: "65532", ..Runs::default() };
            registry.push(&manifests::image(prefix, package), "1", &layers, &runs).await;
            // The dead letters' Service names this one as the project publishes it.
            if name == "event_display" {
                registry
                    .push("knative-releases/knative.dev/eventing/cmd/event_display", "latest", &layers, &runs)
                    .await;
            }
        }
    }
    let debian = [
        Blob::new(layer_of_folder(&assets.root.join("root"), &["./proc/*", "./sys/*", "./dev/*"], &folders.run)),
        Blob::new(
            Layer::new()
                .add(BUNDLE, 0o644, Content::File(assets.pki.join("bundle.crt")))
                .add("etc/containers/registries.conf", 0o644, Content::Bytes(REGISTRIES_CONF.into()))
                .bytes(),
        ),
    ];
    for (name, tag) in BUILD_IMAGES {
        registry.push(name, tag, &debian, &Runs { command: &["/bin/bash"], ..Runs::default() }).await;
    }
    let toolchain = Blob::new(layer_of_folder(&assets.toolchain, &[], &folders.run));
    let [root, certificates] = debian;
    let path = "/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let runs = Runs { command: &["/bin/bash"], path, ..Runs::default() };
    registry.push("library/rust", "1.95-bookworm", &[root, certificates, toolchain], &runs).await;
}
