//! The same start, load and kill for the service and for Tekton Triggers' EventListener, on the same API server.
//!
//! Both get 300 merges, 20 a second, and are killed after the last one. Every acknowledged merge should have a run.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Connection, USUAL, padded, request, runtime};
use crate::harness::assets::TRIGGERS;
use crate::row;
use crate::servers::{Server, Service};
use crate::support::control_plane::{self, ControlPlane, write_crds};
use crate::support::go;
use crate::support::process::free_ports;
use crate::support::webhook::{SECRET, SHA, merged};

pub const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/event-listener");
const NAMESPACE: &str = "event-listener";
/// Port of `cmd/interceptors`, which cannot be configured.
const INTERCEPTORS: u16 = 8443;
pub const MERGES: u64 = 300;
pub const PER_SECOND: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// Figures of one of the two: times in milliseconds, memory in MiB.
struct Seen {
    first_answer: f64,
    idle: f64,
    peak: f64,
    acknowledged: BTreeSet<String>,
    when_sent: usize,
    lost: usize,
}

/// One row for each figure.
pub fn measure() {
    let Some(plane) = control_plane::without_admission() else { return };
    let Some(listener) = Listener::prepare(&plane) else { return };
    let theirs = play(&plane, NAMESPACE, || listener.start());
    plane.namespace("service");
    let kubeconfig = plane.trigger_account("service");
    let ours = play(&plane, "service", || Service { kubeconfig: Some(&kubeconfig), ..Service::default() }.start());
    let milliseconds = |seen: &Seen| format!("{:.1} ms", seen.first_answer);
    let megabytes = |value: f64| format!("{value:.0} MiB");
    let compared = |theirs: String| format!("{theirs} (EventListener)");
    let ratio = Some(ours.first_answer / theirs.first_answer);
    row("exec to the first answered delivery", &milliseconds(&ours), &compared(milliseconds(&theirs)), ratio, "");
    row("RSS when idle", &megabytes(ours.idle), &compared(megabytes(theirs.idle)), Some(ours.idle / theirs.idle), "");
    row(
        "most RSS under load",
        &megabytes(ours.peak),
        &compared(megabytes(theirs.peak)),
        Some(ours.peak / theirs.peak),
        "",
    );
    for (figure, value) in [
        ("300 merges, 20 a second: acknowledged", (|seen: &Seen| seen.acknowledged.len()) as fn(&Seen) -> usize),
        ("runs that exist when the last one was sent", |seen| seen.when_sent),
        ("acknowledged and lost when it is killed then", |seen| seen.lost),
    ] {
        row(figure, &value(&ours).to_string(), &compared(value(&theirs).to_string()), None, "");
    }
}

/// Starts a server, sends the merges, kills and restarts it, and counts the runs.
fn play(plane: &ControlPlane, namespace: &str, start: impl Fn() -> Server) -> Seen {
    let runtime = runtime();
    let began = Instant::now();
    let server = start();
    drop(server.connect());
    // An accepted connection is not enough: wait for the first answer, with any status.
    let unmerged = request(&crate::client::filtered(USUAL));
    runtime.block_on(async { Connection::open(server.address).await.exchange(&unmerged).await });
    let first_answer = began.elapsed().as_secs_f64() * 1e3;
    std::thread::sleep(Duration::from_secs(2));
    let idle = server.memory("VmRSS");
    let acknowledged = runtime.block_on(send(&server));
    let when_sent = commits(plane, namespace).len();
    // No run at all means a wrong setup, not a result.
    assert!(when_sent > 0, "{namespace} creates no runs");
    let peak = server.memory("VmHWM");
    drop(server);
    // Let the API server finish the requests that it has received.
    std::thread::sleep(Duration::from_secs(3));
    // A restarted server may still create the missing runs.
    let again = start();
    drop(again.connect());
    std::thread::sleep(Duration::from_secs(5));
    let existing = commits(plane, namespace);
    let lost = acknowledged.difference(&existing).count();
    Seen { first_answer, idle, peak, acknowledged, when_sent, lost }
}

/// Sends the merges, and returns the commits of those that were answered with 2xx.
async fn send(server: &Server) -> BTreeSet<String> {
    let mut clock = tokio::time::interval(Duration::from_millis(1000 / PER_SECOND));
    let senders: Vec<_> = async {
        let mut senders = Vec::new();
        for number in 1..=MERGES {
            clock.tick().await;
            let address = server.address;
            senders.push(tokio::spawn(async move {
                let commit = commit(number);
                let delivery = request(&padded(merged("acme/web", number, &commit), USUAL));
                let status = Connection::open(address).await.exchange(&delivery).await;
                (200..300).contains(&status).then_some(commit)
            }));
        }
        senders
    }
    .await;
    let answers = futures_util::future::join_all(senders).await;
    answers.into_iter().filter_map(|answer| answer.expect("an answer")).collect()
}

/// The merge commit of a merge.
pub fn commit(number: u64) -> String {
    format!("{number:08x}{}", &SHA[8..])
}

/// The commits of the existing runs.
fn commits(plane: &ControlPlane, namespace: &str) -> BTreeSet<String> {
    let revision = |run: &Value| run["spec"]["params"][0]["value"].as_str().map(str::to_owned);
    plane.runs(namespace).iter().filter_map(revision).collect()
}

/// An EventListener with the objects of an installation.
struct Listener {
    programs: PathBuf,
    kubeconfig: PathBuf,
    _interceptors: Server,
    folder: TempDir,
}

impl Listener {
    fn prepare(plane: &ControlPlane) -> Option<Self> {
        control_plane::assets()?;
        let built = go::target_folder().join("peers").join("event-listener");
        programs(&built, &["eventlistenersink", "interceptors"]);
        let folder = tempfile::tempdir().expect("a folder");
        let crds = folder.path().join("crds");
        fs::create_dir(&crds).expect("a folder");
        let config = go::module_folder(Path::new(MODULE), TRIGGERS.1).expect("the module").join("config");
        for entry in fs::read_dir(&config).expect("a folder").flatten() {
            if entry.file_name().to_string_lossy().starts_with("300-") {
                write_crds(&entry.path(), &crds).expect("a CRD");
            }
        }
        let crds = crds.display().to_string();
        plane.kubectl(&["create", "-f", &crds]);
        plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds]);
        plane.namespace(NAMESPACE);
        let objects = folder.path().join("objects.json");
        fs::write(&objects, objects_of_an_installation().to_string()).expect("a file");
        plane.kubectl(&["create", "-f", &objects.display().to_string()]);
        let kubeconfig = plane.admin_kubeconfig();
        let log = File::create(folder.path().join("interceptors.log")).expect("a file");
        let interceptors = Command::new(built.join("interceptors"))
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .envs([
                ("SYSTEM_NAMESPACE", NAMESPACE),
                // Name in the certificate.
                ("INTERCEPTOR_TLS_SVC_NAME", "localhost"),
                ("INTERCEPTOR_TLS_SECRET_NAME", "interceptors-certs"),
                ("METRICS_DOMAIN", "tekton.dev/triggers"),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("the interceptors");
        let interceptors = Server::new(interceptors, INTERCEPTORS, None);
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(interceptors.address).is_err() {
            assert!(
                Instant::now() < end,
                "{}",
                fs::read_to_string(folder.path().join("interceptors.log")).expect("a log")
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { programs: built, kubeconfig, _interceptors: interceptors, folder })
    }

    /// Starts the EventListener's sink with its Deployment's settings.
    fn start(&self) -> Server {
        let [port, metrics] = free_ports();
        let log = File::create(self.folder.path().join("listener.log")).expect("a file");
        let child = Command::new(self.programs.join("eventlistenersink"))
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .args(["--el-name=github-listener", &format!("--el-namespace={NAMESPACE}"), &format!("--port={port}")])
            .envs([
                ("NAMESPACE", NAMESPACE),
                ("NAME", "github-listener"),
                ("SYSTEM_NAMESPACE", NAMESPACE),
                ("EL_EVENT", "disable"),
                ("K_SINK_TIMEOUT", "5"),
                ("K_LOGGING_CONFIG", "{}"),
                ("K_METRICS_CONFIG", "{}"),
                ("K_OBSERVABILITY_CONFIG", "{}"),
                ("METRICS_PROMETHEUS_PORT", &metrics.to_string()),
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("the EventListener");
        Server::new(child, port, None)
    }
}

/// Builds Tekton's own programs into a folder, once.
pub fn programs(folder: &Path, names: &[&str]) {
    fs::create_dir_all(folder).expect("a folder");
    let _lock = go::lock(folder).expect("a lock");
    for name in names {
        let package = format!("{}/cmd/{name}", TRIGGERS.1);
        go::build(Path::new(MODULE), &package, &folder.join(name)).expect("a build");
    }
}

/// The objects of an operator and of Tekton Triggers, with the defaults that its admission would set.
fn objects_of_an_installation() -> Value {
    let named = |name: &str| json!({"name": name, "namespace": NAMESPACE});
    let interceptor = |name: &str| {
        json!({"apiVersion": "triggers.tekton.dev/v1alpha1", "kind": "ClusterInterceptor",
            "metadata": {"name": name, "labels": {"server/type": "https"}},
            "spec": {"clientConfig": {"url": format!("https://localhost:{INTERCEPTORS}/{name}")}}})
    };
    let certificates = json!({"apiVersion": "v1", "kind": "Secret", "metadata": named("interceptors-certs")});
    let items = [&[interceptor("github"), interceptor("cel"), certificates], listener(NAMESPACE).as_slice()].concat();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// An EventListener for merges, first, and what it refers to: every merge becomes a run with its commit and branch.
pub fn listener(namespace: &str) -> [Value; 4] {
    let named = |name: &str| json!({"name": name, "namespace": namespace});
    [
        json!({"apiVersion": "triggers.tekton.dev/v1beta1", "kind": "EventListener", "metadata": named("github-listener"),
            "spec": {"triggers": [{
                "name": "merged",
                "interceptors": [
                    {"ref": {"name": "github", "kind": "ClusterInterceptor"}, "params": [
                        {"name": "secretRef", "value": {"secretName": "webhook", "secretKey": "github"}},
                        {"name": "eventTypes", "value": ["pull_request"]}]},
                    {"ref": {"name": "cel", "kind": "ClusterInterceptor"}, "params": [
                        {"name": "filter", "value": "body.action == 'closed' && body.pull_request.merged"}]}],
                "bindings": [{"ref": "merge", "kind": "TriggerBinding"}],
                "template": {"ref": "build"}}]}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": named("webhook"), "stringData": {"github": SECRET}}),
        json!({"apiVersion": "triggers.tekton.dev/v1beta1", "kind": "TriggerBinding", "metadata": named("merge"),
            "spec": {"params": [
                {"name": "revision", "value": "$(body.pull_request.merge_commit_sha)"},
                {"name": "branch", "value": "$(body.pull_request.base.ref)"}]}}),
        json!({"apiVersion": "triggers.tekton.dev/v1beta1", "kind": "TriggerTemplate", "metadata": named("build"),
            "spec": {"params": [{"name": "revision"}, {"name": "branch"}], "resourcetemplates": [
                {"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "build-"},
                    "spec": {"pipelineRef": {"name": "build"}, "params": [
                        {"name": "revision", "value": "$(tt.params.revision)"},
                        {"name": "branch", "value": "$(tt.params.branch)"}]}}]}}),
    ]
}
