//! `serve`: takes deliveries until it is stopped.

use std::env::VarError;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::args::{DEFAULT_TRIGGER_CONFIG, LogArgs, TemplateArgs, non_empty, pod_namespace};
use super::auth::{AuthArgs, AuthError};
use crate::delivery::SignaturePolicy;
use crate::http::{self, App, Config, Limits, ReplyEvents, Sink};
use crate::kube::{Cluster, ConfigError};
use crate::mounted::File;
use crate::mounted::reload::{Faults, ReloadMetrics, Reloading};
use crate::mounted::secrets::SecretSources;
use crate::mounted::settings::names_subjects;
use crate::names::{InvalidName, check_dns_label};
use crate::telemetry::log;
use crate::telemetry::metrics::Registry;
use crate::telemetry::otlp::Collector;
use crate::template::TemplateSource;

/// The shipped template, for a dry run without `--trigger-config`.
const SHIPPED_TEMPLATE: &str = include_str!("../../config/base/deployer-trigger.yaml");
/// Connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 1024;
/// Threads for work that would block the one that serves: large bodies, CEL, mounted files.
const BLOCKING_THREADS: usize = 16;
/// Time for the log line of a second signal to be written.
const LAST_LINE: Duration = Duration::from_millis(50);

/// The flags of `serve`.
#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    templates: TemplateArgs,
    /// A file with the webhook secret, or a folder whose files are each one secret; any of them may match.
    #[arg(long, env = "WEBHOOK_SECRET_FILE", value_name = "PATH", hide_env_values = true)]
    webhook_secret_file: Vec<PathBuf>,
    /// Refuse deliveries that carry only the SHA-1 signature.
    #[arg(long, env = "REQUIRE_SHA256", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    require_sha256: bool,
    #[command(flatten)]
    auth: AuthArgs,
    /// Reply to a CloudEvent with a CloudEvent if its sender asks for one (Prefer: reply).
    #[arg(long, env = "REPLY_EVENTS", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    reply_events: bool,
    /// Namespace of runs whose template names none [default: the pod's own, else the kubeconfig's].
    #[arg(long, env = "NAMESPACE", value_name = "NS", hide_env_values = true)]
    namespace: Option<String>,
    /// Print each PipelineRun to standard output instead of creating it; needs no Kubernetes.
    #[arg(long, env = "DRY_RUN", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    dry_run: bool,
    /// Port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8080, value_name = "N", hide_env_values = true)]
    port: u16,
    /// Largest body that is accepted, in bytes; GitHub sends at most 25 MiB.
    #[arg(long, default_value_t = 26_214_400, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_body_bytes: u64,
    /// Bytes of all bodies in memory together.
    #[arg(long, default_value_t = 134_217_728, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    max_buffered_bytes: u64,
    /// Time from a request's first byte to its answer; GitHub waits 10 seconds.
    #[arg(long, default_value_t = 8, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    deadline: u64,
    /// Ignore merges that are older (by `merged_at`): only a replay is; 0 takes merges of any age.
    #[arg(long, default_value_t = 7, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(..=36_500))]
    max_merge_age: u64,
    /// Serve metrics as Prometheus text under /metrics on this address, e.g. 0.0.0.0:9464 [default: off].
    #[arg(long, value_name = "ADDR")]
    metrics_addr: Option<SocketAddr>,
    #[command(flatten)]
    log: LogArgs,
}

/// Why the service does not start: a sentence for the operator.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("--max-buffered-bytes must be at least --max-body-bytes")]
    Buffer,
    #[error(transparent)]
    Auth(#[from] AuthError),
    #[error(
        "no webhook secret: give --webhook-secret-file with the mounted Secret (or WEBHOOK_SECRET for local use); \
         deliveries cannot be verified without it (to accept only CloudEvents without a secret: --cloudevents-auth)"
    )]
    NoSecret,
    #[error(transparent)]
    Files(#[from] Faults),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("{0}; or use --dry-run")]
    Config(#[from] ConfigError),
    #[error("WEBHOOK_SECRET is not UTF-8 text; put the secret into a file (--webhook-secret-file)")]
    SecretEncoding,
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    #[error("cannot start: {0}")]
    Io(#[from] io::Error),
}

/// Serves. Exit code 1 if the service cannot start.
pub(super) fn run(args: ServeArgs) -> ExitCode {
    let _log = log::init(args.log.log_format, &args.log.log_level);
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.to_string().lines().for_each(|line| tracing::error!("{line}"));
            ExitCode::FAILURE
        }
    }
}

/// One thread serves: it answers more deliveries in a second than GitHub sends in an hour.
fn start(args: ServeArgs) -> Result<(), StartError> {
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(BLOCKING_THREADS).build()?;
    let outcome = runtime.block_on(serve(args));
    // Blocking work that still runs has had its time.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: ServeArgs) -> Result<(), StartError> {
    if args.max_buffered_bytes < args.max_body_bytes {
        return Err(StartError::Buffer);
    }
    let stop = stop_signals()?;
    args.auth.check()?;
    let flag = non_empty(args.namespace.clone());
    flag.iter().try_for_each(|namespace| check_dns_label("--namespace", namespace))?;
    let registry = Registry::default();
    log::register_metrics(&registry);
    registry.start_time(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    let build = registry.gauges::<Version, 1>("build_info", "The program's version, as a label.");
    build.with(&Version).set(1.0);
    let reload_metrics = ReloadMetrics::register(&registry);
    let secrets = secrets(&args, &reload_metrics)?;
    let mounts = args.webhook_secret_file.iter().chain([&args.templates.trigger_config]);
    if args.auth.needs_subjects() && !mounts.into_iter().any(|mount| names_subjects(mount)) {
        return Err(AuthError::Subject.into());
    }
    // A dry run needs no cluster, unless it verifies tokens.
    let cluster =
        if args.dry_run && !args.auth.needs_cluster() { None } else { Some(Cluster::connect(&registry).await?) };
    if let (false, Some((cluster, _))) = (args.dry_run, &cluster) {
        let cluster = cluster.clone();
        tokio::spawn(async move { cluster.open_connection().await });
    }
    let templates = templates(&args, &reload_metrics)?;
    let collector = Collector::from_environment();
    let found_namespace = cluster.as_ref().map_or("default", |(_, namespace)| namespace).to_owned();
    let namespace = flag.or_else(pod_namespace).unwrap_or(found_namespace);
    check_dns_label("the namespace", &namespace)?;
    let cloud_events = args.auth.cloud_events(cluster.as_ref().map(|(cluster, _)| cluster))?;
    let config = Config {
        secrets,
        templates,
        signatures: if args.require_sha256 { SignaturePolicy::RequireSha256 } else { SignaturePolicy::AcceptSha1 },
        cloud_events,
        reply_events: args.reply_events.then(|| {
            let name = std::env::var("K_SERVICE").unwrap_or_else(|_| env!("CARGO_PKG_NAME").to_owned());
            ReplyEvents::from_service(&pod_namespace().unwrap_or_else(|| namespace.clone()), &name)
        }),
        tracer: collector.tracer(),
        sink: match cluster {
            Some((cluster, _)) if !args.dry_run => Sink::Cluster(cluster),
            _ => Sink::DryRun,
        },
        namespace,
        limits: Limits {
            max_body: args.max_body_bytes,
            max_buffered: args.max_buffered_bytes,
            deadline: Duration::from_secs(args.deadline),
            max_merge_age: Duration::from_secs(args.max_merge_age * 86_400),
        },
    };
    config.check_teams()?;
    let listener = listen(args.port).map_err(|error| StartError::Listen(format!("port {}", args.port), error))?;
    tracing::info!(
        address = %listener.local_addr()?,
        templates = config.template_count(),
        secrets = config.secrets.current().keyring.len(),
        teams = Some(config.team_count()).filter(|&count| count > 0),
        namespace = config.namespace,
        dry_run = args.dry_run,
        version = env!("CARGO_PKG_VERSION"),
        "taking deliveries"
    );
    let app = App::new(config, registry.clone());
    if let Some(address) = args.metrics_addr {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| StartError::Listen(format!("{address} for metrics"), error))?;
        tracing::info!(address = %listener.local_addr()?, "serving metrics");
        tokio::spawn(http::serve_metrics(listener, Arc::clone(&app)));
    }
    let prefetching = Arc::clone(&app);
    tokio::spawn(async move { prefetching.prefetch_keys().await });
    let exporter = collector.metrics();
    if let Some(exporter) = exporter.clone() {
        let app = Arc::clone(&app);
        tokio::spawn(exporter.run(registry.clone(), move || app.update_metrics()));
    }
    http::serve(listener, Arc::clone(&app), stop).await;
    if let Some(exporter) = exporter {
        app.update_metrics();
        exporter.send_last(&registry).await;
    }
    collector.shut_down().await;
    tracing::info!("stopped");
    Ok(())
}

/// The program's version as a label.
struct Version;

impl crate::telemetry::metrics::Labels<1> for Version {
    const NAMES: [&'static str; 1] = ["version"];

    fn values(&self) -> [&str; 1] {
        [env!("CARGO_PKG_VERSION")]
    }

    fn all() -> Vec<Self> {
        vec![Self]
    }
}

fn secrets(args: &ServeArgs, metrics: &ReloadMetrics) -> Result<Reloading<SecretSources>, StartError> {
    let sources = SecretSources {
        paths: args.webhook_secret_file.clone(),
        value: match std::env::var("WEBHOOK_SECRET") {
            Ok(value) => Some(value.into()),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => return Err(StartError::SecretEncoding),
        },
    };
    if sources.is_empty() {
        if args.auth.needs_secret() {
            return Err(StartError::NoSecret);
        }
        tracing::info!("no webhook secret: only CloudEvents are accepted");
    }
    Ok(Reloading::start(sources, metrics)?)
}

fn templates(args: &ServeArgs, metrics: &ReloadMetrics) -> Result<Reloading<TemplateSource>, StartError> {
    let path = args.templates.trigger_config.clone();
    let source = if args.dry_run && path == Path::new(DEFAULT_TRIGGER_CONFIG) && !path.exists() {
        tracing::info!("no --trigger-config: the dry run uses the shipped template");
        let content = SHIPPED_TEMPLATE.as_bytes().to_vec();
        TemplateSource::Shipped(File { path: "config/base/deployer-trigger.yaml".into(), content })
    } else {
        TemplateSource::Mounted(path)
    };
    Ok(Reloading::start(source, metrics)?)
}

/// Listens on every address of the machine: IPv6 and IPv4, or IPv4 alone where the kernel has no IPv6.
fn listen(port: u16) -> io::Result<TcpListener> {
    let bind = |socket: TcpSocket, address: SocketAddr| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let both = TcpSocket::new_v6().and_then(|socket| bind(socket, (Ipv6Addr::UNSPECIFIED, port).into()));
    both.or_else(|_| bind(TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, port).into()))
}

/// Done at the first SIGTERM or SIGINT; a second one ends the process at once.
fn stop_signals() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; finishing the requests in flight");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("stopped by a second signal");
            tokio::time::sleep(LAST_LINE).await;
            std::process::exit(1);
        });
    })
}
