//! Which events a template is for: its `github-trigger.dev/on-*` annotations, all of which must hold.

use std::fmt;

use super::expression::{self, EvaluationError, Expression};
use super::globs::{Case, GlobError, Globs};
use super::nearest::nearest;
use super::placeholder;
use super::yaml::{Fault, Node};
use crate::delivery::EventKind;
use crate::github::Event;

/// The prefix of every annotation and label that is ours.
pub(crate) const PREFIX: &str = "github-trigger.dev/";

/// The conditions, cheapest first.
const KNOWN: &[&str] = &["on-event", "on-repository", "on-target-branch", "on-cel"];

/// Why a condition does not compile.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConditionError {
    #[error(
        "`{0}` is not an event; write `merged`, or an event of GitHub and its action, for example `push` or \
         `release.published`"
    )]
    Event(String),
    #[error("`{0}` can never match `owner/name`; write for example `acme/{0}`")]
    Repository(String),
    #[error(transparent)]
    Glob(#[from] GlobError),
    #[error(transparent)]
    Expression(#[from] expression::Error),
    #[error("unknown annotation; did you mean `{PREFIX}{0}`?")]
    Misspelled(String),
    #[error("unknown annotation; under {PREFIX} a template may set {}", KNOWN.join(", "))]
    Unknown,
}

/// When a template is used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    event: Events,
    repository: Option<Globs>,
    target_branch: Option<Globs>,
    cel: Option<Condition>,
}

/// One condition and one event: what it wants, what the event has, whether that is enough.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check<'a> {
    /// The annotation without its prefix.
    pub(crate) condition: &'static str,
    /// The annotation's value.
    pub(crate) wanted: &'a str,
    /// What the event has.
    pub(crate) got: Got<'a>,
    /// Whether it holds.
    pub(crate) holds: bool,
}

/// What an event has for a condition; written out only when somebody reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Got<'a> {
    /// A text, or nothing.
    Text(Option<&'a str>),
    /// The kind of event.
    Kind(&'a Event),
    /// What an expression came to.
    Truth(bool),
}

/// The first condition that did not hold: what it wanted and what it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// The annotation without its prefix.
    pub(crate) condition: &'static str,
    /// The annotation's value.
    pub(crate) wanted: String,
    /// What the event has.
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
            Self::Text(text) => f.write_str(text.unwrap_or("none")),
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

/// A comma list of kinds of events: `merged`, `push`, `release.published`.
#[derive(Debug, Clone)]
struct Events {
    source: String,
    wanted: Vec<Wanted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wanted {
    Merged,
    Kind(EventKind, Option<String>),
}

impl Default for Events {
    fn default() -> Self {
        Self { source: "merged".to_owned(), wanted: vec![Wanted::Merged] }
    }
}

impl Events {
    fn compile(source: &str) -> Result<Self, ConditionError> {
        let wanted = source.split(',').map(|kind| Wanted::parse(kind.trim())).collect::<Result<_, _>>()?;
        Ok(Self { source: source.to_owned(), wanted })
    }

    fn matches(&self, event: &Event) -> bool {
        self.wanted.iter().any(|wanted| match wanted {
            Wanted::Merged => event.merge.is_some(),
            Wanted::Kind(kind, action) => {
                event.kind == *kind && (action.is_none() || event.action == *action) && !event.is_deletion()
            }
        })
    }
}

impl Wanted {
    fn parse(text: &str) -> Result<Self, ConditionError> {
        if text == "merged" {
            return Ok(Self::Merged);
        }
        let (kind, action) = match text.split_once('.') {
            Some((kind, action)) => (kind, Some(action)),
            None => (text, None),
        };
        let legal = |action: &str| EventKind::parse(action).is_some();
        match EventKind::parse(kind).filter(|_| action.is_none_or(legal)) {
            Some(kind) => Ok(Self::Kind(kind, action.map(str::to_owned))),
            None => Err(ConditionError::Event(text.to_owned())),
        }
    }
}

/// `on-cel`.
#[derive(Debug, Clone)]
struct Condition {
    source: String,
    expression: Expression,
}

impl Conditions {
    /// Reads the annotations of a template; faults go to `faults`.
    pub(super) fn read(annotations: Option<&Node>, faults: &mut Vec<Fault>) -> Self {
        let mut conditions = Self::default();
        for (key, node) in annotations.map(Node::entries).unwrap_or_default() {
            let Some(name) = key.name.strip_prefix(PREFIX) else { continue };
            let mut fault = |message: String| faults.push(Fault { at: node.at, message });
            let Some(text) = node.text() else {
                fault(format!("`{}` must be text; write it in quotes", key.name));
                continue;
            };
            if placeholder::present(text) {
                fault(format!("`{}` is read before any event; write it without a placeholder", key.name));
                continue;
            }
            if let Err(error) = conditions.set(name, text) {
                fault(format!("`{}`: {error}", key.name));
            }
        }
        conditions
    }

    fn set(&mut self, name: &str, text: &str) -> Result<(), ConditionError> {
        match name {
            "on-event" => self.event = Events::compile(text)?,
            "on-repository" => self.repository = Some(on_repository(text)?),
            "on-target-branch" => self.target_branch = Some(Globs::compile(text, Case::Matters)?),
            "on-cel" => {
                let expression = Expression::compile(text)?;
                self.cel = Some(Condition { source: text.trim().to_owned(), expression });
            }
            other => return Err(unknown(other)),
        }
        Ok(())
    }

    /// For which repositories the template is, if it says so.
    pub(super) fn repositories(&self) -> Option<&Globs> {
        self.repository.as_ref()
    }

    /// Whether only merges can match.
    pub(crate) fn wants_only_merges(&self) -> bool {
        self.event.wanted == [Wanted::Merged]
    }

    /// Whether `on-cel` has to be evaluated.
    pub(crate) fn needs_cel(&self) -> bool {
        self.cel.as_ref().is_some_and(|condition| condition.expression.needs_cel())
    }

    /// The conditions that cost nothing, one after the other.
    pub(crate) fn cheap_checks<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = Check<'a>> {
        let kind = Check {
            condition: "on-event",
            wanted: &self.event.source,
            got: Got::Kind(event),
            holds: self.event.matches(event),
        };
        let repository = self.repository.as_ref().map(|globs| check("on-repository", globs, event.repository_name()));
        let branch = self
            .target_branch
            .as_ref()
            .map(|globs| check("on-target-branch", globs, event.subject.target_branch.as_deref()));
        std::iter::once(kind).chain(repository).chain(branch)
    }

    /// `on-cel`, if there is one.
    ///
    /// # Errors
    /// When the expression is neither true nor false in this event.
    pub(crate) fn cel_check<'a>(&'a self, event: &Event) -> Result<Option<Check<'a>>, EvaluationError> {
        let Some(condition) = &self.cel else { return Ok(None) };
        let holds = condition.expression.holds(event)?;
        Ok(Some(Check { condition: "on-cel", wanted: &condition.source, got: Got::Truth(holds), holds }))
    }
}

fn check<'a>(condition: &'static str, globs: &'a Globs, got: Option<&'a str>) -> Check<'a> {
    let holds = got.is_some_and(|got| globs.matches(got));
    Check { condition, wanted: globs.source(), got: Got::Text(got), holds }
}

fn on_repository(text: &str) -> Result<Globs, ConditionError> {
    if let Some(pattern) = text.split(',').map(str::trim).find(|pattern| !pattern.contains('/') && *pattern != "**") {
        return Err(ConditionError::Repository(pattern.to_owned()));
    }
    // GitHub treats names of owners and repositories without regard to case.
    Ok(Globs::compile(text, Case::Ignored)?)
}

fn unknown(name: &str) -> ConditionError {
    let nearest = nearest(name, KNOWN.iter().copied());
    nearest.map_or(ConditionError::Unknown, |nearest| ConditionError::Misspelled(nearest.to_owned()))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_repository_pattern_has_an_owner() {
        let error = super::on_repository("api").expect_err("no owner").to_string();
        assert!(error.contains("acme/api"), "{error}");
        assert!(super::on_repository("Acme/*").expect("a pattern").matches("acme/Web"));
    }
}
