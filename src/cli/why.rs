//! `why`: tells the road of a merge, from GitHub to the users, and what to do at the first place that is not as it should be.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::args::{LogArgs, OutputArgs, non_empty, pod_namespace};
use super::github::{GitHubArgs, parse_name};
use super::process::{NOTHING_TO_DO, print, runtime};
use super::saved::{self, PayloadError};
use super::team_templates::valid_templates;
use crate::delivery::Delivery;
use crate::delivery::saved::Defaults;
use crate::github::Event;
use crate::github::api::RepositoryName;
use crate::kube::{Cluster, ConfigError};
use crate::names::{InvalidName, check_dns_label, check_service_name};
use crate::team::Team;
use crate::telemetry::log;
use crate::telemetry::metrics::Registry;
use crate::why::{Question, State, Step, Target, Unasked, told};

/// The flags of `why`.
#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// The merge: a pull request, or its merge commit (at least eight digits).
    #[arg(value_name = "OWNER/NAME#N | COMMIT", value_parser = parse_target)]
    merge: Target,
    /// The repository of a commit, if no run has it.
    #[arg(long, value_name = "OWNER/NAME", value_parser = parse_name)]
    repository: Option<RepositoryName>,
    /// URL of the webhook, if there are several.
    #[arg(long, value_name = "URL")]
    hook_url: Option<String>,
    /// Templates of the service, to tell which of them are for the merge.
    #[arg(long, value_name = "PATH")]
    trigger_config: Option<PathBuf>,
    /// The team whose templates these are [default: the top level].
    #[arg(long, value_name = "NAME", requires = "trigger_config")]
    team: Option<String>,
    /// A saved delivery of the merge, if GitHub is not asked.
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// Namespace of the runs [default: all; without that right, the kubeconfig's].
    #[arg(long, value_name = "NS")]
    namespace: Option<String>,
    /// The Knative Service [default: the param `service-name` of the run's deploy task].
    #[arg(long, value_name = "NAME")]
    service_name: Option<String>,
    /// Its namespace [default: the param `service-namespace`].
    #[arg(long, value_name = "NS")]
    service_namespace: Option<String>,
    #[command(flatten)]
    github: GitHubArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    log: LogArgs,
}

fn parse_target(text: &str) -> Result<Target, &'static str> {
    if let Some((repository, number)) = text.split_once('#') {
        let repository = RepositoryName::parse(repository);
        return match (repository, number.parse()) {
            (Some(repository), Ok(number)) if number > 0 => Ok(Target::PullRequest(repository, number)),
            _ => Err("write OWNER/NAME#NUMBER, for example acme/web#5"),
        };
    }
    let is_commit = (8..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_commit {
        Ok(Target::Commit(text.to_ascii_lowercase()))
    } else {
        Err("write OWNER/NAME#NUMBER, or a commit with at least eight of its digits")
    }
}

/// Why the road cannot be told at all.
#[derive(Debug, thiserror::Error)]
enum WhyError {
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("the payload {}: {why}", path.display())]
    Payload { path: PathBuf, why: String },
    #[error(transparent)]
    Saved(#[from] PayloadError),
    #[error("{0}")]
    Templates(Box<dyn std::error::Error>),
}

/// Tells the road. Exit code 0 if it is as it should be, as far as it goes; 1 if a place on it is wrong; 3 if it rightly ends.
pub(super) fn run(args: &WhyArgs) -> ExitCode {
    let _log = log::init(args.log.log_format, &args.log.log_level);
    let steps = match ask(args) {
        Ok(steps) => steps,
        Err(error) => {
            tracing::error!("{error}");
            return ExitCode::FAILURE;
        }
    };
    // One line says what to do: the first that needs something.
    let first = |state: State| steps.iter().position(|step| step.state == state);
    let decisive = first(State::Wrong).or(first(State::Ended)).or(first(State::Waiting));
    for (index, step) in steps.iter().enumerate() {
        let step = if Some(index) == decisive { step.clone() } else { Step { advice: None, ..step.clone() } };
        if args.output.is_json() {
            print(serde_json::to_string(&step).unwrap_or_default());
            continue;
        }
        // Others' words must not control the terminal.
        let message = step.message.replace(char::is_control, " ");
        print(format_args!("{:<8} {:<9} {message}", step.state.as_str(), step.place));
        if let Some(advice) = &step.advice {
            print(format_args!("{:<8} what to do: {}", "", advice.replace(char::is_control, " ")));
        }
    }
    let is_known = steps.iter().any(|step| step.state != State::Unknown);
    match decisive.map(|index| steps[index].state) {
        _ if !is_known => {
            tracing::error!(
                "nothing could be asked: give a credential of GitHub's, --trigger-config with --payload, or KUBECONFIG"
            );
            ExitCode::FAILURE
        }
        Some(State::Wrong) => ExitCode::FAILURE,
        Some(State::Ended) => ExitCode::from(NOTHING_TO_DO),
        _ => ExitCode::SUCCESS,
    }
}

fn ask(args: &WhyArgs) -> Result<Vec<Step>, WhyError> {
    let [namespace, service_name, service_namespace] =
        [&args.namespace, &args.service_name, &args.service_namespace].map(|flag| non_empty(flag.clone()));
    namespace.iter().try_for_each(|name| check_dns_label("--namespace", name))?;
    service_name.iter().try_for_each(|name| check_service_name("--service-name", name))?;
    service_namespace.iter().try_for_each(|name| check_dns_label("--service-namespace", name))?;
    let team = args.team.as_deref();
    let templates = args.trigger_config.as_deref().map(|path| valid_templates(path, team)).transpose();
    let templates = templates.map_err(WhyError::Templates)?;
    let delivery = args.payload.as_deref().map(|path| read_payload(path, &args.merge)).transpose()?;
    let steps = runtime()?.block_on(async {
        let cluster = Cluster::connect(&Registry::default()).await;
        let github = match args.github.is_given() {
            true => args.github.api().map_err(|error| Unasked { why: error.to_string(), is_fault: true }),
            false => {
                let why = "GitHub is not asked: give --github-token-file, or an App".to_owned();
                Err(Unasked { why, is_fault: false })
            }
        };
        told(Question {
            target: args.merge.clone(),
            repository: args.repository.clone(),
            hook_url: non_empty(args.hook_url.clone()),
            templates: templates.map(|templates| (team.map_or(Team::TOP, Team::of_folder), templates)),
            delivery,
            service_name,
            service_namespace,
            github,
            cluster: cluster.map(|(cluster, found)| (cluster, pod_namespace().unwrap_or(found))).map_err(|error| {
                Unasked {
                    is_fault: !matches!(error, ConfigError::Infer(_)),
                    why: format!("the cluster is not asked: {error}"),
                }
            }),
            namespace,
        })
        .await
    });
    Ok(steps)
}

/// Reads a saved delivery of the merge.
fn read_payload(path: &Path, merge: &Target) -> Result<Delivery, WhyError> {
    let failed = |why: String| WhyError::Payload { path: path.to_owned(), why };
    let delivery = saved::read_payload(path, Defaults::default())?;
    let event = Event::parse(delivery.clone()).map_err(|error| failed(error.to_string()))?;
    let name = event.repository_name().unwrap_or_default();
    let is_ours = match merge {
        Target::PullRequest(repository, number) => {
            name.eq_ignore_ascii_case(repository.as_str()) && event.subject.number == Some(*number)
        }
        Target::Commit(commit) => event.commit().is_some_and(|own| own.as_str().starts_with(commit.as_str())),
    };
    if is_ours {
        return Ok(delivery);
    }
    let number = event.subject.number.map(|number| format!("#{number}")).unwrap_or_default();
    Err(failed(format!("it is of {name}{number}, and not of the merge that was asked about")))
}
