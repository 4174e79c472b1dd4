//! The command line: `serve` (the default), `render`, `lint`, `deploy`, `report`, `token`,
//! `send`, `rerun`, `recover`, `why`, `completions`, `man`.

mod args;
mod auth;
mod deploy;
mod github;
mod lint;
mod process;
mod recover;
mod render;
mod report;
mod rerun;
mod saved;
mod send;
mod serve;
mod shell;
mod team_templates;
mod token;
mod why;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use process::print_error;

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

impl Cli {
    /// Parses the command line of this process. Ends it with 2 where that is not valid; with 0 where a build must go on, for
    /// example with a run's annotation that is no commit.
    pub fn from_command_line() -> Self {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        Self::parse_arguments(&arguments).unwrap_or_else(|error| {
            let mut arguments = arguments.iter().skip(1);
            let is_report = arguments.next().is_some_and(|command| command == "report");
            if error.use_stderr() && is_report && arguments.any(|flag| flag == "--in-pipeline") {
                let _ = error.print();
                print_error("nothing is reported; the build goes on (--in-pipeline)");
                std::process::exit(0);
            }
            error.exit()
        })
    }

    /// Parses arguments. The variables of `serve` are for itself alone, and one that is set to nothing counts as not set.
    fn parse_arguments(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
        // Those of a run's annotations are empty where a run has none, which the commands say.
        let may_be_empty = |name: &OsStr| name.to_string_lossy().starts_with("GITHUB_TRIGGER_");
        let unset = |argument: Arg| match argument.get_env() {
            Some(name) if is_empty(name) && !may_be_empty(name) => argument.env(None::<&str>),
            _ => argument,
        };
        let command = Self::command();
        let given = arguments.get(1).and_then(|first| first.to_str());
        let command = match given.filter(|name| command.find_subcommand(name).is_some()) {
            Some(name) => command
                .mut_args(|argument| argument.env(None::<&str>))
                .mut_subcommand(name, |given| given.mut_args(unset)),
            None => command.mut_args(unset),
        };
        let mut matches = command.try_get_matches_from(arguments)?;
        Self::from_arg_matches_mut(&mut matches)
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
            Some(Command::Completions(args)) => shell::completions(&args, Self::command()),
            Some(Command::Man(args)) => shell::man(&args, Self::command()),
            Some(Command::Deploy(args)) => deploy::run(&args),
        }
    }
}
