//! Which events a template is for: its `github-trigger.dev/on-*` annotations, all of which must hold.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

use super::yaml::{Fault, Node};
use crate::event::Event;

/// The prefix of every annotation and label that is ours.
pub const PREFIX: &str = "github-trigger.dev/";

/// When a template is used.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    repository: Option<Globs>,
    target_branch: Option<Globs>,
}

/// The first condition that did not hold: what it wanted and what it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// The annotation without its prefix.
    pub condition: &'static str,
    /// The annotation's value.
    pub wanted: String,
    /// What the event has.
    pub got: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} wants {}, got {}", self.condition, self.wanted, self.got)
    }
}

/// A comma list of globs: `*` matches any characters but `/`, `**` any, `?` one.
#[derive(Debug, Clone)]
struct Globs {
    source: String,
    matchers: Vec<GlobMatcher>,
}

impl Globs {
    fn compile(source: &str, case_insensitive: bool) -> Result<Self, String> {
        let patterns: Vec<&str> = source.split(',').map(str::trim).collect();
        if patterns.iter().any(|pattern| pattern.is_empty()) {
            return Err("an empty pattern; write a comma list such as `acme/api, acme/web-*`".into());
        }
        let matchers = patterns
            .iter()
            .map(|pattern| {
                GlobBuilder::new(pattern)
                    .literal_separator(true)
                    .case_insensitive(case_insensitive)
                    .backslash_escape(true)
                    .build()
                    .map(|glob| glob.compile_matcher())
                    .map_err(|error| format!("`{pattern}` is no pattern: {}; use * for any characters", error.kind()))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { source: patterns.join(", "), matchers })
    }

    fn matches(&self, text: &str) -> bool {
        self.matchers.iter().any(|matcher| matcher.is_match(text))
    }
}

impl Conditions {
    /// Reads the annotations of a template; faults go to `faults`.
    pub(super) fn read(annotations: Option<&Node>, faults: &mut Vec<Fault>) -> Self {
        let mut conditions = Self::default();
        for (key, node) in annotations.map(Node::entries).unwrap_or_default() {
            let Some(name) = key.name.strip_prefix(PREFIX) else {
                continue;
            };
            let mut fault = |message: String| faults.push(Fault { at: node.at, message });
            let Some(text) = node.text() else {
                fault(format!("`{}` must be text; write it in quotes", key.name));
                continue;
            };
            if super::placeholder::present(text) {
                fault(format!("`{}` is read before any event; write it without a placeholder", key.name));
                continue;
            }
            let compiled = match name {
                "on-event" => on_event(text),
                "on-repository" => on_repository(text).map(|globs| conditions.repository = Some(globs)),
                "on-target-branch" => Globs::compile(text, false).map(|globs| conditions.target_branch = Some(globs)),
                other => Err(unknown(other)),
            };
            if let Err(message) = compiled {
                fault(format!("`{}`: {message}", key.name));
            }
        }
        conditions
    }

    /// Whether it says for which repositories the template is.
    pub fn names_repositories(&self) -> bool {
        self.repository.is_some()
    }

    /// Whether all conditions hold for a merge; the first that does not otherwise.
    ///
    /// # Errors
    /// The condition that did not hold.
    pub fn check(&self, event: &Event) -> Result<(), Mismatch> {
        check("on-repository", self.repository.as_ref(), event.repository_name())?;
        check("on-target-branch", self.target_branch.as_ref(), event.target_branch())
    }
}

fn check(condition: &'static str, globs: Option<&Globs>, got: Option<&str>) -> Result<(), Mismatch> {
    let Some(globs) = globs else { return Ok(()) };
    if got.is_some_and(|got| globs.matches(got)) {
        return Ok(());
    }
    Err(Mismatch { condition, wanted: globs.source.clone(), got: got.unwrap_or("none").to_owned() })
}

fn on_event(text: &str) -> Result<(), String> {
    if text.trim() == "merged" {
        return Ok(());
    }
    Err(format!("the event `{text}` is not supported; write `merged`"))
}

fn on_repository(text: &str) -> Result<Globs, String> {
    if let Some(pattern) = text.split(',').map(str::trim).find(|pattern| !pattern.contains('/') && *pattern != "**") {
        return Err(format!("`{pattern}` can never match `owner/name`; write for example `acme/{pattern}`"));
    }
    // GitHub treats names of owners and repositories without regard to case.
    Globs::compile(text, true)
}

fn unknown(name: &str) -> String {
    let known = ["on-event", "on-repository", "on-target-branch"];
    match super::nearest(name, known.into_iter()) {
        Some(nearest) => format!("unknown annotation; did you mean `{PREFIX}{nearest}`?"),
        None => format!("unknown annotation; of {PREFIX} a template may set {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::Globs;

    fn matches(patterns: &str, text: &str) -> bool {
        Globs::compile(patterns, false).expect("patterns").matches(text)
    }

    #[test]
    fn a_star_stays_within_a_slash() {
        assert!(matches("release/*", "release/1.0"));
        assert!(!matches("release/*", "release/1.0/hotfix"));
        assert!(matches("release/**", "release/1.0/hotfix"));
        assert!(!matches("main", "main2"));
        assert!(!matches("main", "Main"));
    }

    #[test]
    fn any_of_a_comma_list_matches() {
        assert!(matches("main, release/*", "release/1"));
        assert!(matches("main,release/*", "main"));
        assert!(!matches("main, release/*", "feature/x"));
    }

    #[test]
    fn refuses_empty_and_broken_patterns() {
        assert!(Globs::compile("", false).is_err());
        assert!(Globs::compile("main,,x", false).is_err());
        assert!(Globs::compile("a[", false).is_err());
    }

    #[test]
    fn a_repository_pattern_has_an_owner() {
        let error = super::on_repository("api").expect_err("no owner");
        assert!(error.contains("acme/api"), "{error}");
        assert!(super::on_repository("Acme/*").expect("a pattern").matches("acme/Web"));
    }
}
