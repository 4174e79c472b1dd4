//! `serve`: reads what is mounted, and takes deliveries until told to stop.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener as Socket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Args;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use super::auth::AuthArgs;
use super::{DEFAULT_TRIGGER_CONFIG, LogArgs, TemplateArgs, pod_namespace};
use crate::cluster::Cluster;
use crate::delivery::{Key, SignaturePolicy};
use crate::mounted;
use crate::reload::Reloading;
use crate::secrets::{self, SecretSources};
use crate::server::{self, App, Budget, CloudEventsAuth, Flood, Limits, ReplyEvents, Sink, lanes};
use crate::telemetry;
use crate::telemetry::otlp::Collector;
use crate::template::{self, LoadError, TemplateSet};

/// The template of the seed, for a dry run that was given none.
const SHIPPED_TEMPLATE: &str = include_str!("../../config/base/deployer-trigger.yaml");
/// Connections that the kernel keeps for us while we are busy.
const BACKLOG: u32 = 1024;

/// The flags of `serve`.
#[derive(Debug, Clone, Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    templates: TemplateArgs,
    /// A file with the webhook's secret, or a folder whose files are each one secret; any of them may match.
    #[arg(long, env = "WEBHOOK_SECRET_FILE", value_name = "PATH", hide_env_values = true)]
    webhook_secret_file: Vec<PathBuf>,
    /// Refuse deliveries that carry only the SHA-1 signature.
    #[arg(long, env = "REQUIRE_SHA256", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    require_sha256: bool,
    #[command(flatten)]
    auth: AuthArgs,
    /// Reply to a CloudEvent with a CloudEvent when its sender asks for one (Prefer: reply).
    #[arg(long, env = "REPLY_EVENTS", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    reply_events: bool,
    /// The namespace of templates that name none [default: the pod's own, else the kubeconfig's].
    #[arg(long, env = "NAMESPACE", value_name = "NS", hide_env_values = true)]
    namespace: Option<String>,
    /// Print each PipelineRun to standard output instead of creating it; needs no Kubernetes.
    #[arg(long, env = "DRY_RUN", value_parser = clap::builder::FalseyValueParser::new(), hide_env_values = true)]
    dry_run: bool,
    /// The port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8080, value_name = "N", hide_env_values = true)]
    port: u16,
    /// The largest body that is taken; GitHub sends at most 25 MiB.
    #[arg(long, default_value_t = 26_214_400, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_body_bytes: u64,
    /// The bytes of all bodies in memory together.
    #[arg(long, default_value_t = 134_217_728, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    max_buffered_bytes: u64,
    /// From a request's first byte to its answer; GitHub gives up after 10 seconds.
    #[arg(long, default_value_t = 8, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    deadline: u64,
    /// Serve metrics as Prometheus text under /metrics on this address, e.g. 0.0.0.0:9090 [default: off].
    #[arg(long, value_name = "ADDR")]
    metrics_addr: Option<SocketAddr>,
    #[command(flatten)]
    log: LogArgs,
}

/// Serves; exit code 1 if it cannot start.
pub(super) fn run(args: ServeArgs) -> ExitCode {
    let log = telemetry::init(args.log.log_format, &args.log.log_level);
    let runtime = match lanes::runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(reason = %error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(serve(args));
    // What still runs has had its time.
    runtime.shutdown_background();
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError(message)) => {
            message.lines().for_each(|line| tracing::error!("{line}"));
            ExitCode::FAILURE
        }
    };
    drop(log);
    code
}

/// Why the service does not start: a sentence for the operator.
struct StartError(String);

impl<E: std::error::Error> From<E> for StartError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

async fn serve(args: ServeArgs) -> Result<(), StartError> {
    if args.max_buffered_bytes < args.max_body_bytes {
        return Err(StartError("--max-buffered-bytes must be at least --max-body-bytes".into()));
    }
    let stop = stop_signals()?;
    args.auth.check().map_err(StartError)?;
    let secrets = secrets(&args)?;
    let metrics = server::fresh_metrics();
    let mut warming = None;
    // A dry run needs no cluster, unless tokens have to be verified.
    let cluster = if args.dry_run && !args.auth.needs_cluster() {
        None
    } else {
        let connected = Cluster::connect(metrics.api_calls()).await;
        // The first delivery would have to wait for it; the templates take their time as well.
        if let (false, Ok((cluster, _))) = (args.dry_run, &connected) {
            let cluster = cluster.clone();
            warming = Some(tokio::spawn(async move { cluster.warm().await }));
        }
        Some(connected)
    };
    let templates = templates(&args)?;
    let cluster = cluster.transpose()?;
    let collector = Collector::of_environment();
    let found_namespace = cluster.as_ref().map_or("default", |(_, namespace)| namespace).to_owned();
    let namespace = args.namespace.clone().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.or_else(pod_namespace).unwrap_or(found_namespace);
    let cloud_events = args.auth.cloud_events(cluster.as_ref().map(|(cluster, _)| cluster)).map_err(StartError)?;
    let sink = match cluster {
        Some((cluster, _)) if !args.dry_run => Sink::Cluster(cluster),
        _ => Sink::DryRun,
    };
    let app = Arc::new(App {
        secrets,
        templates,
        signatures: if args.require_sha256 { SignaturePolicy::RequireSha256 } else { SignaturePolicy::AcceptSha1 },
        cloud_events,
        reply_events: args.reply_events.then(|| {
            let name = std::env::var("K_SERVICE").unwrap_or_else(|_| env!("CARGO_PKG_NAME").to_owned());
            ReplyEvents::of_service(&pod_namespace().unwrap_or_else(|| namespace.clone()), &name)
        }),
        metrics,
        tracer: collector.tracer(),
        sink,
        namespace,
        limits: Limits { max_body: args.max_body_bytes, deadline: Duration::from_secs(args.deadline) },
        budget: Budget::new(args.max_buffered_bytes),
        evaluations: Arc::new(Semaphore::new(server::EVALUATIONS)),
        flood: Flood::default(),
        draining: AtomicBool::new(false),
    });
    let socket =
        listen(args.port).map_err(|error| StartError(format!("cannot listen on port {}: {error}", args.port)))?;
    tracing::info!(
        address = %socket.local_addr()?,
        templates = app.templates.current().len(),
        secrets = app.secrets.current().len(),
        namespace = app.namespace,
        dry_run = args.dry_run,
        version = env!("CARGO_PKG_VERSION"),
        "taking deliveries"
    );
    if let Some(address) = args.metrics_addr {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| StartError(format!("cannot listen on {address} for metrics: {error}")))?;
        tracing::info!(address = %listener.local_addr()?, "serving metrics");
        tokio::spawn(server::serve_metrics(listener, Arc::clone(&app)));
    }
    tokio::spawn(read_keys(Arc::clone(&app)));
    let push = collector.push();
    if let Some(push) = push.clone() {
        let app = Arc::clone(&app);
        tokio::spawn(push.run(move || app.metrics_text()));
    }
    let warm = async {
        if let Some(warming) = warming {
            // It cannot fail, it only ends.
            let _ = warming.await;
        }
    };
    server::serve(socket, Arc::clone(&app), warm, stop).await?;
    if let Some(push) = push {
        push.send_last(&app.metrics_text()).await;
    }
    collector.finish().await;
    tracing::info!("stopped");
    Ok(())
}

/// The first event would have to wait for them.
async fn read_keys(app: Arc<App>) {
    if let CloudEventsAuth::Oidc { issuer, .. } = &app.cloud_events {
        issuer.warm().await;
    }
}

fn secrets(args: &ServeArgs) -> Result<Reloading<Vec<Key>>, StartError> {
    let sources = SecretSources {
        paths: args.webhook_secret_file.clone(),
        value: std::env::var_os("WEBHOOK_SECRET").map(|value| value.to_string_lossy().into_owned().into()),
    };
    if sources.is_empty() && !args.auth.needs_secret() {
        tracing::info!("no webhook secret: only CloudEvents are taken");
        return Ok(Reloading::start("webhook secrets", Vec::new(), || Ok::<_, secrets::Error>(Vec::new()))?);
    }
    Ok(Reloading::start("webhook secrets", sources.paths.clone(), move || sources.load())?)
}

fn templates(args: &ServeArgs) -> Result<Reloading<TemplateSet>, StartError> {
    let path = args.templates.trigger_config.clone();
    if args.dry_run && path == Path::new(DEFAULT_TRIGGER_CONFIG) && !path.exists() {
        tracing::info!("no --trigger-config: a dry run uses the template that it was shipped with");
        return Ok(Reloading::start("templates", Vec::new(), shipped_templates)?);
    }
    Ok(Reloading::start("templates", vec![path.clone()], move || {
        let loaded = template::load(&path)?;
        loaded.findings.iter().for_each(|finding| tracing::warn!("{finding}"));
        Ok::<_, LoadError>(loaded.templates)
    })?)
}

fn shipped_templates() -> Result<TemplateSet, LoadError> {
    let file = mounted::File {
        path: "config/base/deployer-trigger.yaml".into(),
        content: SHIPPED_TEMPLATE.as_bytes().to_vec(),
    };
    match template::parse(vec![file]) {
        (templates, findings) if !templates.is_empty() => {
            drop(findings);
            Ok(templates)
        }
        (_, findings) => Err(LoadError::Findings(findings)),
    }
}

/// Every address of the machine, IPv6 and IPv4 where the kernel has both.
fn listen(port: u16) -> std::io::Result<Socket> {
    let bind = |socket: TcpSocket, address: SocketAddr| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    let both = TcpSocket::new_v6().and_then(|socket| bind(socket, (Ipv6Addr::UNSPECIFIED, port).into()));
    both.or_else(|_| bind(TcpSocket::new_v4()?, (Ipv4Addr::UNSPECIFIED, port).into()))
}

/// Done at the first SIGTERM or SIGINT; a second one ends the process at once.
fn stop_signals() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("asked to stop; finishing what is in flight");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("asked to stop again; leaving at once");
            // Time for the line above to be written.
            tokio::time::sleep(Duration::from_millis(50)).await;
            std::process::exit(1);
        });
    })
}
