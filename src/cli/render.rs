//! `render`: the runs that `serve` would create for a saved payload, and the decision for each template.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{TemplateArgs, print_error};
use crate::delivery::saved::{self, Defaults};
use crate::delivery::{DeliveryId, EventKind};
use crate::github::Event;
use crate::http::print_run;
use crate::names::check_dns_label;
use crate::template::{self, Decision, Stamp};

/// Exit code when no template matches; not 1, so that scripts can ask "would this event build?".
const NONE_MATCHED: u8 = 3;

/// The flags of `render`.
#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    #[command(flatten)]
    templates: TemplateArgs,
    /// A saved delivery: GitHub's JSON, with or without the headers of the delivery page, a delivery or a pull request of
    /// GitHub's API, or a CloudEvent.
    #[arg(long, value_name = "FILE")]
    payload: PathBuf,
    /// Name of the event (X-GitHub-Event), if the file has none.
    #[arg(long, default_value = "pull_request", value_parser = parse_kind)]
    event: EventKind,
    /// Id of the delivery (X-GitHub-Delivery), if the file has none.
    #[arg(long, default_value = "00000000-0000-0000-0000-000000000000", value_name = "ID", value_parser = parse_id)]
    delivery: DeliveryId,
    /// Namespace of runs whose template names none.
    #[arg(long, env = "NAMESPACE", default_value = "default", value_name = "NS", hide_env_values = true)]
    namespace: String,
}

fn parse_kind(text: &str) -> Result<EventKind, &'static str> {
    EventKind::parse(text).ok_or("an event's name is lower case letters, digits and _, for example pull_request")
}

fn parse_id(text: &str) -> Result<DeliveryId, &'static str> {
    DeliveryId::parse(text).ok_or("a delivery's id is printable ASCII without spaces, at most 128 characters")
}

/// Prints the runs to standard output and the decisions to standard error. Exit code 3 if no template matches.
pub(super) fn run(args: &RenderArgs) -> ExitCode {
    match render(args) {
        Ok(0) => ExitCode::from(NONE_MATCHED),
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
    let loaded = template::load(&args.templates.trigger_config)?;
    let payload = fs::read(&args.payload)
        .map_err(|error| format!("cannot read the payload {}: {error}", args.payload.display()))?;
    let payload = String::from_utf8(payload).map_err(|_| "the payload file is not UTF-8 text")?;
    let defaults = Defaults { kind: args.event.clone(), id: args.delivery.clone() };
    let event = Event::parse(saved::read(&payload, defaults)?)?;
    for template in loaded.templates.iter() {
        print_error(format_args!("template {}", template.name()));
        template.explain(&event).iter().for_each(|line| print_error(format_args!("  {line}")));
    }
    let runs = match loaded.templates.decide(&event, Stamp { namespace: &args.namespace }) {
        Decision::Render(runs) => runs,
        Decision::Ignore(ignored) => {
            print_error(format_args!("ignored: {}", ignored.detail()));
            return Ok(0);
        }
    };
    let (mut rendered, mut failed) = (0, 0);
    for outcome in runs {
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
    match failed {
        0 => Ok(rendered),
        count => Err(format!("{count} matching template(s) cannot be rendered for this event").into()),
    }
}
