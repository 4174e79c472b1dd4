//! A real control plane on loopback: etcd, kube-apiserver with RBAC, the real CRDs of Tekton and Knative, and the
//! projects' own admission.
//!
//! Binaries come from `KUBEBUILDER_ASSETS`, else from the cache below `target/`, else they are built with `go` from
//! `tests/control-plane/`, where every version is pinned. No controller runs: tests write the statuses themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::go;
use super::peers::Peer;
use super::process::{Guarded, free_ports};

const ADMIN_TOKEN: &str = "tests-own-administrator";
/// Timeout for the API server's readiness.
const READY: Duration = Duration::from_secs(120);

/// The folder of the Go modules that pin the versions.
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/control-plane");

/// The CRD of GitHubSource, which no Go module contains.
const OWN_CRDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/crds/githubsources.yaml");

/// The CRDs' files, by Go module.
const CRDS: &[(&str, &[&str])] = &[
    (
        "github.com/tektoncd/pipeline",
        &[
            "config/300-crds/300-pipeline.yaml",
            "config/300-crds/300-pipelinerun.yaml",
            "config/300-crds/300-task.yaml",
            "config/300-crds/300-taskrun.yaml",
        ],
    ),
    (
        "knative.dev/serving",
        &[
            "config/core/300-resources/configuration.yaml",
            "config/core/300-resources/revision.yaml",
            "config/core/300-resources/route.yaml",
            "config/core/300-resources/service.yaml",
        ],
    ),
    ("knative.dev/eventing", &["config/core/resources/broker.yaml", "config/core/resources/trigger.yaml"]),
    ("istio.io/api", &["kubernetes/customresourcedefinitions.gen.yaml"]),
];

/// The control plane that tests share, started at the first call.
///
/// Returns `None` if there are neither binaries nor `go` to build them, after printing what to install. Panics then if
/// `REQUIRE_CONTROL_PLANE` is set.
pub fn shared() -> Option<&'static ControlPlane> {
    static SHARED: OnceLock<Option<ControlPlane>> = OnceLock::new();
    SHARED.get_or_init(|| Some(ControlPlane::start(assets()?))).as_ref()
}

/// A separate control plane, for tests that kill it or apply cluster-wide objects. `None` as for [`shared`].
pub fn own() -> Option<ControlPlane> {
    Some(ControlPlane::start(assets()?))
}

/// A separate control plane without the projects' admission webhooks, which would distort measurements. `None` as for
/// [`shared`].
pub fn without_admission() -> Option<ControlPlane> {
    Some(ControlPlane::bare(assets()?))
}

/// Folders of the programs and CRDs.
#[derive(Debug, Clone)]
pub struct Assets {
    binaries: PathBuf,
    crds: PathBuf,
}

impl Assets {
    /// Path of a CRD as JSON, by its name, for example `tasks.tekton.dev`.
    pub fn crd(&self, name: &str) -> PathBuf {
        self.crds.join(format!("{name}.json"))
    }

    /// Path of kubectl.
    pub fn kubectl(&self) -> PathBuf {
        self.binaries.join("kubectl")
    }

    /// Folder of etcd, kube-apiserver and kubectl.
    pub fn folder(&self) -> &Path {
        &self.binaries
    }
}

/// A client with the credentials of a kubeconfig.
pub async fn client_of(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
    Client::try_from(config).expect("a client")
}

/// Finds or builds the programs and CRDs, once. `None` as for [`shared`].
pub fn assets() -> Option<&'static Assets> {
    static ASSETS: OnceLock<Option<Assets>> = OnceLock::new();
    ASSETS
        .get_or_init(|| match find_or_build() {
            Ok(assets) => Some(assets),
            Err(why) => {
                let message = format!(
                    "skipped: tests that need a real Kubernetes API server ({why}); install Go 1.26 or newer, or set \
                     KUBEBUILDER_ASSETS to a folder with etcd, kube-apiserver and kubectl"
                );
                assert!(std::env::var_os("REQUIRE_CONTROL_PLANE").is_none(), "{message}");
                go::say(&message);
                None
            }
        })
        .as_ref()
}

/// Finds or builds the programs and CRDs.
///
/// # Errors
/// If there are neither binaries nor `go` to build them.
pub fn find_or_build() -> Result<Assets, String> {
    let module = |file: &str| Path::new(MODULES).join(file);
    let cache = cache_folder("crds", &[module("crds/go.mod"), OWN_CRDS.into()])?;
    let _lock = go::lock(&cache)?;
    let crds = crds(&cache)?;
    let binaries = match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let cache = cache_folder("server", &[module("server/go.mod"), module("server/go.sum")])?;
            let _lock = go::lock(&cache)?;
            build(&cache)?
        }
    };
    Ok(Assets { binaries, crds })
}

/// A folder below `target/`; its name contains a hash of the files in `made_of`, which pin the versions.
fn cache_folder(name: &str, made_of: &[PathBuf]) -> Result<PathBuf, String> {
    let mut hash = Sha256::new();
    for file in made_of {
        hash.update(fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?);
    }
    let hash = &hex::encode(hash.finalize())[..12];
    let folder = go::target_folder().join("control-plane").join(format!("{name}-{hash}"));
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

fn build(cache: &Path) -> Result<PathBuf, String> {
    let parts = [
        ("etcd", "go.etcd.io/etcd/server/v3"),
        ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
        ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    ];
    let module = Path::new(MODULES).join("server");
    for (name, package) in parts {
        go::build(&module, package, &cache.join(name))?;
    }
    Ok(cache.to_owned())
}

/// Copies the CRDs of the pinned modules, without their conversion webhooks.
fn crds(cache: &Path) -> Result<PathBuf, String> {
    let folder = cache.join("crds");
    if folder.exists() {
        return Ok(folder);
    }
    let unfinished = cache.join("crds.part");
    fs::create_dir_all(&unfinished).map_err(|error| error.to_string())?;
    for (module, files) in CRDS {
        let source = go::module_folder(&Path::new(MODULES).join("crds"), module)?;
        for file in *files {
            write_crds(&source.join(file), &unfinished)?;
        }
    }
    write_crds(Path::new(OWN_CRDS), &unfinished)?;
    fs::rename(&unfinished, &folder).map_err(|error| error.to_string())?;
    Ok(folder)
}

/// Writes every CRD of a YAML file as JSON into `<folder>/<name>.json`.
///
/// # Errors
/// If a file cannot be read or written, or an object has no spec or no name.
pub fn write_crds(file: &Path, folder: &Path) -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let text = fs::read_to_string(file).map_err(|error| fail(&error))?;
    for mut crd in serde_saphyr::from_multiple::<Value>(&text).map_err(|error| fail(&error))? {
        crd["spec"].as_object_mut().ok_or(fail(&"no spec"))?.remove("conversion");
        let name = crd["metadata"]["name"].as_str().ok_or(fail(&"no name"))?;
        fs::write(folder.join(format!("{name}.json")), crd.to_string()).map_err(|error| fail(&error))?;
    }
    Ok(())
}

/// etcd and kube-apiserver. They are killed when this is dropped, and when the test process ends, even by SIGKILL.
pub struct ControlPlane {
    assets: Assets,
    folder: TempDir,
    port: u16,
    /// Client URL and peer URL.
    etcd_urls: [String; 2],
    etcd: Option<Guarded>,
    api_server: Option<Guarded>,
    admission: Option<Peer>,
}

impl ControlPlane {
    fn start(assets: &Assets) -> Self {
        let mut plane = Self::bare(assets);
        plane.start_admission();
        plane
    }

    fn bare(assets: &Assets) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write_credentials(folder.path());
        let [client, peer, port] = free_ports();
        let etcd_urls = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
        let mut plane =
            Self { assets: assets.clone(), folder, port, etcd_urls, etcd: None, api_server: None, admission: None };
        plane.start_etcd();
        plane.start_api_server();
        plane.write_kubeconfig("admin", ADMIN_TOKEN, "default");
        plane.wait_until_ready();
        plane.create_crds();
        plane
    }

    /// Registers the admission webhooks, and waits until the API server calls them.
    fn start_admission(&mut self) {
        let (certificate, key) = (self.path("server.crt"), self.path("server.key"));
        let eventing = go::module_folder(&Path::new(MODULES).join("crds"), "knative.dev/eventing").expect("the module");
        let config = eventing.join("config/core/configmaps");
        let [certificate, key, config] = [certificate, key, config].map(|path| path.display().to_string());
        let args = ["-cert", &certificate, "-key", &key, "-eventing-config", &config];
        let Some(admission) = Peer::admission(&args) else { return };
        let bundle = BASE64_STANDARD.encode(fs::read(self.path("ca.crt")).expect("the CA"));
        let configuration = |kind: &str, path: &str| {
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "projects"},
                "webhooks": [{
                    "name": format!("{path}.projects.example.com"),
                    "clientConfig": {"url": format!("https://{}/{path}", admission.address), "caBundle": bundle},
                    "rules": [{
                        "apiGroups": ["serving.knative.dev", "eventing.knative.dev", "tekton.dev"],
                        "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                        "resources": ["services", "configurations", "revisions", "routes", "brokers", "triggers",
                            "pipelines", "pipelineruns", "tasks", "taskruns"],
                    }],
                    "admissionReviewVersions": ["v1"], "sideEffects": "None",
                }]
            })
        };
        let list = json!({"apiVersion": "v1", "kind": "List", "items": [
            configuration("MutatingWebhookConfiguration", "default"),
            configuration("ValidatingWebhookConfiguration", "validate"),
        ]});
        let file = self.path("admission.json");
        fs::write(&file, list.to_string()).expect("a file");
        self.kubectl(&["create", "-f", &file.display().to_string()]);
        self.admission = Some(admission);
        let invalid = self.path("invalid.json");
        let service = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service",
            "metadata": {"name": "invalid", "namespace": "default"}, "spec": {"template": {"spec": {"containers": []}}}});
        fs::write(&invalid, service.to_string()).expect("a file");
        let end = Instant::now() + Duration::from_secs(20);
        while self.try_kubectl(&["create", "--dry-run=server", "-f", &invalid.display().to_string()]).status.success() {
            assert!(Instant::now() < end, "the API server did not call the admission webhook within 20 s");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts etcd, for the first time or again after [`Self::kill_etcd`].
    pub fn start_etcd(&mut self) {
        let [client, peer] = &self.etcd_urls;
        let mut command = vec![self.assets.binaries.join("etcd").display().to_string()];
        command.extend([
            format!("--data-dir={}", self.path("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // Safe here: the page cache survives a killed process.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
        ]);
        self.etcd = Some(Guarded::spawn(&command, &self.path("etcd.log")));
    }

    /// Starts the API server, for the first time or again after [`Self::kill_api_server`].
    pub fn start_api_server(&mut self) {
        let file = |name: &str| self.path(name).display().to_string();
        let mut command = vec![self.assets.binaries.join("kube-apiserver").display().to_string()];
        command.extend([
            format!("--etcd-servers={}", self.etcd_urls[0]),
            format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--tls-cert-file={}", file("server.crt")),
            format!("--tls-private-key-file={}", file("server.key")),
            format!("--client-ca-file={}", file("ca.crt")),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", file("service-account.pub")),
            format!("--service-account-signing-key-file={}", file("service-account.key")),
            "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
            // It requires the default service account, which no controller creates here.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]);
        self.api_server = Some(Guarded::spawn(&command, &self.path("kube-apiserver.log")));
    }

    /// Kills the API server as a crash would.
    pub fn kill_api_server(&mut self) {
        self.api_server = None;
    }

    /// Starts the API server again with the certificate of a new CA, and puts that into the file that kubeconfigs name.
    pub fn rotate_ca(&mut self) {
        self.kill_api_server();
        write_server_certificate(self.folder.path());
        self.start_api_server();
        self.wait_until_ready();
    }

    /// A kubeconfig that names the file of a token, as a pod's service account does.
    pub fn kubeconfig_of_token_file(&self, token_file: &Path, namespace: &str) -> PathBuf {
        let path = self.write_kubeconfig(&format!("{namespace}-file"), "", namespace);
        let mut config: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
        config["users"][0]["user"] = json!({"tokenFile": token_file});
        fs::write(&path, config.to_string()).expect("a kubeconfig");
        path
    }

    /// Kills etcd as a crash would.
    pub fn kill_etcd(&mut self) {
        self.etcd = None;
    }

    /// Port of the API server on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits until `/readyz` answers `ok`. Panics if the API server has ended, or at the timeout [`READY`].
    pub fn wait_until_ready(&mut self) {
        let end = Instant::now() + READY;
        let ready = |output: Output| output.status.success() && output.stdout == b"ok";
        while !ready(self.try_kubectl(&["get", "--raw", "/readyz"])) {
            let ended = self.api_server.as_mut().is_none_or(Guarded::has_ended);
            let log = || fs::read_to_string(self.path("kube-apiserver.log")).unwrap_or_default();
            assert!(!ended && Instant::now() < end, "the API server is not ready:\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn create_crds(&self) {
        let folder = self.assets.crds.display().to_string();
        self.kubectl(&["create", "-f", &folder]);
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &folder]);
    }

    fn try_kubectl(&self, args: &[&str]) -> Output {
        Command::new(self.assets.kubectl())
            .arg(format!("--kubeconfig={}", self.path("admin").display()))
            .arg(format!("--cache-dir={}", self.path("kubectl-cache").display()))
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .output()
            .expect("kubectl")
    }

    /// Runs kubectl as administrator, which must succeed, and returns its stdout.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {}: {errors}", args.join(" "));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs kubectl as administrator, which must fail, and returns its stderr.
    pub fn kubectl_refuses(&self, args: &[&str]) -> String {
        let output = self.try_kubectl(args);
        assert!(!output.status.success(), "kubectl {} succeeds", args.join(" "));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn write_kubeconfig(&self, name: &str, token: &str, namespace: &str) -> PathBuf {
        let path = self.path(name);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{}", self.port),
                "certificate-authority": self.path("ca.crt"),
            }}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}]
        });
        fs::write(&path, config.to_string()).expect("a kubeconfig");
        path
    }

    /// A client with the administrator's credentials.
    pub async fn admin(&self) -> Client {
        client_of(&self.path("admin")).await
    }

    /// Creates a namespace. Tests of the same manifests share theirs.
    pub fn namespace(&self, name: &str) {
        let output = self.try_kubectl(&["create", "namespace", name]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || errors.contains("AlreadyExists"), "namespace {name}: {errors}");
    }

    /// Creates a service account that may only create PipelineRuns in `namespace`, and returns its kubeconfig.
    pub fn trigger_account(&self, namespace: &str) -> PathBuf {
        let kubeconfig = self.account(namespace, "github-trigger");
        self.allow(&format!("{namespace}:github-trigger"), namespace);
        kubeconfig
    }

    /// Lets a service account (`namespace:name`) create PipelineRuns in `namespace`, and waits until it may.
    pub fn allow(&self, account: &str, namespace: &str) {
        let role = ["--verb=create", "--resource=pipelineruns.tekton.dev", "-n", namespace];
        self.kubectl(&[&["create", "role", "trigger"], &role[..]].concat());
        let account_flag = format!("--serviceaccount={account}");
        self.kubectl(&["create", "rolebinding", "trigger", "--role=trigger", &account_flag, "-n", namespace]);
        self.wait_until_allowed(account, namespace);
    }

    /// Waits until RBAC lets a service account create PipelineRuns: a new binding takes effect after a moment.
    pub fn wait_until_allowed(&self, account: &str, namespace: &str) {
        let user = format!("--as=system:serviceaccount:{account}");
        let question = ["auth", "can-i", "create", "pipelineruns.tekton.dev", "-n", namespace, &user];
        let end = Instant::now() + Duration::from_secs(20);
        while !self.try_kubectl(&question).status.success() {
            assert!(Instant::now() < end, "{account} may not create runs in {namespace} after 20 s");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Creates a service account without any permissions, and returns its kubeconfig.
    pub fn account(&self, namespace: &str, name: &str) -> PathBuf {
        self.kubectl(&["create", "serviceaccount", name, "-n", namespace]);
        self.token_of(namespace, name)
    }

    /// A kubeconfig with a token of an existing service account, valid for an hour.
    pub fn token_of(&self, namespace: &str, name: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", name, "-n", namespace, "--duration=1h"]);
        self.write_kubeconfig(&format!("{namespace}-{name}"), token.trim(), namespace)
    }

    /// A token of a service account for another audience than the API server, valid for an hour.
    pub fn token_for(&self, namespace: &str, name: &str, audience: &str) -> String {
        let audience = format!("--audience={audience}");
        self.kubectl(&["create", "token", name, "-n", namespace, "--duration=1h", &audience]).trim().to_owned()
    }

    /// Path of kubectl.
    pub fn kubectl_path(&self) -> PathBuf {
        self.assets.kubectl()
    }

    /// Path of the administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.path("admin")
    }

    /// The API server's signing key for service account tokens: PKCS#8, PEM.
    pub fn token_key(&self) -> String {
        fs::read_to_string(self.path("service-account.key")).expect("the key")
    }

    /// The PipelineRuns of a namespace, with their managed fields.
    pub fn runs(&self, namespace: &str) -> Vec<Value> {
        let list =
            self.kubectl(&["get", "pipelineruns.tekton.dev", "-n", namespace, "-o", "json", "--show-managed-fields"]);
        let mut list: Value = serde_json::from_str(&list).expect("a list");
        match list["items"].take() {
            Value::Array(items) => items,
            other => panic!("no list: {other}"),
        }
    }
}

/// Writes a new CA, and the server's certificate by it.
fn write_server_certificate(folder: &Path) {
    let write = |name: &str, content: &str| fs::write(folder.join(name), content).expect("a file");
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "tests");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    write("ca.crt", &ca.self_signed(&ca_key).expect("a certificate").pem());
    let issuer = Issuer::new(ca, ca_key);
    let server_key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut server = CertificateParams::new(names).expect("names");
    server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    write("server.crt", &server.signed_by(&server_key, &issuer).expect("a certificate").pem());
    write("server.key", &server_key.serialize_pem());
}

/// Writes a new CA, the server's certificate, the key of service account tokens and the administrator's token.
fn write_credentials(folder: &Path) {
    let write = |name: &str, content: &str| fs::write(folder.join(name), content).expect("a file");
    write_server_certificate(folder);
    let account_key = KeyPair::generate().expect("a key");
    write("service-account.key", &account_key.serialize_pem());
    write("service-account.pub", &account_key.public_key_pem());
    write("tokens.csv", &format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"));
}
