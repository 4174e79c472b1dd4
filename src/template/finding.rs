//! What is wrong with a template file, and where.

use std::fmt;
use std::path::PathBuf;

use super::yaml;

/// An error or a warning about a template file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Path of the template file.
    pub(crate) file: PathBuf,
    /// Position in the file; line 1, column 1 if the finding is about the whole file.
    pub(crate) at: yaml::Position,
    /// Whether the finding prevents the use of the templates.
    pub(crate) severity: Severity,
    /// The problem and its fix.
    pub(crate) message: String,
}

/// Effect of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// None of the templates is loaded.
    Error,
    /// Valid, but probably a mistake.
    Warning,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        let yaml::Position { line, column } = self.at;
        write!(f, "{}:{line}:{column}: {severity}{}", self.file.display(), self.message)
    }
}
