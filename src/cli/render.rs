//! `render`: what `serve` would create for a saved payload, and why.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{TemplateArgs, complain};
use crate::delivery::saved::{self, Defaults};
use crate::delivery::{DeliveryId, EventKind};
use crate::event::Event;
use crate::template::{self, Stamp};

/// Nothing matched; told apart from an error so that scripts can ask "would this event build?".
const NONE_MATCHED: u8 = 3;

/// The flags of `render`.
#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    #[command(flatten)]
    templates: TemplateArgs,
    /// What GitHub sent: its JSON, with or without the headers of the delivery page, or a CloudEvent.
    #[arg(long, value_name = "FILE")]
    payload: PathBuf,
    /// The event's name (X-GitHub-Event), if the file does not say it.
    #[arg(long, default_value = "pull_request", value_parser = parse_kind)]
    event: EventKind,
    /// The delivery's id (X-GitHub-Delivery), if the file does not say it.
    #[arg(long, default_value = "00000000-0000-0000-0000-000000000000", value_name = "ID", value_parser = parse_id)]
    delivery: DeliveryId,
    /// Where a template without a namespace goes.
    #[arg(long, env = "NAMESPACE", default_value = "default", value_name = "NS", hide_env_values = true)]
    namespace: String,
}

fn parse_kind(text: &str) -> Result<EventKind, &'static str> {
    EventKind::parse(text).ok_or("an event's name is lower case letters, digits and _, for example pull_request")
}

fn parse_id(text: &str) -> Result<DeliveryId, &'static str> {
    DeliveryId::parse(text).ok_or("a delivery's id is printable ASCII without spaces, at most 128 characters")
}

/// Runs on standard output, decisions on standard error.
pub(super) fn run(args: &RenderArgs) -> ExitCode {
    match render(args) {
        Ok(0) => ExitCode::from(NONE_MATCHED),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("github-trigger: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints every run; returns how many there are.
fn render(args: &RenderArgs) -> Result<usize, Box<dyn std::error::Error>> {
    let loaded = template::load(&args.templates.trigger_config)?;
    let payload = fs::read(&args.payload)
        .map_err(|error| format!("cannot read the payload {}: {error}", args.payload.display()))?;
    let payload = String::from_utf8(payload).map_err(|_| "the payload file is not UTF-8 text")?;
    let defaults = Defaults { kind: args.event.clone(), id: args.delivery.clone() };
    let event = Event::parse(saved::read(&payload, defaults)?)?;
    for template in loaded.templates.iter() {
        complain(format_args!("template {}", template.name()));
        template.trace(&event).iter().for_each(|line| complain(format_args!("  {line}")));
    }
    let decision = loaded.templates.decide(&event, Stamp { namespace: &args.namespace });
    if decision.runs.is_empty() {
        complain(format_args!("ignored: {}", decision.reason));
    }
    let (mut rendered, mut failed) = (0, 0);
    for outcome in decision.runs {
        match outcome {
            Ok(run) => {
                complain(format_args!("renders {}/{}", run.namespace, run.name));
                crate::server::print_run(&run)?;
                rendered += 1;
            }
            Err(error) => {
                complain(error);
                failed += 1;
            }
        }
    }
    match failed {
        0 => Ok(rendered),
        count => Err(format!("{count} matching template(s) cannot be rendered for this event").into()),
    }
}
