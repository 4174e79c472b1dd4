//! `report`: sends the state of a build to GitHub, as a commit status and a deployment.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::args::{LogArgs, OutputArgs, non_empty};
use super::github::{GitHubArgs, GitHubArgsError, MaybeRepository, parse_repository};
use super::process::{NOTHING_TO_DO, print, runtime};
use crate::github::Commit;
use crate::github::api::{
    ApiError, CommitState, DeploymentReport, DeploymentState, Permissions, RepositoryName, StatusReport, Written,
};
use crate::telemetry::log;

/// The flags of `report`.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// State of the build.
    #[arg(long, value_enum)]
    state: CommitState,
    /// The commit, all 40 (or 64) digits.
    #[arg(long, env = "GITHUB_TRIGGER_COMMIT", value_name = "SHA", value_parser = parse_commit, hide_env_values = true)]
    commit: MaybeCommit,
    /// The repository.
    #[arg(long, env = "GITHUB_TRIGGER_REPOSITORY", value_name = "OWNER/NAME", value_parser = parse_repository, hide_env_values = true)]
    repository: MaybeRepository,
    /// What tells this status from others of the commit.
    #[arg(long, default_value = "github-trigger", value_name = "TEXT")]
    context: String,
    /// Page with details, for example the run in Tekton's dashboard.
    #[arg(long, value_name = "URL")]
    target_url: Option<String>,
    /// A sentence; GitHub shows 140 characters.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Also report a deployment to this environment.
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// URL of the environment.
    #[arg(long, value_name = "URL")]
    environment_url: Option<String>,
    /// The outcome of `deploy`: what was superseded or rolled back is inactive on GitHub.
    #[arg(long, value_name = "WORD", value_parser = parse_outcome)]
    outcome: Option<DeployOutcome>,
    /// How many users, in percent, have what was deployed: below 100 GitHub is told so, and at 0 the deployment is inactive.
    #[arg(long, value_name = "N", default_value = "", hide_default_value = true, value_parser = parse_percent)]
    percent: MaybePercent,
    /// NAME=STATUS of the pipeline's tasks, as Tekton writes it; the first one that failed is named on GitHub.
    #[arg(long, value_name = "NAME=STATUS", num_args = 0..)]
    tasks: Vec<String>,
    /// Fail if GitHub is away, instead of a warning.
    #[arg(long, conflicts_with = "in_pipeline")]
    strict: bool,
    /// Never fail: without a credential or a commit there is nothing to report, and a refusal of GitHub is an ERROR line.
    #[arg(long)]
    in_pipeline: bool,
    #[command(flatten)]
    github: GitHubArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// The outcome of a deployment, if there was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeployOutcome {
    Deployed,
    Unchanged,
    Superseded,
    RolledBack,
    /// Nothing was deployed.
    None,
}

/// Takes an empty text, or one that Tekton did not fill in because the task did not run, as no outcome.
fn parse_outcome(text: &str) -> Result<DeployOutcome, String> {
    if text.is_empty() || text.starts_with("$(") {
        return Ok(DeployOutcome::None);
    }
    DeployOutcome::from_str(text, false).map_err(|_| "write deployed, unchanged, superseded or rolled-back".to_owned())
}

/// Like [`MaybeRepository`].
type MaybePercent = Option<u8>;

/// Takes an empty text, or one that Tekton did not fill in, as not known.
fn parse_percent(text: &str) -> Result<MaybePercent, &'static str> {
    if text.is_empty() || text.starts_with("$(") {
        return Ok(None);
    }
    let percent = text.parse().ok().filter(|percent| *percent <= 100);
    percent.map(Some).ok_or("write a number from 0 to 100")
}

/// Like [`MaybeRepository`].
type MaybeCommit = Option<Commit>;

fn parse_commit(text: &str) -> Result<MaybeCommit, &'static str> {
    match text {
        "" => Ok(None),
        text => Commit::parse(text).map(Some).ok_or("a commit has 40 (or 64) hexadecimal digits"),
    }
}

/// Why nothing was reported.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    #[error(transparent)]
    Args(#[from] GitHubArgsError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("{name} {value:?} is not a URL that GitHub shows; write http://... or https://...")]
    Url { name: &'static str, value: String },
}

/// Reports. Exit code 3 if GitHub says the same already; 0 with a warning if it is away, 1 with --strict. With
/// --in-pipeline always 0.
pub(super) fn run(args: &ReportArgs) -> ExitCode {
    let _log = log::init(args.log.log_format, &args.log.log_level);
    if args.in_pipeline && !args.github.has_credential() {
        tracing::info!("no credential for GitHub is mounted; nothing is reported");
        return ExitCode::SUCCESS;
    }
    let (Some(repository), Some(commit)) = (&args.repository, &args.commit) else {
        if args.in_pipeline {
            tracing::info!("the run has no repository or no commit; nothing is reported");
            return ExitCode::SUCCESS;
        }
        tracing::error!("--repository and --commit must not be empty");
        return ExitCode::FAILURE;
    };
    let outcome = match report(args, repository, commit) {
        Ok(Written::New) => "reported",
        Ok(Written::Before) => "unchanged",
        Err(ReportError::Api(error)) if error.is_temporary() && !args.strict => {
            tracing::warn!(error = %error, "GitHub was not told; the build goes on");
            "unreported"
        }
        Err(error) => {
            tracing::error!("{error}");
            return if args.in_pipeline { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    let (repository, commit, state) = (repository.as_str(), commit.to_string(), args.state.as_str());
    if args.output.is_json() {
        print(
            json!({"outcome": outcome, "repository": repository, "commit": commit, "context": args.context, "state": state}),
        );
    } else {
        print(format_args!("{outcome}: {repository} {commit} {} {state}", args.context));
    }
    if outcome == "unchanged" && !args.in_pipeline { ExitCode::from(NOTHING_TO_DO) } else { ExitCode::SUCCESS }
}

fn report(args: &ReportArgs, repository: &RepositoryName, commit: &Commit) -> Result<Written, ReportError> {
    runtime()?.block_on(async {
        let target_url = url("--target-url", args.target_url.clone(), args.in_pipeline)?;
        let environment_url = url("--environment-url", args.environment_url.clone(), args.in_pipeline)?;
        let environment = non_empty(args.environment.clone());
        let description = args.description.clone().unwrap_or_else(|| sentence(args));
        let mut api = args.github.api()?;
        // An App's token has the permissions that this report needs, and no others.
        let deployments = environment.as_ref().map(|_| "deployments:write");
        let permissions = Permissions::parse(["statuses:write"].into_iter().chain(deployments));
        api.authenticate(repository, &permissions.unwrap_or_default()).await?;
        let status = StatusReport {
            repository,
            commit,
            state: args.state,
            context: &args.context,
            target_url: target_url.as_deref(),
            description: &description,
        };
        let mut written = status.write(&mut api).await?;
        if let Some(environment) = &environment {
            let deployment = DeploymentReport {
                repository,
                commit,
                environment,
                environment_url: environment_url.as_deref(),
                state: deployment_state(args),
                log_url: target_url.as_deref(),
                description: &description,
            };
            if deployment.write(&mut api).await? == Written::New {
                written = Written::New;
            }
        }
        Ok(written)
    })
}

/// A URL of a flag; an empty one counts as none. In a pipeline, an invalid one is left out.
fn url(name: &'static str, value: Option<String>, in_pipeline: bool) -> Result<Option<String>, ReportError> {
    match non_empty(value) {
        Some(value) if !(value.starts_with("https://") || value.starts_with("http://")) => {
            let error = ReportError::Url { name, value };
            if !in_pipeline {
                return Err(error);
            }
            tracing::warn!("{error}; reporting without it");
            Ok(None)
        }
        value => Ok(value),
    }
}

fn deployment_state(args: &ReportArgs) -> DeploymentState {
    match (args.outcome, args.state) {
        (Some(DeployOutcome::Superseded | DeployOutcome::RolledBack), _) => DeploymentState::Inactive,
        (_, CommitState::Pending) => DeploymentState::InProgress,
        (_, CommitState::Success) if args.percent == Some(0) => DeploymentState::Inactive,
        (_, CommitState::Success) => DeploymentState::Success,
        (_, CommitState::Failure) => DeploymentState::Failure,
        (_, CommitState::Error) => DeploymentState::Error,
    }
}

/// The sentence of a report without one.
fn sentence(args: &ReportArgs) -> String {
    let failed = args.tasks.iter().filter_map(|task| task.split_once('=')).find(|(_, status)| *status == "Failed");
    if let (CommitState::Failure, Some((name, _))) = (args.state, failed) {
        return format!("The task {name} failed");
    }
    let is_skipped = |name: &str| args.tasks.iter().any(|task| task.split_once('=') == Some((name, "None")));
    if args.state == CommitState::Error && is_skipped("deploy") && !is_skipped("build") {
        return "Stopped before it was deployed".to_owned();
    }
    if args.state == CommitState::Success && is_skipped("build") {
        return "Not built: something newer is deployed".to_owned();
    }
    if args.state == CommitState::Success && is_skipped("deploy") {
        return "No changed path needs a build".to_owned();
    }
    if let (CommitState::Success, Some(DeployOutcome::Deployed | DeployOutcome::Unchanged), Some(percent @ ..100)) =
        (args.state, args.outcome, args.percent)
    {
        return format!("Built and deployed, {percent} % of users see it");
    }
    match (args.state, args.outcome) {
        (CommitState::Pending, _) => "The build is under way",
        (CommitState::Failure, _) => "The build failed",
        (CommitState::Error, _) => "The build could not be made",
        (CommitState::Success, Some(DeployOutcome::Superseded)) => "Built, and not deployed: something newer is",
        (CommitState::Success, Some(DeployOutcome::RolledBack)) => "Built, and rolled back",
        (CommitState::Success, Some(DeployOutcome::Deployed | DeployOutcome::Unchanged)) => "Built and deployed",
        (CommitState::Success, _) => "Built",
    }
    .to_owned()
}
