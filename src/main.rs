//! The `github-trigger` program.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    github_trigger::cli::Cli::parse().run()
}
