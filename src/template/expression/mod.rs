//! What may stand between `{{` and `}}`: a name, a path into the payload, or any other CEL expression.
//!
//! The first two are most of what templates hold and need neither CEL nor a copy of the payload.

mod cel;
mod name;
mod path;
mod slug;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::github::Event;
pub(crate) use name::Name;
use path::Path;

/// Characters of one expression at most; the CEL parser is given no more, because its depth has no other bound.
pub(crate) const MAX_LENGTH: usize = 1024;

/// A compiled expression.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    /// One of the names.
    Name(Name),
    /// `body.a.b`: one value of the payload.
    Path(Path),
    /// Everything else.
    Cel(cel::Program),
}

/// What an expression came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome<'e> {
    /// Text, or a number or boolean written as text.
    Text(Cow<'e, str>),
    /// A list of texts.
    List(Vec<String>),
    /// A map of texts.
    Map(BTreeMap<String, String>),
}

/// Why an expression does not compile: what is wrong and what to write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing stands there.
    #[error("an empty expression; write a name, for example revision")]
    Empty,
    /// Longer than [`MAX_LENGTH`].
    #[error("an expression of {0} characters; write at most {MAX_LENGTH}")]
    TooLong(usize),
    /// A name that templates do not know.
    #[error("unknown name `{name}` in an expression; {help}")]
    UnknownName {
        /// What was written.
        name: String,
        /// What to write instead.
        help: String,
    },
    /// A function that CEL and its strings extension do not have.
    #[error("unknown function `{name}` in an expression; {help}")]
    UnknownFunction {
        /// What was written.
        name: String,
        /// What to write instead.
        help: String,
    },
    /// Not CEL.
    #[error("not a CEL expression: {0}")]
    Syntax(String),
    /// Legal CEL that could take too long, too much memory or too much stack.
    #[error("an expression that could take too much time or memory: {0}")]
    TooCostly(&'static str),
    /// The whole payload is no value for a field.
    #[error("`body` is the whole payload; write a field of it, for example body.pull_request.title")]
    WholeBody,
}

/// Why an expression has no value in an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EvaluationError {
    /// The event does not carry it.
    #[error("this event has no value for `{0}`")]
    Missing(String),
    /// The value is of a kind that cannot stand in a run.
    #[error("the value is {0}; make text of it, for example with string(...)")]
    Kind(&'static str),
    /// What CEL says.
    #[error("{0}")]
    Cel(String),
}

impl Expression {
    /// Compiles what stands between the braces.
    ///
    /// Must run on a stack of some MiB ([`super::load()`] gives it one): the CEL parser's depth grows with the length.
    /// Fails when it is no expression, or one that could do harm.
    pub(crate) fn compile(source: &str) -> Result<Self, Error> {
        let source = source.trim();
        let length = source.chars().count();
        if length > MAX_LENGTH {
            return Err(Error::TooLong(length));
        }
        if source.is_empty() || source == "." {
            return Err(Error::Empty);
        }
        if let Some(name) = Name::parse(source) {
            return Ok(Self::Name(name));
        }
        match Path::parse(source) {
            Some(path) if path.is_empty() => Err(Error::WholeBody),
            Some(path) => Ok(Self::Path(path)),
            None => cel::Program::compile(source).map(Self::Cel),
        }
    }

    /// Whether CEL has to run.
    pub(crate) fn needs_cel(&self) -> bool {
        matches!(self, Self::Cel(_))
    }

    /// The expression's value in `event`.
    /// Fails when the event does not carry it, or it is no text.
    pub(crate) fn evaluate<'e>(&self, event: &'e Event) -> Result<Outcome<'e>, EvaluationError> {
        match self {
            Self::Name(name) => {
                name.value(event).map(Outcome::Text).ok_or_else(|| EvaluationError::Missing(name.as_str().to_owned()))
            }
            Self::Path(path) => match path.find(&event.payload) {
                None | Some(Json::Null) => Err(EvaluationError::Missing(path.to_string())),
                Some(value) => Outcome::from_json(value),
            },
            Self::Cel(program) => program.evaluate(event).and_then(Outcome::from_json),
        }
    }

    /// The expression's value as a condition.
    /// Fails when it has no value in this event, or one that is neither true nor false.
    pub(crate) fn holds(&self, event: &Event) -> Result<bool, EvaluationError> {
        let value = match self {
            Self::Cel(program) => program.evaluate(event)?,
            Self::Path(path) => path.find(&event.payload).unwrap_or(Json::Null),
            Self::Name(_) => return Err(EvaluationError::Kind("text, not true or false")),
        };
        match value {
            Json::Bool(holds) => Ok(holds),
            Json::Null => Err(EvaluationError::Kind("nothing, not true or false")),
            _ => Err(EvaluationError::Kind("neither true nor false")),
        }
    }
}

impl Outcome<'_> {
    fn from_json(value: Json) -> Result<Self, EvaluationError> {
        Ok(match value {
            Json::Array(items) => Outcome::List(items.into_iter().map(text).collect::<Result<_, _>>()?),
            Json::Object(entries) => Outcome::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| Ok((key, text(value)?)))
                    .collect::<Result<_, EvaluationError>>()?,
            ),
            scalar => Outcome::Text(text(scalar)?.into()),
        })
    }
}

/// A scalar as text; a fraction is refused, because its text depends on who writes it.
fn text(value: Json) -> Result<String, EvaluationError> {
    match value {
        Json::String(text) => Ok(text),
        Json::Bool(value) => Ok(value.to_string()),
        Json::Number(number) if number.is_f64() => Err(EvaluationError::Kind("a fraction")),
        Json::Number(number) => Ok(number.to_string()),
        Json::Null => Err(EvaluationError::Kind("nothing")),
        Json::Array(_) => Err(EvaluationError::Kind("a list inside a list or map")),
        Json::Object(_) => Err(EvaluationError::Kind("a map inside a list or map")),
    }
}

#[cfg(test)]
mod tests;
