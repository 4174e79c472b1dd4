//! Expressions between `{{` and `}}`: a name, a path into the payload, or any other CEL expression.
//!
//! Names and paths are the most frequent ones; they need neither CEL nor a copy of the payload.

mod cel;
mod error;
mod field;
mod name;
mod path;
mod slug;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value as Json;

use crate::github::Event;
pub(crate) use cel::memory as cel_memory;
use error::MAX_LENGTH;
pub(crate) use error::{Error, EvaluationError};
use field::Kind;
pub(crate) use field::{EventScope, Place};
pub(crate) use name::Name;
use path::Path;

/// A compiled expression.
#[derive(Debug, Clone)]
pub(crate) enum Expression {
    /// A predefined name, e.g. `revision`.
    Name(Name),
    /// A path to one value of the payload, e.g. `body.a.b`.
    Path(Path),
    /// Any other CEL expression.
    Cel(cel::Program),
}

/// The value of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome<'e> {
    /// Text, or a number or boolean written as text.
    Text(Cow<'e, str>),
    /// A list of texts.
    List(Vec<String>),
    /// A map of texts.
    Map(BTreeMap<String, String>),
}

impl Expression {
    /// What is wrong with it as a condition, whatever the event; `None` if it may be true.
    pub(crate) fn condition_fault(&self) -> Option<String> {
        let kind = match self {
            Self::Name(_) => Kind::Text,
            Self::Path(path) => path.kind(),
            Self::Cel(program) => program.kind,
        };
        (!matches!(kind, Kind::Bool | Kind::Any))
            .then(|| format!("it is {}, not true or false; write a comparison", kind.as_str()))
    }

    /// The predefined names without whose values it has none.
    pub(crate) fn needed_names(&self) -> Vec<Name> {
        match self {
            Self::Name(name) => vec![*name],
            Self::Path(_) => Vec::new(),
            Self::Cel(program) => program.needed_names(),
        }
    }

    /// Whether its value may be text that an author chooses, and that does harm in a place.
    pub(crate) fn is_author_text(&self, place: Place) -> bool {
        match self {
            Self::Name(name) => name.is_author_text(place),
            Self::Path(path) => path.is_author_text(place),
            Self::Cel(program) => program.is_author_text(place),
        }
    }

    /// Compiles the text between the braces.
    ///
    /// Fails when the text is not an expression, is too long or could be too expensive.
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
        if let Some(theirs) = source.strip_prefix("cel:") {
            return Err(Error::Never(format!(
                "every expression is CEL here; write {{{{ {} }}}}",
                theirs.trim().replace("pac.", "")
            )));
        }
        match Path::parse(source) {
            Some(path) if path.is_empty() => Err(Error::WholeBody),
            Some(path) => Ok(Self::Path(path)),
            None => cel::Program::compile(source).map(Self::Cel),
        }
    }

    /// Whether the evaluation runs CEL, which can be slow; names and paths do not need it.
    pub(crate) fn needs_cel(&self) -> bool {
        matches!(self, Self::Cel(_))
    }

    /// Returns the expression's value for `event`.
    /// Fails when the event has no such value, or the value is not text, a list of text or a map of text.
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

    /// Evaluates the expression as a condition.
    /// Fails when the value is missing, or neither true nor false.
    pub(crate) fn holds(&self, event: &Event) -> Result<bool, EvaluationError> {
        let value = match self {
            Self::Cel(program) => program.evaluate(event)?,
            Self::Path(path) => path.find(&event.payload).unwrap_or(Json::Null),
            Self::Name(_) => return Err(EvaluationError::Kind("text, not true or false; write a comparison")),
        };
        match value {
            Json::Bool(holds) => Ok(holds),
            Json::Null => Err(EvaluationError::Kind("missing or null; check it first, for example with has(...)")),
            _ => Err(EvaluationError::Kind("neither true nor false; write a comparison")),
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name.as_str()),
            Self::Path(path) => path.fmt(f),
            Self::Cel(program) => f.write_str(program.source()),
        }
    }
}

impl Outcome<'_> {
    /// Bytes of all its texts.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::List(items) => items.iter().map(String::len).sum(),
            Self::Map(entries) => entries.iter().map(|(key, value)| key.len() + value.len()).sum(),
        }
    }

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

/// Converts a scalar to text; rejects fractions, because their text form is not unique.
fn text(value: Json) -> Result<String, EvaluationError> {
    match value {
        Json::String(text) => Ok(text),
        Json::Bool(value) => Ok(value.to_string()),
        Json::Number(number) if number.is_f64() => Err(EvaluationError::Kind("a fraction; convert it: string(...)")),
        Json::Number(number) => Ok(number.to_string()),
        Json::Null => Err(EvaluationError::Kind("null, or contains null; leave the null out")),
        Json::Array(_) => Err(EvaluationError::Kind("a list inside a list or map; select or join its values")),
        Json::Object(_) => Err(EvaluationError::Kind("a map inside a list or map; select one of its fields")),
    }
}

#[cfg(test)]
mod tests;
