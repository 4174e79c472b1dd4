//! Conditions of a template: its `github-trigger.dev/on-*` annotations. A template matches an event if all hold.

mod check;
mod events;
mod paths;
mod patterns;

use std::collections::HashMap;

use super::event_names;
use super::expression::{EvaluationError, EventScope, Expression, Name};
use super::globs::{Case, Globs};
use super::nearest::nearest;
use super::placeholder;
use super::yaml::{Fault, Node, Position};
use crate::delivery::EventKind;
use crate::github::Event;
use check::CONDITION_NAMES;
pub(crate) use check::{Check, ConditionError, Got, Mismatch, PREFIX};
use paths::PathGlobs;

/// Conditions of one template; all must hold.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conditions {
    event: Events,
    repository: Option<Globs>,
    target_branch: Option<Globs>,
    path: Option<PathGlobs>,
    cel: Option<Condition>,
}

/// Value of `on-event`: a comma-separated list, for example `merged, push, release.published`.
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
        let source = source.trim();
        if let Some(list) = source.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            return Err(ConditionError::Never(format!("write the events without brackets: `{list}`")));
        }
        let wanted = source.split(',').map(|kind| Wanted::parse(kind.trim())).collect::<Result<_, _>>()?;
        Ok(Self { source: source.to_owned(), wanted })
    }

    fn matches(&self, event: &Event) -> bool {
        self.wanted.iter().any(|wanted| match wanted {
            Wanted::Merged => event.merge.is_some(),
            Wanted::Kind(kind, action) => event.kind == *kind && (action.is_none() || event.action == *action),
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
        let never = events::fault(kind, action);
        match (never, EventKind::parse(kind)) {
            (None, Some(kind)) => Ok(Self::Kind(kind, action.map(str::to_owned))),
            (never, _) => Err(ConditionError::Never(never.unwrap_or_else(|| format!("`{text}` is not an event")))),
        }
    }
}

/// Value of `on-cel`.
#[derive(Debug, Clone)]
struct Condition {
    source: String,
    expression: Expression,
}

impl Conditions {
    /// Reads the conditions from the annotations of a template; adds faults to `faults`, and to
    /// `warnings` what some of the wanted events never match.
    pub(super) fn read(annotations: Option<&Node>, faults: &mut Vec<Fault>, warnings: &mut Vec<Fault>) -> Self {
        let mut conditions = Self::default();
        let mut positions = HashMap::new();
        for (key, node) in annotations.map(Node::entries).unwrap_or_default() {
            let Some(name) = key.name.strip_prefix(PREFIX) else { continue };
            let mut fault = |message: String| faults.push(Fault { at: node.at, message });
            let Some(text) = node.text() else {
                fault(format!("`{}` must be text; write it in quotes", key.name));
                continue;
            };
            if placeholder::present(text) {
                fault(format!("`{}` cannot contain a placeholder; write the value out", key.name));
                continue;
            }
            if let Err(error) = conditions.set(name, text) {
                fault(format!("`{}`: {error}", key.name));
            }
            positions.insert(name, node.at);
        }
        conditions.check_kinds(&positions, faults, warnings);
        conditions
    }

    /// Reports conditions about what events of a wanted kind do not have.
    fn check_kinds(&self, positions: &HashMap<&str, Position>, faults: &mut Vec<Fault>, warnings: &mut Vec<Fault>) {
        let mut report = |condition: &str, lacks: &dyn Fn(&EventKind) -> bool, why: &str| {
            let found = self.kinds().flatten().find(|kind| lacks(kind));
            let (Some(&at), Some(kind)) = (positions.get(condition), found) else { return };
            // `on-path` is never for others than these two.
            let may_match = condition != "on-path" && self.kinds().any(|kind| !kind.is_some_and(lacks));
            let found = if may_match { &mut *warnings } else { &mut *faults };
            found.push(Fault { at, message: format!("`{PREFIX}{condition}`: a `{kind}` {why}") });
        };
        report("on-path", &|kind| *kind != EventKind::Push, "changes no paths; only `merged` and `push` do");
        report(
            "on-target-branch",
            &|kind| event_names::lacks(kind, Name::TargetBranch),
            "has no target branch, so that the template never matches it; write a template of its own, without this line",
        );
        report(
            "on-repository",
            &event_names::lacks_repository,
            "belongs to no repository, so that the template never matches it; use on-cel, for example with \
             body.organization.login",
        );
        for name in self.cel.iter().flat_map(|condition| condition.expression.needed_names()) {
            let why = format!("has no value for `{}`, which the expression reads", name.as_str());
            report("on-cel", &|kind| event_names::lacks(kind, name), &why);
        }
    }

    fn set(&mut self, name: &str, text: &str) -> Result<(), ConditionError> {
        match name {
            "on-event" => self.event = Events::compile(text)?,
            // Names of owners and repositories are case-insensitive on GitHub.
            "on-repository" => self.repository = Some(globs(text, Case::Insensitive, patterns::repository_fault)?),
            "on-target-branch" => self.target_branch = Some(globs(text, Case::Sensitive, patterns::branch_fault)?),
            "on-path" => self.path = Some(PathGlobs::compile(text)?),
            "on-cel" => {
                let expression = Expression::compile(text)?;
                if let Some(fault) = expression.condition_fault() {
                    return Err(ConditionError::Never(fault));
                }
                self.cel = Some(Condition { source: text.trim().to_owned(), expression });
            }
            other => return Err(unknown(other)),
        }
        Ok(())
    }

    /// Value of `on-repository`; `None` if the template does not set it.
    pub(super) fn repositories(&self) -> Option<&Globs> {
        self.repository.as_ref()
    }

    /// Whether `on-repository` takes the event's repository, or is not set.
    pub(crate) fn takes_repository(&self, event: &Event) -> bool {
        self.repository.as_ref().is_none_or(|globs| event.repository_name().is_some_and(|name| globs.matches(name)))
    }

    /// The kinds of events that can match; `None` stands for merges.
    pub(super) fn kinds(&self) -> impl Iterator<Item = Option<&EventKind>> {
        self.event.wanted.iter().map(|wanted| match wanted {
            Wanted::Merged => None,
            Wanted::Kind(kind, _) => Some(kind),
        })
    }

    /// Whether only merges can match.
    pub(crate) fn wants_only_merges(&self) -> bool {
        self.event.wanted == [Wanted::Merged]
    }

    /// The events that can match, as far as they decide who chooses a text.
    pub(super) fn event_scope(&self) -> EventScope {
        let is_any_dispatch =
            |wanted: &Wanted| matches!(wanted, Wanted::Kind(kind, None) if kind.as_str() == "repository_dispatch");
        if self.wants_only_merges() {
            EventScope::Merges
        } else if self.event.wanted.iter().any(is_any_dispatch) {
            EventScope::Dispatches
        } else {
            EventScope::Others
        }
    }

    /// Whether events match whose commit anyone can make, in a fork.
    pub(super) fn take_commits_of_forks(&self) -> bool {
        self.kinds().flatten().any(event_names::has_commits_of_forks)
    }

    /// Whether `on-cel` needs the CEL interpreter.
    pub(crate) fn needs_cel(&self) -> bool {
        self.cel.as_ref().is_some_and(|condition| condition.expression.needs_cel())
    }

    /// Checks all conditions except `on-cel`, lazily and cheapest first.
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
        let path = self.path.as_ref().map(|globs| globs.check(event));
        std::iter::once(kind).chain(repository).chain(branch).chain(path)
    }

    /// Checks `on-cel`; returns `None` if the template does not set it.
    /// Fails when the expression is neither true nor false for this event.
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

fn globs(text: &str, case: Case, fault: fn(&str) -> Option<String>) -> Result<Globs, ConditionError> {
    // The list as a whole may be in brackets.
    let whole = Some(text.trim()).filter(|text| text.starts_with('['));
    let patterns = text.split(',').map(str::trim).filter(|pattern| !pattern.is_empty());
    match whole.into_iter().chain(patterns).find_map(fault) {
        Some(never) => Err(ConditionError::Never(never)),
        None => Ok(Globs::compile(text, case)?),
    }
}

fn unknown(name: &str) -> ConditionError {
    let nearest = nearest(name, CONDITION_NAMES.iter().copied());
    nearest.map_or(ConditionError::Unknown, |nearest| ConditionError::Misspelled(nearest.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrects_events_that_github_does_not_have() {
        for event in
            ["merged", "push", "release.published, merged", "repository_dispatch.my-own_type", "pull_request.closed"]
        {
            assert!(Events::compile(event).is_ok(), "{event}");
        }
        for (event, correction) in [
            ("merge", "write `merged`"),
            ("pull_request.merged", "write `merged`"),
            ("Push", "did you mean `push`?"),
            ("pull-request", "did you mean `pull_request`?"),
            ("pull_request.synchronise", "did you mean `pull_request.synchronize`?"),
            ("push.created", "`push` has no actions"),
            ("release.done", "its actions are created"),
            ("[push, merged]", "without brackets: `push, merged`"),
            ("", "write `merged`"),
        ] {
            let error = Events::compile(event).map(drop).expect_err(event).to_string();
            assert!(error.contains(correction), "{event}: {error}");
        }
    }
}
