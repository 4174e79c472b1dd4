//! Which templates an event is for, and the runs they make: one answer for `serve` and `render`.

use std::fmt::Write;

use super::conditions::{Check, Mismatch};
use super::render::{PipelineRun, RenderError, Stamp};
use super::{Template, TemplateSet};
use crate::event::Event;

/// Templates whose cheap conditions hold, or why there is none.
#[derive(Debug)]
pub struct Candidates<'t> {
    templates: Vec<&'t Template>,
    reason: String,
}

/// What an event comes to.
#[derive(Debug)]
pub struct Decision {
    /// The runs of the templates that match, each rendered or not.
    pub runs: Vec<Result<PipelineRun, RenderError>>,
    /// Why no template matches, in words for a person; empty if one does.
    pub reason: String,
}

/// Mismatches that are named; the others are counted.
const NAMED: usize = 3;

/// Collects why templates do not match, without work for those that are only counted.
#[derive(Default)]
struct Reasons {
    named: String,
    count: usize,
}

impl Reasons {
    fn add(&mut self, template: &Template, check: Check<'_>) {
        self.count += 1;
        if self.count <= NAMED {
            let separator = if self.count == 1 { "" } else { "; " };
            // Writing to a String cannot fail.
            let _ = write!(self.named, "{separator}template {}: {}", template.name(), Mismatch::from(check));
        }
    }

    fn sentence(self) -> String {
        let more = self.count.saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more") } else { String::new() };
        format!("no template matches: {}{more}", self.named)
    }
}

impl TemplateSet {
    /// The templates whose cheap conditions hold. Most events end here, having cost next to nothing.
    pub fn candidates(&self, event: &Event) -> Candidates<'_> {
        if self.only_merges
            && let Err(reason) = event.merge_or_reason()
        {
            return Candidates { templates: Vec::new(), reason };
        }
        let mut templates: Vec<&Template> =
            self.possible(event).into_iter().filter_map(|index| self.templates.get(index)).collect();
        templates.retain(|template| template.conditions.cheap_checks(event).all(|check| check.holds));
        let reason = if templates.is_empty() { self.why_none(event) } else { String::new() };
        Candidates { templates, reason }
    }

    /// The templates that are not for other repositories, in their order.
    fn possible(&self, event: &Event) -> Vec<usize> {
        let Some(index) = &self.repositories else { return (0..self.templates.len()).collect() };
        let mut possible = index.matching(event.repository_name().unwrap_or_default());
        if !self.anywhere.is_empty() {
            possible.extend(&self.anywhere);
            possible.sort_unstable();
        }
        possible
    }

    /// The first few templates' mismatches, when no template matches.
    fn why_none(&self, event: &Event) -> String {
        let mut reasons = Reasons::default();
        for template in self.templates.iter().take(NAMED) {
            if let Some(check) = template.conditions.cheap_checks(event).find(|check| !check.holds) {
                reasons.add(template, check);
            }
        }
        reasons.count = self.templates.len();
        reasons.sentence()
    }

    /// Everything at once: see [`Self::candidates`] and [`Candidates::decide`].
    pub fn decide(&self, event: &Event, stamp: Stamp<'_>) -> Decision {
        self.candidates(event).decide(event, stamp)
    }
}

impl Candidates<'_> {
    /// Why there is none.
    pub fn none(&self) -> Option<&str> {
        self.templates.is_empty().then_some(self.reason.as_str())
    }

    /// Whether CEL has to run to decide: then not on a thread that serves.
    pub fn need_cel(&self) -> bool {
        self.templates.iter().any(|template| template.needs_cel)
    }

    /// Evaluates what is left and renders the runs.
    pub fn decide(self, event: &Event, stamp: Stamp<'_>) -> Decision {
        let mut runs = Vec::new();
        let mut reasons = Reasons::default();
        for template in &self.templates {
            match template.conditions.cel_check(event) {
                Ok(Some(check)) if !check.holds => reasons.add(template, check),
                Ok(_) => runs.push(template.render(event, stamp)),
                Err(error) => runs.push(Err(RenderError::condition(template, &error))),
            }
        }
        let reason = match (runs.is_empty(), self.templates.is_empty()) {
            (false, _) => String::new(),
            (true, true) => self.reason,
            (true, false) => reasons.sentence(),
        };
        Decision { runs, reason }
    }
}

impl Template {
    /// Every condition with what it wanted and got, up to the first that does not hold, as lines for a person.
    pub fn trace(&self, event: &Event) -> Vec<String> {
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
