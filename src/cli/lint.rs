//! `lint`: templates proved before an event arrives.

use std::process::ExitCode;

use clap::Args;

use super::{TemplateArgs, complain, print};
use crate::template::{self, Severity};

/// The flags of `lint`.
#[derive(Debug, Args)]
pub(super) struct LintArgs {
    #[command(flatten)]
    templates: TemplateArgs,
}

/// Prints every finding; exit code 1 if one is an error.
pub(super) fn run(args: &LintArgs) -> ExitCode {
    let path = &args.templates.trigger_config;
    let (templates, findings) = match template::lint(path) {
        Ok(checked) => checked,
        Err(error) => {
            complain(format_args!("github-trigger: {error}"));
            return ExitCode::FAILURE;
        }
    };
    findings.iter().for_each(print);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return ExitCode::FAILURE;
    }
    complain(format_args!("{}: {} template(s) pass", path.display(), templates.len()));
    ExitCode::SUCCESS
}
