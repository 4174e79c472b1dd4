//! The runtime, the output and an exit code of the commands.

use std::io::{self, Write};

use tokio::runtime::{Builder, Runtime};

/// Exit code of a command that has nothing to do; not 1, so that scripts can tell it from an error.
pub(super) const NOTHING_TO_DO: u8 = 3;

/// The runtime of a command that is not the service.
/// Fails when the system has no resources for it.
pub(super) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Writes a line of the command's result to standard output. A closed pipe is not an error of this program.
pub(super) fn print(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}

/// Writes a line for a person to standard error.
pub(super) fn print_error(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
