//! `render`: the runs that `serve` would create for a saved payload, and the decision for each template.

use std::process::ExitCode;

use clap::Args;

use super::process::{NOTHING_TO_DO, print_error};
use super::saved::SavedArgs;
use super::team_templates::TeamTemplateArgs;
use crate::github::Event;
use crate::http::print_run;
use crate::names::check_dns_label;
use crate::template::{Decision, LintedTeam, LoadError, PipelineRun, RenderError, Severity, Stamp, TeamTemplates};

/// The flags of `render`.
#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    #[command(flatten)]
    templates: TeamTemplateArgs,
    #[command(flatten)]
    saved: SavedArgs,
    /// Namespace of runs whose template names none.
    #[arg(long, env = "NAMESPACE", default_value = "default", value_name = "NS", hide_env_values = true)]
    namespace: String,
}

/// Prints the runs to standard output and the decisions to standard error. Exit code 3 if no template matches.
pub(super) fn run(args: &RenderArgs) -> ExitCode {
    match render(args) {
        Ok(0) => ExitCode::from(NOTHING_TO_DO),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(format_args!("github-trigger: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints every run; returns their number.
fn render(args: &RenderArgs) -> Result<usize, Box<dyn std::error::Error>> {
    check_dns_label("--namespace", &args.namespace)?;
    let mut teams = Vec::new();
    let mut broken = 0;
    for LintedTeam { team, result } in args.templates.lint()? {
        let (templates, findings) = result?;
        if !findings.iter().any(|finding| finding.severity == Severity::Error) {
            teams.push((team, templates));
            continue;
        }
        let error = LoadError::Findings(findings);
        // A team's faults do not hide what the others would build.
        if team.name().is_none() {
            return Err(error.into());
        }
        print_error(format_args!("{team} is broken:\n{error}"));
        broken += 1;
    }
    let mut event = Event::parse(args.saved.read()?)?;
    let (mut rendered, mut failed) = (0, 0);
    for (team, templates) in teams {
        event.team = team;
        for outcome in render_team(&event, &templates, templates.namespace(&args.namespace)) {
            match outcome {
                Ok(run) => {
                    print_error(format_args!("renders {}/{}", run.namespace, run.name));
                    print_run(&run)?;
                    rendered += 1;
                }
                Err(error) => {
                    print_error(error);
                    failed += 1;
                }
            }
        }
    }
    if broken > 0 {
        return Err(format!("{broken} team(s) are broken").into());
    }
    match failed {
        0 => Ok(rendered),
        count => Err(format!("{count} matching template(s) cannot be rendered for this event").into()),
    }
}

/// Prints the decision for each template of a team; returns the runs.
fn render_team(event: &Event, templates: &TeamTemplates, namespace: &str) -> Vec<Result<PipelineRun, RenderError>> {
    if event.team.name().is_some() {
        print_error(format_args!("{}", event.team));
    }
    for template in templates.set.iter() {
        print_error(format_args!("template {}", template.name()));
        template.explain(event).iter().for_each(|line| print_error(format_args!("  {line}")));
    }
    match templates.set.decide(event, Stamp { namespace }) {
        Decision::Render(runs) => runs,
        Decision::Ignore(ignored) => {
            print_error(format_args!("ignored: {}", ignored.detail()));
            Vec::new()
        }
    }
}
