//! The command line: `serve` (the default), `render`, `lint`, `deploy`.

mod auth;
mod deploy;
mod lint;
mod render;
mod serve;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::telemetry::{LogFilter, LogFormat};

/// Where a pod finds the name of its namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Where the seed mounts its template.
const DEFAULT_TRIGGER_CONFIG: &str = "/app/config/deployer-trigger.yaml";

/// Turns merged GitHub pull requests into Tekton PipelineRuns.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take deliveries and create PipelineRuns (the default command).
    Serve(serve::ServeArgs),
    /// Print the PipelineRuns that a saved payload would create.
    Render(render::RenderArgs),
    /// Check templates without an event.
    Lint(lint::LintArgs),
    /// Put an image into a Knative Service, and wait until it runs.
    Deploy(deploy::DeployArgs),
}

/// Which lines are logged, and how.
#[derive(Debug, Clone, Args)]
struct LogArgs {
    /// How log lines are written.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t, hide_env_values = true)]
    log_format: LogFormat,
    /// Which log lines are written: a level, or directives such as info,kube=debug.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "LEVEL", hide_env_values = true)]
    log_level: LogFilter,
}

/// Where templates are.
#[derive(Debug, Clone, Args)]
struct TemplateArgs {
    /// A template file, or a folder of *.yaml files.
    #[arg(long, env = "TRIGGER_CONFIG", default_value = DEFAULT_TRIGGER_CONFIG, value_name = "PATH", hide_env_values = true)]
    trigger_config: PathBuf,
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> ExitCode {
        match self.command {
            None => serve::run(self.serve),
            Some(Command::Serve(args)) => serve::run(args),
            Some(Command::Render(args)) => render::run(&args),
            Some(Command::Lint(args)) => lint::run(&args),
            Some(Command::Deploy(args)) => deploy::run(&args),
        }
    }
}

/// The namespace of the pod that this runs in.
fn pod_namespace() -> Option<String> {
    let namespace = fs::read_to_string(POD_NAMESPACE).ok()?;
    let namespace = namespace.trim();
    (!namespace.is_empty()).then(|| namespace.to_owned())
}

/// Writes a line that somebody asked for to standard output; a reader that has gone is no error of ours.
fn print(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes a line for a person to standard error.
fn complain(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
