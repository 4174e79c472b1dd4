//! Why an expression does not compile, or has no value in an event.

use super::path::Path;

/// Maximum length of an expression in characters; this also limits the recursion depth of the CEL parser.
pub(super) const MAX_LENGTH: usize = 1024;

/// Why an expression does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// There is no expression between the braces.
    #[error("the expression is empty; write a name, for example revision")]
    Empty,
    /// Longer than [`MAX_LENGTH`].
    #[error("the expression has {0} characters; write at most {MAX_LENGTH}")]
    TooLong(usize),
    /// The name is neither predefined nor bound by a loop.
    #[error("unknown name `{name}` in an expression; {help}")]
    UnknownName {
        /// The unknown name.
        name: String,
        /// A similar name, or all known names.
        help: String,
    },
    /// The function is not one of CEL, its strings extension or `slug`.
    #[error("unknown function `{name}` in an expression; {help}")]
    UnknownFunction {
        /// The unknown function.
        name: String,
        /// A similar function, or all known functions.
        help: String,
    },
    /// The text is not valid CEL.
    #[error("not a CEL expression: {0}")]
    Syntax(String),
    /// The regular expression of `matches` does not compile.
    #[error("the regular expression of `matches` is not valid: {0}")]
    Regex(String),
    /// A part that no event can make true; the text says what to write.
    #[error("{0}")]
    Never(String),
    /// Valid CEL that could take too much time, memory or stack.
    #[error("the expression could take too much time or memory: {0}")]
    TooCostly(&'static str),
    /// The expression is `body` alone.
    #[error("`body` is the whole payload; write a field of it, for example body.pull_request.title")]
    WholeBody,
}

/// Why an expression has no value in an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvaluationError {
    /// The event does not contain this name or path.
    #[error("this event has no value for `{}`{}", .0, advice(.0))]
    Missing(String),
    /// The value's type cannot be used; the text names the type and the remedy.
    #[error("the value is {0}")]
    Kind(&'static str),
    /// CEL evaluation failed; the text names types but no payload values.
    #[error("{0}")]
    Cel(String),
    /// The payload, of so many bytes, is too large for CEL.
    #[error(
        "the payload ({0} bytes, or its many values) is too large for an expression; in this template use names and \
         plain paths (body.a.b) only"
    )]
    LargePayload(usize),
    /// The evaluation takes too much memory or time.
    #[error("the expression takes too much memory or time for this event; simplify it, or use a plain path (body.a.b)")]
    TooCostly,
}

/// How to write a path whose value may be missing; empty for anything else.
fn advice(missing: &str) -> String {
    match Path::parse(missing) {
        Some(path) if !path.is_empty() => {
            format!("; if it may be missing, write {}.orValue(\"\")", path.to_string().replace('.', ".?"))
        }
        _ => String::new(),
    }
}
