//! The `github-trigger` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    github_trigger::cli::Cli::from_command_line().run()
}
