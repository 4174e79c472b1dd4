//! `deploy`: the Deployer, the last task of a pipeline.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep};

use super::{LogArgs, pod_namespace, print};
use crate::cluster::{Cluster, ServiceError};
use crate::deploy::{self, Expected, Image, Plan, Progress, Rollout, Service, Wish, decide};
use crate::telemetry::otlp::Collector;
use crate::telemetry::{self, metrics::ApiCalls};
use crate::trace::TraceContext;

/// How often a Service is looked at while it changes.
const LOOK: Duration = Duration::from_millis(500);
/// A line this often, though nothing changes, so that a log shows that somebody waits.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);
/// An API server that is restarted is back by then.
const PATIENCE: Duration = Duration::from_secs(60);
/// Writes that somebody else was faster with.
const MAX_CONFLICTS: u32 = 20;
/// The seed's tag for what nobody is to see yet.
const DEFAULT_TAG: &str = "test";

/// The flags of `deploy`.
#[derive(Debug, Clone, Args)]
pub(super) struct DeployArgs {
    /// The image to run; best with a digest: registry/path@sha256:...
    #[arg(long, value_name = "REF")]
    image: String,
    /// The Knative Service; it is created if there is none.
    #[arg(long, alias = "serivce-name", value_name = "NAME")]
    service_name: String,
    /// Its namespace [default: the pod's own, else the kubeconfig's].
    #[arg(long, env = "NAMESPACE", value_name = "NS", hide_env_values = true)]
    namespace: Option<String>,
    /// Leave users where they are; the new revision is seen under the tag's URL only.
    #[arg(long, conflicts_with_all = ["to_latest", "canary"])]
    no_traffic: bool,
    /// Send all users to the new revision.
    #[arg(long, conflicts_with = "canary")]
    to_latest: bool,
    /// Send so many of a hundred users to the new revision; the rest stays where it is.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    canary: Option<u8>,
    /// The tag of the new revision, with --no-traffic [default: test] or --canary.
    #[arg(long, value_name = "TAG", value_parser = tag)]
    tag: Option<String>,
    /// The container that gets the image [default: the only one, or the one with a port].
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// The port of a Service that is created.
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// How long to wait for the new revision; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(..=604_800))]
    wait_timeout: u64,
    /// A folder for the Tekton results revision, url and tag-url.
    #[arg(long, value_name = "DIR")]
    results_dir: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

fn percent(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(percent @ 1..=99) => Ok(percent),
        _ => {
            Err("a canary gets 1 to 99 of a hundred users; for all of them use --to-latest, for none --no-traffic"
                .into())
        }
    }
}

fn tag(text: &str) -> Result<String, String> {
    let legal = text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if legal {
        Ok(text.to_owned())
    } else {
        Err("a tag is made of lower case letters, digits and -, a letter first".into())
    }
}

/// Deploys; exit code 1 if it fails, 130 or 143 if it is interrupted.
pub(super) fn run(args: &DeployArgs) -> ExitCode {
    let log = telemetry::init(args.log.log_format, &args.log.log_level);
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(interruptible(args)),
        Err(error) => Err(Failure::new(error.to_string())),
    };
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{}", failure.message);
            ExitCode::from(failure.code)
        }
    };
    drop(log);
    code
}

/// One line, and how to end.
struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

async fn interruptible(args: &DeployArgs) -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let done = Done::default();
    let interrupted = |code| Failure { message: format!("interrupted: {}", done.sentence()), code };
    tokio::select! {
        outcome = deploy(args, &done) => outcome,
        _ = interrupt.recv() => Err(interrupted(130)),
        _ = terminate.recv() => Err(interrupted(143)),
    }
}

/// What has been done to the Service so far, for whoever finds it half way.
#[derive(Default)]
struct Done(Mutex<Option<String>>);

impl Done {
    fn note(&self, what: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(what.into());
    }

    fn sentence(&self) -> String {
        let done = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        done.unwrap_or_else(|| "nothing was changed".to_owned())
    }
}

async fn deploy(args: &DeployArgs, done: &Done) -> Result<(), Failure> {
    let image: Image = args.image.parse()?;
    if args.tag.is_some() && !args.no_traffic && args.canary.is_none() {
        return Err(Failure::new("--tag goes with --no-traffic or --canary"));
    }
    let (cluster, found_namespace) = Cluster::connect(ApiCalls::default()).await?;
    let namespace = args.namespace.clone().filter(|namespace| !namespace.is_empty());
    let wish = Wish {
        name: args.service_name.clone(),
        namespace: namespace.or_else(pod_namespace).unwrap_or(found_namespace),
        image,
        container: args.container.clone(),
        port: args.port,
        rollout: match (args.no_traffic, args.to_latest, args.canary) {
            (true, ..) => Rollout::NoTraffic { tag: args.tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()) },
            (_, true, _) => Rollout::ToLatest,
            (.., Some(percent)) => Rollout::Canary { percent, tag: args.tag.clone() },
            _ => Rollout::Keep,
        },
        in_stages: args.wait_timeout > 0,
    };
    let collector = Collector::of_environment();
    let parent = TraceContext::of_environment();
    let span = collector.tracer().command("deploy", parent.as_ref());
    span.set("github_trigger.image", wish.image.to_string());
    span.set("github_trigger.service", format!("{}/{}", wish.namespace, wish.name));
    let trace = span.context().or(parent);
    if let Some(trace) = &trace {
        tracing::info!(trace_id = trace.trace_id(), "part of a trace");
    }
    let deadline = Instant::now() + Duration::from_secs(args.wait_timeout);
    let deployer = Deployer { cluster, wish, deadline, waits: args.wait_timeout > 0, done, trace };
    let outcome = deployer.roll_out().await;
    if let Err(failure) = &outcome {
        span.fail(&failure.message);
    }
    drop(span);
    collector.finish().await;
    report(&outcome?, &deployer.wish, args.results_dir.as_deref())
}

/// Takes a Service from what it is to what is wished for.
struct Deployer<'d> {
    cluster: Cluster,
    wish: Wish,
    deadline: Instant,
    waits: bool,
    done: &'d Done,
    trace: Option<TraceContext>,
}

impl Deployer<'_> {
    /// Decides, writes and waits until there is nothing left to do.
    async fn roll_out(&self) -> Result<Service, Failure> {
        let mut conflicts = 0;
        let mut has_image = false;
        let unsettled_until = Instant::now() + PATIENCE;
        loop {
            let today = self
                .patiently(|| self.cluster.service(&self.wish.namespace, &self.wish.name, self.trace.as_ref()))
                .await?;
            let plan = match decide(today.as_ref(), &self.wish) {
                Err(deploy::PlanError::Unsettled) if Instant::now() < unsettled_until => {
                    sleep(LOOK).await;
                    continue;
                }
                plan => plan?,
            };
            let what = match &plan {
                Plan::Create(_) => "was created with the image",
                Plan::Patch { new_revision: true, .. } => "has the new image; users stay on what is ready",
                _ => "has its new traffic",
            };
            let written = match (plan, today) {
                (Plan::Nothing, Some(today)) => return self.unchanged(today, has_image).await,
                (Plan::Patch { new_revision: true, .. }, _) if has_image => {
                    let message = "somebody else has deployed another image meanwhile; theirs is left alone";
                    return Err(Failure::new(message));
                }
                (Plan::Patch { new_revision: false, .. }, Some(today)) if self.waits && !today.latest_is_ready() => {
                    // Nobody is sent to a revision that is not ready. A route that is not may just need this change.
                    self.wait(today).await?;
                    continue;
                }
                (Plan::Create(service), _) => {
                    self.cluster.create_service(&self.wish.namespace, &service, self.trace.as_ref()).await
                }
                (Plan::Patch { patch, .. }, _) => {
                    self.cluster.patch_service(&self.wish.namespace, &self.wish.name, &patch, self.trace.as_ref()).await
                }
                (Plan::Nothing, None) => return Err(Failure::new("nothing to deploy to")),
            };
            let service = match written {
                Ok(service) => service,
                Err(ServiceError::Conflict) if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    sleep(Duration::from_millis(20 + fastrand::u64(..100))).await;
                    continue;
                }
                // Whether it was written shows when the Service is read again.
                Err(ServiceError::Unavailable(reason)) if Instant::now() < unsettled_until => {
                    self.done.note(format!("a change of the Service {} was sent and not answered", self.wish.name));
                    tracing::warn!(reason, "the API server does not answer; trying again");
                    sleep(LOOK).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            has_image = true;
            let name = &self.wish.name;
            self.done.note(format!("the Service {name} {what}; kubectl get ksvc {name} shows what becomes of it"));
            tracing::info!(namespace = self.wish.namespace, image = %self.wish.image, "the Service {name} {what}");
            if !self.waits {
                return Ok(service);
            }
            self.wait(service).await?;
        }
    }

    /// A Service that is as it was wished for was perhaps made so by a deployment that failed.
    async fn unchanged(&self, today: Service, written: bool) -> Result<Service, Failure> {
        if !written {
            tracing::info!(service = self.wish.name, image = %self.wish.image, "nothing to change");
        }
        if !self.waits || today.status.is_none() || is_ready(&today) {
            return Ok(today);
        }
        self.wait(today).await
    }

    /// Waits until a change has become true.
    async fn wait(&self, written: Service) -> Result<Service, Failure> {
        let expected = Expected { generation: written.metadata.generation };
        let mut said = String::new();
        let mut said_at = Instant::now();
        loop {
            let read = self
                .patiently(|| self.cluster.service(&self.wish.namespace, &self.wish.name, self.trace.as_ref()))
                .await?;
            let Some(service) = read else {
                return Err(Failure::new("somebody has deleted the Service meanwhile"));
            };
            let waiting = match deploy::progress(&service, expected) {
                Progress::Ready => return Ok(service),
                Progress::Failed(why) => {
                    return Err(Failure::new(format!("{why} ({})", service.users())));
                }
                Progress::Waiting(what) => what,
            };
            if Instant::now() >= self.deadline {
                let users = service.users();
                return Err(Failure::new(format!("not ready in time (--wait-timeout): {waiting} ({users})")));
            }
            if waiting != said || said_at.elapsed() >= SIGN_OF_LIFE {
                tracing::info!("{waiting}");
                said = waiting;
                said_at = Instant::now();
            }
            sleep(LOOK.min(self.deadline - Instant::now())).await;
        }
    }

    /// Asks again while the API server is away.
    async fn patiently<T>(&self, ask: impl AsyncFn() -> Result<T, ServiceError>) -> Result<T, ServiceError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match ask().await {
                Err(ServiceError::Unavailable(reason)) if Instant::now() < until => {
                    tracing::warn!(reason, "the API server does not answer; trying again");
                    sleep(LOOK).await;
                }
                answer => return answer,
            }
        }
    }
}

/// Whether its newest revision is ready, and its status is about what stands there now.
fn is_ready(service: &Service) -> bool {
    deploy::progress(service, Expected { generation: service.metadata.generation }) == Progress::Ready
}

/// Says where the new revision is, to a person and to Tekton.
fn report(service: &Service, wish: &Wish, results: Option<&Path>) -> Result<(), Failure> {
    let revision = service.latest_created().unwrap_or_default();
    let url = service.url().unwrap_or_default();
    let tag_url = wish.rollout.tag().and_then(|tag| service.tag_url(tag)).unwrap_or_default();
    let mut lines = String::new();
    for (name, value) in [("revision", revision), ("url", url), ("tag-url", tag_url)] {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{name}: {value}");
        }
        if let Some(folder) = results {
            let path = folder.join(name);
            fs::write(&path, value).map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        }
    }
    if !lines.is_empty() {
        print(lines.trim_end());
    }
    Ok(())
}
