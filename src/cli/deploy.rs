//! `deploy`: the Deployer, the last task of a pipeline.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{LogArgs, non_empty, pod_namespace};
use super::process::{print, runtime};
use crate::deploy::{
    Desired, Finished, Image, ImageError, Journal, Outcome, Rollout, RolloutError, ServiceClient, Stamp, TrafficMode,
    Wait,
};
use crate::github::Commit;
use crate::kube::{Cluster, ConfigError};
use crate::names::{InvalidName, check_dns_label, check_service_name, check_subdomain};
use crate::telemetry::log;
use crate::telemetry::metrics::Registry;
use crate::telemetry::otlp::Collector;
use crate::telemetry::trace::TraceContext;

/// Tag of a revision without traffic, unless `--tag` names another.
const DEFAULT_TAG: &str = "test";
/// The outcome of `--check` where nothing newer is known to be deployed.
const NEEDED: &str = "needed";

/// The flags of `deploy`.
#[derive(Debug, Clone, Args)]
pub(super) struct DeployArgs {
    /// The image to run, best with a digest: registry/path@sha256:...
    #[arg(long, value_name = "REF", required_unless_present_any = ["rollback", "check"])]
    image: Option<String>,
    /// Name of the Knative Service; it is created if it does not exist.
    #[arg(long, alias = "serivce-name", value_name = "NAME")]
    service_name: String,
    /// Namespace of the Service [default: the pod's own, else the kubeconfig's].
    #[arg(long, env = "NAMESPACE", value_name = "NS", hide_env_values = true)]
    namespace: Option<String>,
    /// Leave the traffic where it is; the new revision is reachable under the tag's URL only.
    #[arg(long, conflicts_with_all = ["to_latest", "canary"])]
    no_traffic: bool,
    /// Send all traffic to the new revision.
    #[arg(long, conflicts_with = "canary")]
    to_latest: bool,
    /// Send this share of the traffic to the new revision; the rest stays where it is.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    canary: Option<u8>,
    /// Tag of the new revision, with --no-traffic [default: test] or --canary.
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Send all traffic to an earlier revision and keep it there: the last one that had all users, or --to.
    #[arg(long, conflicts_with_all = ["image", "no_traffic", "to_latest", "canary", "tag", "container"])]
    rollback: bool,
    /// The revision to roll back to.
    #[arg(long, value_name = "REVISION", requires = "rollback")]
    to: Option<String>,
    /// Only say whether something newer is deployed already: outcome `superseded`, else `needed`, also if that is not known.
    #[arg(long, conflicts_with_all = ["image", "rollback", "no_traffic", "to_latest", "canary", "tag", "container", "force"])]
    check: bool,
    /// The commit that is deployed, all digits; stamped on Service and revision.
    #[arg(long, env = "GITHUB_TRIGGER_COMMIT", value_name = "SHA", hide_env_values = true)]
    commit: Option<String>,
    /// Time of its merge, RFC 3339: something newer is not replaced.
    #[arg(long, env = "GITHUB_TRIGGER_MERGED_AT", value_name = "TIME", hide_env_values = true)]
    merged_at: Option<String>,
    /// Decides between merges of the same time: the higher number is newer.
    #[arg(long, env = "GITHUB_TRIGGER_ORDER", value_name = "N", hide_env_values = true)]
    order: Option<String>,
    /// Page of its pull request; stamped on Service and revision.
    #[arg(long, env = "GITHUB_TRIGGER_PULL_REQUEST_URL", value_name = "URL", hide_env_values = true)]
    pull_request_url: Option<String>,
    /// Deploy although something newer is deployed.
    #[arg(long)]
    force: bool,
    /// Container that gets the image [default: the only one, or the one with a port].
    #[arg(long, value_name = "NAME")]
    container: Option<String>,
    /// Container port of a Service that is created.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Service account of a Service that is created [default: the namespace's].
    #[arg(long, value_name = "NAME")]
    service_account: Option<String>,
    /// Secret with which a Service that is created pulls its image; can be repeated.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pull_secret: Vec<String>,
    /// Time to wait for the new revision; 0 does not wait.
    #[arg(long, value_name = "SECONDS", default_value_t = 900, value_parser = clap::value_parser!(u64).range(..=604_800))]
    wait_timeout: u64,
    /// Time that a condition must be false to count as a failure: Knative may recover, for example when a node is added.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(..=604_800))]
    failure_window: u64,
    /// Folder for the Tekton results outcome, revision, url, tag-url, percent and previous-revision.
    #[arg(long, value_name = "DIR")]
    results_dir: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

fn percent(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(percent @ 1..=99) => Ok(percent),
        _ => Err("write a number from 1 to 99; for all traffic use --to-latest, for none --no-traffic".into()),
    }
}

/// Why the command fails; one line for the operator.
#[derive(Debug, thiserror::Error)]
enum DeployError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("--tag needs --no-traffic or --canary")]
    Tag,
    #[error("--commit {0:?} is not a full commit; write all 40 (or 64) hexadecimal digits")]
    Commit(String),
    #[error("--merged-at {0:?} is not a time of RFC 3339, for example 2026-11-22T13:46:53Z")]
    MergedAt(String),
    #[error("--order {0:?} is not a number")]
    Order(String),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    #[error("interrupted: {done}")]
    Interrupted { done: String, code: u8 },
    #[error("cannot write the result {}: {error}", path.display())]
    Result { path: PathBuf, error: io::Error },
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

impl DeployError {
    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Interrupted { code, .. } => ExitCode::from(*code),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Deploys. Exit code 1 if it fails, 130 or 143 if it is interrupted by SIGINT or SIGTERM.
pub(super) fn run(args: &DeployArgs) -> ExitCode {
    let _log = log::init(args.log.log_format, &args.log.log_level);
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.exit_code(),
    }
}

/// Deploys, and logs the error; then sends the last spans, also of a deployment that was interrupted.
fn start(args: &DeployArgs) -> Result<(), DeployError> {
    let logged = |error: DeployError| {
        tracing::error!("{error}");
        error
    };
    runtime().map_err(DeployError::from).map_err(logged)?.block_on(async {
        let collector = Collector::from_environment();
        let outcome = interruptible(args, &collector).await.map_err(logged);
        collector.shut_down().await;
        outcome
    })
}

async fn interruptible(args: &DeployArgs, collector: &Collector) -> Result<(), DeployError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let journal = Journal::default();
    let interrupted = |code| DeployError::Interrupted { done: journal.sentence(), code };
    tokio::select! {
        outcome = deploy(args, &journal, collector) => outcome,
        _ = interrupt.recv() => Err(interrupted(130)),
        _ = terminate.recv() => Err(interrupted(143)),
    }
}

/// Says whether something newer is deployed. A pipeline asks before it builds: what is not known must not keep it from that.
async fn check(args: &DeployArgs) -> Result<(), DeployError> {
    let stamp = stamp(args)?;
    check_service_name("--service-name", &args.service_name)?;
    let flag = non_empty(args.namespace.clone());
    flag.iter().try_for_each(|namespace| check_dns_label("--namespace", namespace))?;
    let name = &args.service_name;
    let current = match Cluster::connect(&Registry::default()).await {
        Ok((cluster, found)) => {
            let namespace = flag.or_else(pod_namespace).unwrap_or(found);
            let service = cluster.knative_service(&namespace, name, None);
            service.read().await.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    let outcome = match current {
        Ok(Some(service)) if stamp.is_superseded_by(&service.stamp()) => {
            tracing::info!("{} is deployed to the Service {name}, and is newer", service.stamp().words());
            Outcome::Superseded.as_str()
        }
        Ok(_) => NEEDED,
        Err(error) => {
            tracing::warn!(error, "it is not known what is deployed to the Service {name}; the build goes on");
            NEEDED
        }
    };
    print(format_args!("outcome: {outcome}"));
    write_result(args.results_dir.as_deref(), "outcome", outcome)
}

/// Makes sure that results can be written, before anything is changed.
fn check_results(folder: Option<&Path>) -> Result<(), DeployError> {
    let Some(path) = folder.map(|folder| folder.join("outcome")) else { return Ok(()) };
    let opened = fs::OpenOptions::new().create(true).append(true).open(&path);
    opened.map(drop).map_err(|error| DeployError::Result { path, error })
}

/// Writes a Tekton result, if there is a folder for it.
fn write_result(folder: Option<&Path>, name: &str, value: &str) -> Result<(), DeployError> {
    let Some(folder) = folder else { return Ok(()) };
    let path = folder.join(name);
    fs::write(&path, value).map_err(|error| DeployError::Result { path, error })
}

async fn deploy(args: &DeployArgs, journal: &Journal, collector: &Collector) -> Result<(), DeployError> {
    if args.check {
        return check(args).await;
    }
    let image = args.image.as_deref().map(str::parse::<Image>).transpose()?;
    let stamp = stamp(args)?;
    if args.tag.is_some() && !args.no_traffic && args.canary.is_none() {
        return Err(DeployError::Tag);
    }
    check_service_name("--service-name", &args.service_name)?;
    args.tag.iter().try_for_each(|tag| check_service_name("--tag", tag))?;
    args.to.iter().try_for_each(|revision| check_service_name("--to", revision))?;
    args.container.iter().try_for_each(|container| check_dns_label("--container", container))?;
    args.service_account.iter().try_for_each(|name| check_subdomain("--service-account", name))?;
    args.pull_secret.iter().try_for_each(|name| check_subdomain("--pull-secret", name))?;
    let flag = non_empty(args.namespace.clone());
    flag.iter().try_for_each(|namespace| check_dns_label("--namespace", namespace))?;
    let (cluster, found_namespace) = Cluster::connect(&Registry::default()).await?;
    let namespace = flag.or_else(pod_namespace).unwrap_or(found_namespace);
    check_dns_label("the namespace", &namespace)?;
    check_results(args.results_dir.as_deref())?;
    let desired = Desired {
        name: args.service_name.clone(),
        namespace: namespace.clone(),
        image,
        container: args.container.clone(),
        port: args.port,
        service_account: args.service_account.clone(),
        pull_secrets: args.pull_secret.clone(),
        stamp,
        force: args.force,
        attempt: Some(jiff::Timestamp::now().to_string()),
        traffic: match (args.no_traffic, args.to_latest, args.canary) {
            (true, ..) => TrafficMode::NoTraffic { tag: args.tag.clone().unwrap_or_else(|| DEFAULT_TAG.to_owned()) },
            (_, true, _) => TrafficMode::ToLatest,
            _ if args.rollback => TrafficMode::Rollback { to: args.to.clone(), is_named: args.to.is_some() },
            (.., Some(percent)) => TrafficMode::Canary { percent, tag: args.tag.clone() },
            _ => TrafficMode::Keep,
        },
        wait: match args.wait_timeout {
            0 => Wait::No,
            seconds => Wait::AtMost(Duration::from_secs(seconds)),
        },
    };
    let parent = TraceContext::from_environment();
    let span = collector.tracer().command("deploy", parent.as_ref());
    span.set("github_trigger.image", args.image.clone().unwrap_or_default());
    span.set("github_trigger.service", format!("{namespace}/{}", args.service_name));
    let trace = span.context().or(parent);
    if let Some(trace) = &trace {
        tracing::info!(trace_id = %trace.trace_id(), "part of a trace");
    }
    let tag = desired.traffic.tag().map(str::to_owned);
    let client = cluster.knative_service(&namespace, &args.service_name, trace);
    let failure_window = Duration::from_secs(args.failure_window);
    let outcome = Rollout::new(client, desired, failure_window, journal).run().await;
    if let Err(error) = &outcome {
        span.fail(&error.to_string());
        // The other errors say what the Service is like.
        if matches!(error, RolloutError::Service(_)) && journal.has_change() {
            tracing::info!("{}", journal.sentence());
        }
    }
    drop(span);
    report(&outcome?, args, tag.as_deref())
}

/// The stamp of the flags; an empty value, as of an annotation that a run does not have, counts as none.
fn stamp(args: &DeployArgs) -> Result<Stamp, DeployError> {
    let value = |text: &Option<String>| non_empty(text.clone());
    let commit = value(&args.commit).map(|text| match Commit::parse(&text) {
        Some(commit) => Ok(commit.to_string()),
        None => Err(DeployError::Commit(text)),
    });
    let merged_at = value(&args.merged_at).map(|text| text.parse().map_err(|_| DeployError::MergedAt(text)));
    let order = value(&args.order).map(|text| text.parse().map_err(|_| DeployError::Order(text)));
    Ok(Stamp {
        commit: commit.transpose()?,
        merged_at: merged_at.transpose()?,
        order: order.transpose()?,
        pull_request: value(&args.pull_request_url),
    })
}

/// Prints the outcome, the revision and its URLs, and writes them as Tekton results.
fn report(finished: &Finished, args: &DeployArgs, tag: Option<&str>) -> Result<(), DeployError> {
    let Finished { outcome, service, previous } = finished;
    let results = args.results_dir.as_deref();
    let revision = match outcome {
        // The newest one is of another commit.
        Outcome::Superseded => None,
        // A change that Knative has not observed yet has no name.
        _ if args.rollback => args.to.as_deref().or(service.revision_with_all_users().filter(|_| service.is_settled())),
        _ => service.latest_created().filter(|_| service.is_settled()),
    };
    let revision = revision.unwrap_or_default();
    let url = service.url().unwrap_or_default();
    let tag_url = tag.and_then(|tag| service.tag_url(tag)).unwrap_or_default();
    let percent = service.percent_on(revision);
    let has_users = service.status.is_some() && !revision.is_empty();
    let is_deployment = matches!(outcome, Outcome::Deployed | Outcome::Unchanged) && !args.rollback;
    if is_deployment && has_users && percent < 100 {
        let next = match service.is_moving_users() {
            true => "Knative goes on to move users to it (rollout-duration)",
            false => "--to-latest sends all traffic to it",
        };
        tracing::warn!(percent, "users see {percent} % of the new revision {revision} ({}); {next}", service.users());
    }
    let percent = if has_users { percent.to_string() } else { String::new() };
    let previous = previous.as_deref().unwrap_or_default();
    let mut lines = String::new();
    for (name, value) in [
        ("outcome", outcome.as_str()),
        ("revision", revision),
        ("url", url),
        ("tag-url", tag_url),
        ("percent", &percent),
        ("previous-revision", previous),
    ] {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(lines, "{name}: {value}");
        }
        write_result(results, name, value)?;
    }
    print(lines.trim_end());
    Ok(())
}
