//! `recover`: finds merges that were missed, and has them delivered.

use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use super::args::{LogArgs, OutputArgs, non_empty};
use super::github::{GitHubArgs, GitHubArgsError, parse_name, parse_organization};
use super::process::{NOTHING_TO_DO, print, runtime};
use super::team_templates::valid_templates;
use crate::github::Event;
use crate::github::api::{Owner, RepositoryName};
use crate::recover::{Ignores, Line, RecoverError, Recovery, Scope, Tally};
use crate::sender::{SendError, Sender};
use crate::telemetry::log;
use crate::template::{Decision, Stamp, TeamTemplates};

/// GitHub keeps deliveries for three days (Enterprise Server: seven). Without them, what was built long ago seems to be missed.
const MAX_DAYS: u64 = 3;
const MAX_DAYS_SERVER: u64 = 7;

/// The flags of `recover`.
#[derive(Debug, Args)]
pub(super) struct RecoverArgs {
    /// A repository; can be repeated. With --organization: only these of its repositories.
    #[arg(long, value_name = "OWNER/NAME", value_delimiter = ',', required_unless_present = "organization", value_parser = parse_name)]
    repository: Vec<RepositoryName>,
    /// An organisation, whose webhook delivers for all its repositories.
    #[arg(long, value_name = "NAME", value_parser = parse_organization)]
    organization: Option<String>,
    /// How far to look back: a number with s, m, h or d, at most 3d (GitHub Enterprise Server: 7d). Keep runs for longer.
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = parse_duration)]
    since: Duration,
    /// URL of the webhook, if there are several.
    #[arg(long, value_name = "URL")]
    hook_url: Option<String>,
    /// Only merges into this branch, of those that no delivery is known of; can be repeated [default: all].
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    target_branch: Vec<String>,
    /// Address of the service, for merges that GitHub does not deliver.
    #[arg(long, value_name = "URL", requires = "secret_file")]
    url: Option<String>,
    /// File with the webhook secret to sign these merges with, or a mounted folder of them.
    #[arg(long, value_name = "FILE", requires = "url")]
    secret_file: Option<PathBuf>,
    /// File with the CA certificates of the service, to trust instead of the system's.
    #[arg(long, value_name = "FILE", requires = "url")]
    ca_file: Option<PathBuf>,
    /// Templates of the service: a merge that none of them is for is not posted.
    #[arg(long, value_name = "PATH")]
    trigger_config: Option<PathBuf>,
    /// The team whose templates and secret these are [default: the top level].
    #[arg(long, value_name = "NAME", requires = "trigger_config")]
    team: Option<String>,
    /// Context of the commit status that `report` writes: a merge with such a status was built, even if its run is gone. Empty:
    /// statuses are not read.
    #[arg(long, default_value = "github-trigger", value_name = "TEXT")]
    context: String,
    /// Seconds to wait for the result of a redelivery.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait_timeout: u64,
    /// Say what is missing, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Exit code 0 if nothing is missing, as a `CronJob` needs it.
    #[arg(long)]
    scheduled: bool,
    #[command(flatten)]
    github: GitHubArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// A number with a unit.
fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    let invalid = "write a number with s, m, h or d, for example 24h";
    let unit = text.chars().last().ok_or(invalid)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(invalid),
    };
    let number: u32 = text[..text.len() - 1].parse().map_err(|_| invalid)?;
    if number == 0 {
        return Err(invalid);
    }
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// Why merges were not looked for.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    #[error(transparent)]
    Args(#[from] GitHubArgsError),
    #[error(transparent)]
    Sender(#[from] SendError),
    #[error("{0}")]
    Templates(Box<dyn std::error::Error>),
    #[error(
        "--since may be at most {0}d: GitHub does not keep deliveries for longer, and what it delivered before would be built again"
    )]
    Since(u64),
    #[error("{owner}: {source}", owner = .0, source = .1)]
    Recover(String, #[source] RecoverError),
}

/// Recovers. Exit code 3 if nothing has changed (0 with --scheduled), 1 if something is still missing, or GitHub cannot be asked.
pub(super) fn run(args: &RecoverArgs) -> ExitCode {
    let _log = log::init(args.log.log_format, &args.log.log_level);
    let mut tally = Tally::default();
    let asked = recover(args, &mut tally);
    let Tally { recovered, duplicate, ignored, failed, missing, delivered } = tally;
    if recovered > 0 {
        tracing::warn!(recovered, duplicate, ignored, failed, "recovered merges that were missed");
    }
    if failed > 0 {
        tracing::error!(recovered, duplicate, ignored, failed, "some are still missing; the lines above say why");
    }
    if let Err(error) = &asked {
        tracing::error!(outcome = "unknown", "{error}");
    }
    if failed > 0 || asked.is_err() {
        return ExitCode::FAILURE;
    }
    if missing > 0 {
        tracing::warn!(missing, "some deliveries are missing; nothing was done (--dry-run)");
    } else if recovered == 0 {
        tracing::info!(recovered, duplicate, ignored, failed, "nothing is missing");
    }
    let is_done = delivered > 0 || missing > 0 || args.scheduled;
    if is_done { ExitCode::SUCCESS } else { ExitCode::from(NOTHING_TO_DO) }
}

/// Counts in `tally` what became of each, also when it fails later.
fn recover(args: &RecoverArgs, tally: &mut Tally) -> Result<(), CommandError> {
    let max_days = if args.github.is_public() { MAX_DAYS } else { MAX_DAYS_SERVER };
    if args.since > Duration::from_secs(max_days * 86_400) {
        return Err(CommandError::Since(max_days));
    }
    let (context, hook_url) = (non_empty(Some(args.context.clone())), non_empty(args.hook_url.clone()));
    let unless = context.as_ref().map(|context| format!(", unless GitHub shows a status of it (context {context})"));
    tracing::info!(
        "looking for merges of the last {}; a merge whose run was deleted since is built again{}: keep runs for longer than that",
        duration(args.since),
        unless.unwrap_or_default()
    );
    let templates = args.trigger_config.as_deref().map(|path| valid_templates(path, args.team.as_deref()));
    let templates = templates.transpose().map_err(CommandError::Templates)?;
    let ignores = templates.as_ref().map(|templates| move |event: &Event| why_ignored(templates, event));
    runtime()?.block_on(async {
        let sender = match &args.url {
            Some(url) => Some(Sender::new(url, args.ca_file.as_deref(), args.secret_file.as_deref())?),
            None => None,
        };
        let recovery = Recovery {
            since: Timestamp::now() - args.since,
            hook_url: hook_url.as_deref(),
            branches: &args.target_branch,
            context: context.as_deref(),
            ignores: ignores.as_ref().map(|ignores| ignores as Ignores<'_>),
            sender: sender.as_ref(),
            result_timeout: Duration::from_secs(args.wait_timeout),
            is_dry_run: args.dry_run,
        };
        let mut tell = |line: &Line| {
            tally.add(line);
            if args.output.is_json() {
                print(serde_json::to_string(line).unwrap_or_default());
            } else {
                print(line);
            }
        };
        let mut failed = None;
        for scope in scopes(args) {
            let mut api = args.github.api()?;
            // One repository that cannot be asked does not hold up the others.
            if let Err(error) = recovery.run(&mut api, &scope, &mut tell).await {
                let error = CommandError::Recover(scope.owner.as_str().to_owned(), error);
                if let Some(earlier) = failed.replace(error) {
                    tracing::error!(outcome = "unknown", "{earlier}");
                }
            }
        }
        failed.map_or(Ok(()), Err)
    })
}

fn why_ignored(templates: &TeamTemplates, event: &Event) -> Option<String> {
    match templates.set.decide(event, Stamp { namespace: templates.namespace("default") }) {
        Decision::Ignore(ignored) => Some(ignored.detail()),
        Decision::Render(_) => None,
    }
}

/// Each owner of a webhook.
fn scopes(args: &RecoverArgs) -> Vec<Scope> {
    match &args.organization {
        Some(name) => {
            vec![Scope { owner: Owner::Organization(name.clone()), repositories: args.repository.clone() }]
        }
        None => {
            let scope = |name| Scope { owner: Owner::from(name), repositories: Vec::new() };
            let mut seen = HashSet::new();
            let names = args.repository.iter().filter(|name| seen.insert(name.as_str().to_ascii_lowercase()));
            names.map(scope).collect()
        }
    }
}

/// A duration in the largest unit that it has a whole number of.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "d"), (3600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(length, _)| seconds.is_multiple_of(*length) && seconds > *length);
    unit.map_or_else(|| format!("{seconds} s"), |(length, name)| format!("{}{name}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_durations() {
        for (text, seconds, written) in
            [("24h", 86_400, "24h"), ("3d", 259_200, "3d"), ("90m", 5400, "90m"), ("30s", 30, "30 s")]
        {
            let time = parse_duration(text).expect("a duration");
            assert_eq!((time.as_secs(), duration(time).as_str()), (seconds, written));
        }
        for bad in ["", "h", "24", "0h", "-1h", "1w", "1.5h", "24hä", "99999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
