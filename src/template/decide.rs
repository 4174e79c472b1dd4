//! Decides, for `serve` and `render`, which templates match an event, and renders their runs.

use super::conditions::{Check, Mismatch};
use super::model::{Template, TemplateSet};
use super::render::{PipelineRun, RenderError, Stamp, Values};
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
pub(crate) struct Candidates<'t> {
    set: &'t TemplateSet,
    templates: Vec<&'t Template>,
}

/// Result of [`TemplateSet::decide`].
#[derive(Debug)]
pub(crate) enum Decision {
    /// The event creates no run.
    Ignore(Ignored),
    /// One result per matching template; never empty. Each render can fail by itself.
    Render(Vec<Result<PipelineRun, RenderError>>),
}

/// Why an event creates no run. Displayed as the sender may read it; [`Ignored::detail`] is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ignored {
    /// The event is not a merge, and all templates are for merges only.
    #[error(transparent)]
    NotAMerge(#[from] NotAMerge),
    /// A branch or tag was deleted.
    #[error("a branch or tag was deleted, so that there is nothing to build")]
    Deletion,
    /// A merge in a repository that no template is for.
    #[error("no template is for this repository")]
    UnknownRepository(Mismatches),
    /// No template matches.
    #[error("{}", .0.public())]
    NoTemplate(Mismatches),
}

/// Maximum number of mismatches that an answer and a log line list; the others are counted.
const MAX_NAMED: usize = 3;
const MAX_LOGGED: usize = 10;

/// The conditions that do not hold, of templates for the event's repository and of all others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Mismatches {
    of_repository: Vec<String>,
    /// Number of templates for the event's repository.
    for_repository: usize,
    of_others: Vec<String>,
    others: usize,
}

impl Mismatches {
    /// Of templates for the event's repository only: its people must not read about other repositories.
    fn public(&self) -> String {
        if self.for_repository == 0 {
            return "no template is for this repository".to_owned();
        }
        let named = self.of_repository.iter().take(MAX_NAMED);
        list(named, self.for_repository)
    }

    /// Of all templates.
    fn detail(&self) -> String {
        let all = self.of_repository.iter().chain(&self.of_others).take(MAX_LOGGED);
        list(all, self.for_repository + self.others)
    }
}

fn list<'a>(named: impl Iterator<Item = &'a String>, count: usize) -> String {
    let named: Vec<&str> = named.map(String::as_str).collect();
    let more = count.saturating_sub(named.len());
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    format!("no template matches: {}{more}", named.join("; "))
}

impl Ignored {
    /// The complete sentence, for the log.
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::NotAMerge(_) | Self::Deletion => self.to_string(),
            Self::NoTemplate(mismatches) => mismatches.detail(),
            Self::UnknownRepository(mismatches) => format!(
                "no template is for the repository of this merge; was it renamed, or is on-repository misspelled? {}",
                mismatches.detail()
            ),
        }
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
        if event.is_deletion() {
            return Selection::Ignore(Ignored::Deletion);
        }
        let mut templates: Vec<&Template> =
            self.possible(event).into_iter().filter_map(|index| self.templates.get(index)).collect();
        templates.retain(|template| template.conditions.cheap_checks(event).all(|check| check.holds));
        if templates.is_empty() {
            return Selection::Ignore(self.no_template(event, &[]));
        }
        Selection::Candidates(Candidates { set: self, templates })
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

    /// Why no template matches. `on_cel` has the templates of which only `on-cel` does not hold.
    fn no_template(&self, event: &Event, on_cel: &[(&Template, Mismatch)]) -> Ignored {
        let mut mismatches = Mismatches::default();
        let mismatch = |template: &Template| {
            let cheap = template.conditions.cheap_checks(event).find(|check| !check.holds).map(Mismatch::from);
            let of_cel =
                || on_cel.iter().find(|(other, _)| std::ptr::eq(*other, template)).map(|(_, found)| found.clone());
            cheap.or_else(of_cel).map(|mismatch| format!("template {}: {mismatch}", template.name()))
        };
        // The index knows the templates for the repository; the many others are counted, and the first few named.
        let mut of_repository = self.possible(event);
        of_repository.retain(|index| self.templates[*index].conditions.takes_repository(event));
        mismatches.for_repository = of_repository.len();
        mismatches.others = self.templates.len() - of_repository.len();
        let named = of_repository.iter().take(MAX_LOGGED).filter_map(|index| mismatch(&self.templates[*index]));
        mismatches.of_repository = named.collect();
        let others = (0..self.templates.len()).filter(|index| of_repository.binary_search(index).is_err());
        let others = others.take(MAX_LOGGED).filter_map(|index| mismatch(&self.templates[index]));
        mismatches.of_others = others.collect();
        if mismatches.for_repository == 0 && event.merge.is_some() {
            return Ignored::UnknownRepository(mismatches);
        }
        Ignored::NoTemplate(mismatches)
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
        self.templates.iter().any(|template| template.needs_cel)
    }

    /// Evaluates `on-cel` and renders the run of each matching template.
    pub(crate) fn decide(self, event: &Event, stamp: Stamp<'_>) -> Decision {
        let values = Values::of(event);
        let mut runs = Vec::new();
        let mut mismatches = Vec::new();
        for template in self.templates {
            match template.conditions.cel_check(event) {
                Ok(Some(check)) if !check.holds => mismatches.push((template, Mismatch::from(check))),
                Ok(_) => runs.push(template.render(&values, stamp)),
                Err(error) => runs.push(Err(RenderError::condition(template, &error))),
            }
        }
        if runs.is_empty() {
            return Decision::Ignore(self.set.no_template(event, &mismatches));
        }
        Decision::Render(runs)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mounted::File;
    use crate::template::model::INDEXED_FROM;
    use crate::template::{Severity, parse, testing};

    /// So many templates for one repository each.
    fn set(count: usize) -> TemplateSet {
        let template = |number: usize| {
            format!(
                "apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: build-{number}\n  annotations:\n    \
                 github-trigger.dev/on-event: push\n    github-trigger.dev/on-repository: acme/web-{number}*\nspec:\n  \
                 pipelineRef:\n    name: build\n"
            )
        };
        let content = (0..count).map(template).collect::<Vec<_>>().join("---\n").into_bytes();
        let (set, findings) = parse(vec![File { path: "t.yaml".into(), content }]);
        assert!(set.len() == count && findings.iter().all(|finding| finding.severity == Severity::Warning));
        set
    }

    #[test]
    fn selects_the_same_with_and_without_an_index() {
        for (count, has_index) in [(INDEXED_FROM - 1, false), (INDEXED_FROM, true)] {
            let set = set(count);
            assert_eq!(set.repositories.is_some(), has_index);
            for (repository, expected) in
                [("acme/web-3", Some("build-3")), ("ACME/Web-5x", Some("build-5")), ("b/c", None)]
            {
                assert_eq!(set.names_repository(repository), expected.is_some(), "{repository}");
                let url = format!("https://github.com/{repository}");
                let payload = json!({
                    "ref": "refs/heads/main", "after": "ec26c3e57ca3a959ca5aad62de7213c562f8c821",
                    "repository": {"full_name": repository, "html_url": url}
                });
                let event = testing::event("push", "d1", &payload);
                let found = match set.select(&event) {
                    Selection::Candidates(candidates) => {
                        candidates.templates.iter().map(|template| template.name()).collect()
                    }
                    Selection::Ignore(_) => Vec::new(),
                };
                assert_eq!(found, Vec::from_iter(expected), "{repository}, {count} templates");
            }
        }
    }
}
