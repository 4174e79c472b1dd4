//! The command line: `serve` (the default), `render`, `lint`, `deploy`, `report`, `token`,
//! `send`, `rerun`, `recover`, `why`, `completions`, `man`.

mod auth;
mod deploy;
mod github;
mod lint;
mod recover;
mod render;
mod report;
mod rerun;
mod saved;
mod send;
mod serve;
mod shell;
mod token;
mod why;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::{Builder, Runtime};

use crate::telemetry::log::{LogFilter, LogFormat};
use crate::template::{self, LintedTeam, LoadError, Severity, TeamTemplates};

/// File with the name of a pod's namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Mount path of the templates in `config/base/service.yaml`.
const DEFAULT_TRIGGER_CONFIG: &str = "/app/config/deployer-trigger.yaml";

/// Exit code of a command that has nothing to do; not 1, so that scripts can tell it from an error.
const NOTHING_TO_DO: u8 = 3;

/// Turns merged GitHub pull requests into Tekton PipelineRuns.
#[derive(Debug, Parser)]
#[command(name = "github-trigger", version, args_conflicts_with_subcommands = true)]
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
    /// Post a saved payload to the service, signed, as GitHub would.
    Send(send::SendArgs),
    /// Repeat a run, for example a failed one, with your own rights.
    Rerun(rerun::RerunArgs),
    /// Find merges that were missed, and have them delivered.
    Recover(recover::RecoverArgs),
    /// Tell the road of a merge, from GitHub to the users, and what to do where it ends.
    Why(why::WhyArgs),
    /// Tell GitHub about a build: a commit's status, and a deployment.
    Report(report::ReportArgs),
    /// Get a short-lived token for one repository.
    Token(token::TokenArgs),
    /// Print completions for a shell.
    Completions(shell::CompletionsArgs),
    /// Print the manual page.
    Man(shell::ManArgs),
    /// Deploy an image to a Knative Service, and wait until the new revision is ready.
    Deploy(deploy::DeployArgs),
}

/// Flags of the log.
#[derive(Debug, Clone, Args)]
struct LogArgs {
    /// Format of log lines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t, hide_env_values = true)]
    log_format: LogFormat,
    /// Log lines to write: a level, or directives such as info,kube=debug.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "LEVEL", hide_env_values = true)]
    log_level: LogFilter,
}

/// Flags of the templates.
#[derive(Debug, Clone, Args)]
struct TemplateArgs {
    /// A template file, or a folder of *.yaml files and of folders of teams.
    #[arg(long, env = "TRIGGER_CONFIG", default_value = DEFAULT_TRIGGER_CONFIG, value_name = "PATH", hide_env_values = true)]
    trigger_config: PathBuf,
}

/// Flags of the templates of one team, or of all.
#[derive(Debug, Clone, Args)]
struct TeamTemplateArgs {
    #[command(flatten)]
    templates: TemplateArgs,
    /// Look at one team's folder alone [default: the top level and every team].
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
}

/// A team that has no folder.
#[derive(Debug, thiserror::Error)]
#[error("{} has no {what}; {known}", path.display())]
struct UnknownTeam {
    path: PathBuf,
    what: String,
    known: String,
}

impl TeamTemplateArgs {
    /// The template file, or the folder.
    fn path(&self) -> &Path {
        &self.templates.trigger_config
    }

    /// Checks the templates.
    /// Fails when they cannot be read, or the team has no folder.
    fn lint(&self) -> Result<Vec<LintedTeam>, Box<dyn std::error::Error>> {
        let teams = template::lint(self.path())?;
        match &self.team {
            Some(name) => Ok(vec![find_team(teams, self.path(), Some(name))?]),
            None => Ok(teams),
        }
    }
}

/// The templates of a team, or those of the top level.
/// Fails when there is no such team.
fn find_team(mut teams: Vec<LintedTeam>, path: &Path, name: Option<&str>) -> Result<LintedTeam, UnknownTeam> {
    if let Some(index) = teams.iter().position(|linted| linted.team.name() == name) {
        return Ok(teams.swap_remove(index));
    }
    let names: Vec<&str> = teams.iter().filter_map(|linted| linted.team.name()).collect();
    let known = if names.is_empty() { "it has no teams".into() } else { format!("its teams: {}", names.join(", ")) };
    let what = name.map_or_else(|| "template outside the teams' folders".to_owned(), |name| format!("folder {name:?}"));
    Err(UnknownTeam { path: path.to_owned(), what, known })
}

/// Reads and checks the templates of a team, or those of the top level.
/// Fails when there is no such team, or they are not valid.
fn valid_templates(path: &Path, team: Option<&str>) -> Result<TeamTemplates, Box<dyn std::error::Error>> {
    let (templates, findings) = find_team(template::lint(path)?, path, team)?.result?;
    match findings.iter().any(|finding| finding.severity == Severity::Error) {
        true => Err(LoadError::Findings(findings).into()),
        false => Ok(templates),
    }
}

/// Flags of what a command prints.
#[derive(Debug, Clone, Args)]
struct OutputArgs {
    /// Format of the result.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Format of a command's result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl OutputArgs {
    fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

impl Cli {
    /// Parses the command line of this process. Ends it with 2 where that is not valid; with 0 where a build must go on, for
    /// example with a run's annotation that is no commit.
    pub fn from_command_line() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            let mut arguments = std::env::args().skip(1);
            let is_report = arguments.next().is_some_and(|command| command == "report");
            if error.use_stderr() && is_report && arguments.any(|flag| flag == "--in-pipeline") {
                let _ = error.print();
                print_error("nothing is reported; the build goes on (--in-pipeline)");
                std::process::exit(0);
            }
            error.exit()
        })
    }

    /// Runs the command. Returns its exit code: 0 done, 1 an error, others as each command documents.
    pub fn run(self) -> ExitCode {
        match self.command {
            None => serve::run(self.serve),
            Some(Command::Serve(args)) => serve::run(args),
            Some(Command::Render(args)) => render::run(&args),
            Some(Command::Lint(args)) => lint::run(&args),
            Some(Command::Send(args)) => send::run(&args),
            Some(Command::Rerun(args)) => rerun::run(&args),
            Some(Command::Recover(args)) => recover::run(&args),
            Some(Command::Why(args)) => why::run(&args),
            Some(Command::Report(args)) => report::run(&args),
            Some(Command::Token(args)) => token::run(&args),
            Some(Command::Completions(args)) => shell::completions(&args),
            Some(Command::Man(args)) => shell::man(&args),
            Some(Command::Deploy(args)) => deploy::run(&args),
        }
    }
}

/// The namespace of the pod that this process runs in; `None` outside a pod.
fn pod_namespace() -> Option<String> {
    non_empty(fs::read_to_string(POD_NAMESPACE).ok().map(|namespace| namespace.trim().to_owned()))
}

/// A flag or variable that is set to nothing counts as not set.
fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The runtime of a command that is not the service.
/// Fails when the system has no resources for it.
fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Writes a line of the command's result to standard output. A closed pipe is not an error of this program.
fn print(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes a line for a person to standard error.
fn print_error(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
