//! What one condition says of one event, why one does not compile, and what the annotations are called.

use std::fmt::{self, Write as _};

use crate::github::Event;
use crate::template::expression;
use crate::template::globs::GlobError;

/// Prefix of the annotations and labels of this service.
pub(crate) const PREFIX: &str = "github-trigger.dev/";

/// Condition annotations without [`PREFIX`], cheapest first.
pub(super) const CONDITION_NAMES: &[&str] = &["on-event", "on-repository", "on-target-branch", "on-path", "on-cel"];

/// Longest part of an event's value that a message quotes, in characters; GitHub's longest branch has 244.
const MAX_QUOTED: usize = 250;

/// Why a condition does not compile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConditionError {
    /// A value that no event has; the text says what to write.
    #[error("{0}")]
    Never(String),
    #[error(transparent)]
    Glob(#[from] GlobError),
    #[error(transparent)]
    Expression(#[from] expression::Error),
    #[error("unknown annotation; did you mean `{PREFIX}{0}`?")]
    Misspelled(String),
    #[error("unknown annotation; with {PREFIX} a template can set {}", CONDITION_NAMES.join(", "))]
    Unknown,
}

/// Result of checking one condition against one event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check<'a> {
    /// Annotation without [`PREFIX`], for example `on-event`.
    pub(crate) condition: &'static str,
    /// Value of the annotation.
    pub(crate) wanted: &'a str,
    /// Value of the event.
    pub(crate) got: Got<'a>,
    /// Whether the condition holds for the event.
    pub(crate) holds: bool,
}

/// An event's value for a condition; formatted only when it is displayed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Got<'a> {
    /// Repository or target branch; `None` (displayed as `none`) if the event lacks it.
    Text(Option<&'a str>),
    /// The event; displayed as `merged`, or as its kind and action.
    Kind(&'a Event),
    /// The paths that a push changed.
    Paths(&'a [String]),
    /// Result of `on-cel`.
    Truth(bool),
}

/// An owned [`Check`], to be displayed as `<condition> wants <wanted>, got <got>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Annotation without [`PREFIX`], for example `on-event`.
    pub(crate) condition: &'static str,
    /// Value of the annotation.
    pub(crate) wanted: String,
    /// Value of the event.
    pub(crate) got: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wants {}, got {}", self.condition, self.wanted, self.got)
    }
}

impl fmt::Display for Got<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(None) => f.write_str("none"),
            Self::Text(Some(text)) if text.len() > MAX_QUOTED => {
                text.chars().take(MAX_QUOTED).try_for_each(|c| f.write_char(c))?;
                f.write_str("...")
            }
            Self::Text(Some(text)) => f.write_str(text),
            Self::Paths([]) => f.write_str("no changed path"),
            Self::Paths(paths @ [first, ..]) => {
                write!(f, "{} changed path(s), the first is {}", paths.len(), Self::Text(Some(first)))
            }
            Self::Truth(value) => write!(f, "{value}"),
            Self::Kind(event) if event.merge.is_some() => f.write_str("merged"),
            Self::Kind(event) => match &event.action {
                Some(action) => write!(f, "{}.{action}", event.kind),
                None => write!(f, "{}", event.kind),
            },
        }
    }
}

impl From<Check<'_>> for Mismatch {
    fn from(check: Check<'_>) -> Self {
        Self { condition: check.condition, wanted: check.wanted.to_owned(), got: check.got.to_string() }
    }
}
