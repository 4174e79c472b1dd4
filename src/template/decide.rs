//! Decides, for `serve` and `render`, which templates match an event, and renders their runs.

use std::fmt::Write;

use super::conditions::{Check, Mismatch};
use super::model::{Template, TemplateSet};
use super::render::{PipelineRun, RenderError, Stamp};
use crate::github::{Event, NotAMerge};

/// Templates that may match an event, selected without `on-cel`.
#[derive(Debug)]
pub(crate) enum Selection<'t> {
    /// No template can match.
    Ignore(Ignored),
    /// Templates that match unless their `on-cel` does not hold.
    Candidates(Candidates<'t>),
}

/// Templates whose conditions except `on-cel` hold; never empty.
#[derive(Debug)]
pub(crate) struct Candidates<'t>(Vec<&'t Template>);

/// Result of [`TemplateSet::decide`].
#[derive(Debug)]
pub(crate) enum Decision {
    /// The event creates no run.
    Ignore(Ignored),
    /// One result per matching template; never empty. Each render can fail by itself.
    Render(Vec<Result<PipelineRun, RenderError>>),
}

/// Why an event creates no run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ignored {
    /// The event is not a merge, and all templates are for merges only.
    #[error(transparent)]
    NotAMerge(#[from] NotAMerge),
    /// No template matches; lists the first few conditions that do not hold.
    #[error("no template matches: {0}")]
    NoTemplate(String),
}

/// Maximum number of mismatches listed in a message; the others are counted.
const MAX_NAMED: usize = 3;

/// Collects mismatches for a message; formats only the listed ones.
#[derive(Default)]
struct Mismatches {
    named: String,
    count: usize,
}

impl Mismatches {
    fn add(&mut self, template: &Template, check: Check<'_>) {
        self.count += 1;
        if self.count <= MAX_NAMED {
            let separator = if self.count == 1 { "" } else { "; " };
            // Writing to a String cannot fail.
            let _ = write!(self.named, "{separator}template {}: {}", template.name(), Mismatch::from(check));
        }
    }

    fn into_ignored(self) -> Ignored {
        let more = self.count.saturating_sub(MAX_NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        Ignored::NoTemplate(format!("{}{more}", self.named))
    }
}

impl TemplateSet {
    /// Selects the templates whose conditions except `on-cel` hold. This is cheap, and enough for most events.
    pub(crate) fn select(&self, event: &Event) -> Selection<'_> {
        if self.only_merges
            && let Err(error) = event.merge()
        {
            return Selection::Ignore(error.into());
        }
        let mut templates: Vec<&Template> =
            self.possible(event).into_iter().filter_map(|index| self.templates.get(index)).collect();
        templates.retain(|template| template.conditions.cheap_checks(event).all(|check| check.holds));
        if templates.is_empty() {
            return Selection::Ignore(self.mismatches(event));
        }
        Selection::Candidates(Candidates(templates))
    }

    /// Indices of the templates whose `on-repository` matches or is not set, ascending; all if there is no index.
    fn possible(&self, event: &Event) -> Vec<usize> {
        let Some(index) = &self.repositories else { return (0..self.templates.len()).collect() };
        let mut possible = index.matching(event.repository_name().unwrap_or_default());
        if !self.for_any_repository.is_empty() {
            possible.extend(&self.for_any_repository);
            possible.sort_unstable();
        }
        possible
    }

    /// Lists the mismatches of the first few templates, for an event that matches no template.
    fn mismatches(&self, event: &Event) -> Ignored {
        let mut mismatches = Mismatches::default();
        for template in self.templates.iter().take(MAX_NAMED) {
            if let Some(check) = template.conditions.cheap_checks(event).find(|check| !check.holds) {
                mismatches.add(template, check);
            }
        }
        mismatches.count = self.templates.len();
        mismatches.into_ignored()
    }

    /// Calls [`Self::select`], then [`Candidates::decide`].
    pub(crate) fn decide(&self, event: &Event, stamp: Stamp<'_>) -> Decision {
        match self.select(event) {
            Selection::Ignore(ignored) => Decision::Ignore(ignored),
            Selection::Candidates(candidates) => candidates.decide(event, stamp),
        }
    }
}

impl Candidates<'_> {
    /// Whether [`Self::decide`] needs the CEL interpreter, which must not run on a serving thread.
    pub(crate) fn need_cel(&self) -> bool {
        self.0.iter().any(|template| template.needs_cel)
    }

    /// Evaluates `on-cel` and renders the run of each matching template.
    pub(crate) fn decide(self, event: &Event, stamp: Stamp<'_>) -> Decision {
        let mut runs = Vec::new();
        let mut mismatches = Mismatches::default();
        for template in self.0 {
            match template.conditions.cel_check(event) {
                Ok(Some(check)) if !check.holds => mismatches.add(template, check),
                Ok(_) => runs.push(template.render(event, stamp)),
                Err(error) => runs.push(Err(RenderError::condition(template, &error))),
            }
        }
        if runs.is_empty() { Decision::Ignore(mismatches.into_ignored()) } else { Decision::Render(runs) }
    }
}

impl Template {
    /// One line (`yes: ...`, `no: ...` or `error: ...`) per condition, up to the first that does not hold.
    pub(crate) fn explain(&self, event: &Event) -> Vec<String> {
        let line = |check: Check<'_>| {
            let verdict = if check.holds { "yes" } else { "no" };
            format!("{verdict}: {}", Mismatch::from(check))
        };
        let mut lines = Vec::new();
        for check in self.conditions.cheap_checks(event) {
            lines.push(line(check));
            if !check.holds {
                return lines;
            }
        }
        match self.conditions.cel_check(event) {
            Ok(None) => {}
            Ok(Some(check)) => lines.push(line(check)),
            Err(error) => lines.push(format!("error: on-cel: {error}")),
        }
        lines
    }
}
