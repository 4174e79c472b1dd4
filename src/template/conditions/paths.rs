//! `on-path`: the paths that a change must touch, for a repository with several applications.

use super::check::{Check, ConditionError, Got};
use crate::github::Event;
use crate::template::globs::{Case, GlobError, Globs};

/// Value of `on-path`: a comma-separated list of globs; those that begin with `!` exclude paths.
#[derive(Debug, Clone)]
pub(super) struct PathGlobs {
    source: String,
    /// `None`: all paths.
    included: Option<Globs>,
    excluded: Option<Globs>,
}

impl PathGlobs {
    /// Fails when a pattern is empty, invalid, or cannot match a path in a repository.
    pub(super) fn compile(text: &str) -> Result<Self, ConditionError> {
        let patterns: Vec<&str> = text.split(',').map(str::trim).collect();
        let bare = |pattern: &str| pattern.strip_prefix('!').unwrap_or(pattern).trim().to_owned();
        if let Some(never) = patterns.iter().map(|pattern| bare(pattern)).find_map(|pattern| fault(&pattern)) {
            return Err(ConditionError::Never(never));
        }
        let list = |excluding: bool| -> Result<Option<Globs>, GlobError> {
            let chosen = patterns.iter().filter(|pattern| pattern.starts_with('!') == excluding);
            let chosen: Vec<String> = chosen.map(|pattern| bare(pattern)).collect();
            if chosen.is_empty() { Ok(None) } else { Globs::compile(&chosen.join(","), Case::Sensitive).map(Some) }
        };
        Ok(Self { source: patterns.join(", "), included: list(false)?, excluded: list(true)? })
    }

    fn takes(&self, path: &str) -> bool {
        let is_in = |globs: &Option<Globs>, default: bool| globs.as_ref().map_or(default, |globs| globs.matches(path));
        is_in(&self.included, true) && !is_in(&self.excluded, false)
    }

    /// A push is decided by the paths of its payload. Of a merge, the payload has none: the pipeline decides.
    pub(super) fn check<'a>(&'a self, event: &'a Event) -> Check<'a> {
        let (got, holds) = match event.changed_paths() {
            Some(paths) => (Got::Paths(paths), paths.iter().any(|path| self.takes(path))),
            None if event.merge.is_some() => (Got::Text(Some("a merge, whose paths the pipeline compares")), true),
            None => (Got::Text(Some("a push that does not list all of its paths")), true),
        };
        Check { condition: "on-path", wanted: &self.source, got, holds }
    }
}

/// Why a pattern never matches.
fn fault(pattern: &str) -> Option<String> {
    if pattern.starts_with('/') || pattern.starts_with("./") {
        return Some(format!("`{pattern}` matches no path; write it from the repository's top, without `/` before it"));
    }
    if pattern.contains(['[', ']', '{', '}', '\\']) {
        return Some(format!("`{pattern}`: brackets are not allowed; write several patterns, with `*`, `**` and `?`"));
    }
    pattern.ends_with('/').then(|| format!("`{pattern}` is a folder; write `{pattern}**` for what is in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_is_included_and_not_excluded() {
        let globs = |text: &str| PathGlobs::compile(text).expect("globs");
        let web = globs("web/**, shared/*.go, !**/*.md");
        for path in ["web/a", "web/b/c.js", "shared/x.go"] {
            assert!(web.takes(path), "{path}");
        }
        for path in ["webs/a", "web", "web/README.md", "shared/deep/x.go", "shared/x.py", "README.md"] {
            assert!(!web.takes(path), "{path}");
        }
        let all_but_docs = globs("!docs/**");
        assert!(all_but_docs.takes("src/main.rs") && !all_but_docs.takes("docs/a.md"));
    }

    #[test]
    fn corrects_patterns_that_match_nothing() {
        for (text, correction) in [
            ("/web/**", "without `/`"),
            ("./web", "without `/`"),
            ("web/", "write `web/**`"),
            ("!web/", "write `web/**`"),
        ] {
            let error = PathGlobs::compile(text).map(drop).expect_err(text).to_string();
            assert!(error.contains(correction), "{error}");
        }
        for text in ["", "web/**,", "!", "a, [b", "web/*.{js", "a\\b"] {
            assert!(PathGlobs::compile(text).is_err(), "{text}");
        }
    }
}
