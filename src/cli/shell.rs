//! `completions` and `man`: what a shell and a reader need, out of the program itself.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

use super::process::print_error;

/// The flags of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// The flags of `man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write a page for the program and one for each command there, instead of printing the first.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Prints completions of `command` to standard output.
pub(super) fn completions(args: &CompletionsArgs, mut command: Command) -> ExitCode {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if args.shell == Shell::Bash {
        // clap_complete 4.6 takes the `-` in our name for the beginning of a command in one half of the script.
        script = script.replace("github__subcmd__trigger", "github__trigger");
    }
    ended(io::stdout().lock().write_all(script.as_bytes()), "the completions")
}

/// Prints the manual page of `command`, or writes all of them.
pub(super) fn man(args: &ManArgs, command: Command) -> ExitCode {
    let written = match &args.folder {
        None => Man::new(command).render(&mut io::stdout()),
        Some(folder) => std::fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder)),
    };
    ended(written, "the page")
}

fn ended(written: io::Result<()>, what: &str) -> ExitCode {
    match written.and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of a pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            print_error(format_args!("github-trigger: cannot write {what}: {error}"));
            ExitCode::FAILURE
        }
    }
}
