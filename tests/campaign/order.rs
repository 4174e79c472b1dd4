//! Interleavings of deployments: merges whose builds take their time, so that they are deployed in another order, at the same
//! time, killed and repeated, with revisions that fail. On each Service the newest merge wins, nobody is red who did nothing
//! wrong, and users never go back to an older one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt};
use kube::api::{Api, DynamicObject, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::support::control_plane::shared;
use crate::support::go::say;
use crate::support::service::PROGRAM;
use crate::support::serving::{Serving, services};

const NAMESPACE: &str = "interleavings";
/// Services at the same time.
const AT_ONCE: usize = 12;

/// One merge, and how its deployment goes.
#[derive(Debug, Clone)]
struct Merge {
    /// Its place among the merges of the Service; the highest is the newest.
    age: u32,
    /// Milliseconds until its image is built.
    build: u64,
    /// Milliseconds after which the deployment is killed, each time before it is repeated.
    kills: Vec<u64>,
    /// Whether its revision fails.
    fails: bool,
    flags: &'static [&'static str],
}

impl Merge {
    fn random(random: &mut Rng, age: u32) -> Self {
        const FLAGS: [&[&str]; 4] = [&[], &[], &["--to-latest"], &["--wait-timeout=0"]];
        let kills = (0..random.u8(..3)).map(|_| random.u64(1..900)).collect();
        let flags = FLAGS[random.usize(..FLAGS.len())];
        Self { age, build: random.u64(..1200), kills, fails: random.u8(..6) == 0, flags }
    }

    /// Two merges share a time, as those of a merge queue do; the order tells them apart.
    fn stamp(&self) -> [String; 3] {
        [
            format!("--commit={:040x}", self.age + 1),
            format!("--merged-at=2026-11-22T12:00:{:02}Z", self.age / 2),
            format!("--order={}", self.age),
        ]
    }

    fn image(&self) -> String {
        let name = if self.fails { "bad" } else { "app" };
        format!("registry.example.com/{name}@sha256:{:064x}", self.age + 1)
    }
}

/// What a Service was seen to be, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    image: String,
    created: String,
    /// The revision with all users.
    users: Option<String>,
}

/// Plays as many interleavings. Returns what was wrong.
pub async fn play(seed: u64, count: u64) -> Vec<String> {
    let Some(plane) = shared() else { return Vec::new() };
    let started = Instant::now();
    plane.namespace(NAMESPACE);
    let services = services(plane.admin().await, NAMESPACE);
    let _serving = Serving::start(services.clone());
    let history = Arc::new(Mutex::new(BTreeMap::new()));
    let watching = tokio::spawn(watch(services.clone(), Arc::clone(&history)));
    let (kubeconfig, at_once) = (plane.admin_kubeconfig(), Arc::new(Semaphore::new(AT_ONCE)));
    let mut random = Rng::with_seed(seed);
    let plays = (0..count).map(|number| {
        let merges: Vec<Merge> = (0..random.u32(3..=5)).map(|age| Merge::random(&mut random, age)).collect();
        let (services, kubeconfig, at_once) = (services.clone(), kubeconfig.clone(), Arc::clone(&at_once));
        let history = Arc::clone(&history);
        tokio::spawn(async move {
            let _permit = at_once.acquire().await.expect("a permit");
            if number > 0 && number % 200 == 0 {
                say(&format!("campaign: {number} interleavings, {} s", started.elapsed().as_secs()));
            }
            interleave(&services, &kubeconfig, &format!("s{number}"), &merges, &history).await
        })
    });
    let mut problems = Vec::new();
    for played in join_all(plays.collect::<Vec<_>>()).await {
        problems.extend(played.expect("an interleaving"));
    }
    watching.abort();
    println!("interleavings: seed {seed}, {count} Services, {} s", started.elapsed().as_secs());
    problems.truncate(20);
    problems
}

/// Notes every state of every Service.
async fn watch(services: Api<DynamicObject>, history: Arc<Mutex<BTreeMap<String, Vec<Seen>>>>) {
    loop {
        let mut version = "0".to_owned();
        let Ok(events) = services.watch(&WatchParams::default(), &version).await else { continue };
        let mut events = events.boxed();
        while let Ok(Some(event)) = events.try_next().await {
            let (WatchEvent::Added(object) | WatchEvent::Modified(object)) = event else { continue };
            version = object.metadata.resource_version.clone().unwrap_or(version);
            let name = object.metadata.name.clone().unwrap_or_default();
            let object = serde_json::to_value(&object).expect("JSON");
            let seen = seen(&object);
            let mut history = history.lock().expect("the history");
            let states: &mut Vec<Seen> = history.entry(name).or_default();
            if states.last() != Some(&seen) {
                states.push(seen);
            }
        }
    }
}

fn seen(object: &Value) -> Seen {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let observed = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    let traffic = object["status"]["traffic"].as_array().into_iter().flatten();
    let all = traffic.filter(|target| target["percent"] == 100).filter_map(|target| target["revisionName"].as_str());
    Seen {
        image: text("/spec/template/spec/containers/0/image"),
        // What the status says of an older spec names no revision of this image.
        created: if observed { text("/status/latestCreatedRevisionName") } else { String::new() },
        users: all.map(str::to_owned).next(),
    }
}

/// Plays one: all merges at the same time. Returns what was wrong.
async fn interleave(
    services: &Api<DynamicObject>,
    kubeconfig: &PathBuf,
    name: &str,
    merges: &[Merge],
    history: &Mutex<BTreeMap<String, Vec<Seen>>>,
) -> Vec<String> {
    let ends = join_all(merges.iter().map(|merge| deploy(kubeconfig, name, merge))).await;
    let mut problems: Vec<String> = ends.into_iter().flatten().collect();
    let newest = merges.iter().max_by_key(|merge| merge.age).expect("a merge");
    let object = observed(services, name).await;
    let stamp = object["metadata"]["annotations"]["github-trigger.dev/commit"].as_str().unwrap_or_default();
    let last = seen(&object);
    if last.image != newest.image() || stamp != format!("{:040x}", newest.age + 1) {
        problems.push(format!("ends on {} ({stamp}) instead of {}", last.image, newest.image()));
    }
    let states = history.lock().expect("the history").get(name).cloned().unwrap_or_default();
    problems.extend(went_back(&states));
    problems.iter().map(|problem| format!("{name}: {problem}; {merges:?}")).collect()
}

/// A Service whose last change is observed: `deploy` does not always wait for that.
async fn observed(services: &Api<DynamicObject>, name: &str) -> Value {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let object = services.get(name).await.expect("the Service");
        let object = serde_json::to_value(&object).expect("JSON");
        if object["status"]["observedGeneration"] == object["metadata"]["generation"] {
            return object;
        }
        assert!(Instant::now() < end, "the last change is not observed: {object}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Deploys a merge when its image is built; it is killed and repeated. Returns what was wrong with its end.
async fn deploy(kubeconfig: &PathBuf, name: &str, merge: &Merge) -> Option<String> {
    sleep(Duration::from_millis(merge.build)).await;
    let command = || {
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .env("KUBECONFIG", kubeconfig)
            .args(["deploy", "--namespace", NAMESPACE, "--service-name", name, "--image", &merge.image()])
            .args(["--failure-window=1", "--log-level=warn"])
            .args(merge.stamp())
            .args(merge.flags)
            .kill_on_drop(true);
        command
    };
    for after in &merge.kills {
        let mut killed =
            command().stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("deploy");
        sleep(Duration::from_millis(*after)).await;
        killed.kill().await.expect("killed");
    }
    let output = command().output().await.expect("deploy");
    let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let outcome = said.lines().find_map(|line| line.strip_prefix("outcome: ")).unwrap_or_default();
    let is_well = output.status.success() && ["deployed", "unchanged", "superseded"].contains(&outcome);
    // A revision that fails is the only reason to be red.
    let may_fail = merge.fails && log.contains("does not start");
    (!is_well && !may_fail).then(|| format!("merge {} ends with {}: {said} {log}", merge.age, output.status))
}

/// Whether users went from a newer image back to an older one.
fn went_back(states: &[Seen]) -> Option<String> {
    let revisions = states.iter().filter(|seen| !seen.created.is_empty());
    let images: HashMap<&str, &str> = revisions.map(|seen| (seen.created.as_str(), seen.image.as_str())).collect();
    let age = |image: &str| image.rsplit(':').next().and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let users = states.iter().filter_map(|seen| images.get(seen.users.as_deref()?).and_then(|image| age(image)));
    let users: Vec<u64> = users.collect();
    users.windows(2).find(|pair| pair[1] < pair[0]).map(|_| format!("users went back: {users:?}"))
}
