//! Comma-separated lists of globs, and an index over many lists.
//!
//! `*` matches any characters except `/`, `**` any characters, `?` one character.

use std::borrow::Cow;
use std::fmt;

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

/// Whether upper and lower case differ in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Case-sensitive.
    Sensitive,
    /// Case-insensitive, for ASCII letters.
    Insensitive,
}

/// Why a list of globs is invalid.
#[derive(Debug, thiserror::Error)]
pub(super) enum GlobError {
    #[error("a pattern is empty; write a comma-separated list such as `acme/api, acme/web-*`")]
    Empty,
    #[error("`{pattern}` is not a valid pattern: {}; use `*` for any characters", source.kind())]
    Pattern { pattern: String, source: globset::Error },
}

/// A comma-separated list of globs.
#[derive(Clone)]
pub(super) struct Globs {
    source: String,
    case: Case,
    globs: Vec<Glob>,
    set: GlobSet,
}

impl fmt::Debug for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Globs").field(&self.source).finish()
    }
}

impl Globs {
    /// Compiles a comma-separated list; fails if a pattern is empty or invalid.
    pub(super) fn compile(source: &str, case: Case) -> Result<Self, GlobError> {
        let patterns: Vec<&str> = source.split(',').map(str::trim).collect();
        if patterns.iter().any(|pattern| pattern.is_empty()) {
            return Err(GlobError::Empty);
        }
        let invalid = |pattern: &str, source| GlobError::Pattern { pattern: pattern.to_owned(), source };
        let mut globs = Vec::with_capacity(patterns.len());
        for pattern in &patterns {
            let glob = GlobBuilder::new(&case.fold(pattern)).literal_separator(true).backslash_escape(true).build();
            globs.push(glob.map_err(|error| invalid(pattern, error))?);
        }
        let set = set(&globs).map_err(|error| invalid(source, error))?;
        Ok(Self { source: patterns.join(", "), case, globs, set })
    }

    /// The patterns as written, joined by `, `.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether one of the globs matches the whole `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.set.is_match(&*self.case.fold(text))
    }
}

impl Case {
    /// Names on GitHub are ASCII; lower case on both sides keeps literal patterns literal, which is fast.
    fn fold(self, text: &str) -> Cow<'_, str> {
        match self {
            Self::Insensitive if text.bytes().any(|b| b.is_ascii_uppercase()) => text.to_ascii_lowercase().into(),
            Self::Insensitive | Self::Sensitive => text.into(),
        }
    }
}

fn set<'g>(globs: impl IntoIterator<Item = &'g Glob>) -> Result<GlobSet, globset::Error> {
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        builder.add(glob.clone());
    }
    builder.build()
}

/// Index over many lists, so that a text is not compared with each list.
#[derive(Clone, Default)]
pub(super) struct GlobIndex {
    set: GlobSet,
    /// For each glob of `set`, the number of its list.
    owners: Vec<usize>,
}

impl fmt::Debug for GlobIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobIndex").field("globs", &self.owners.len()).finish()
    }
}

impl GlobIndex {
    /// Builds an index over numbered case-insensitive lists. Returns `None` if they are too many for one index.
    pub(super) fn build<'g>(lists: impl Iterator<Item = (usize, &'g Globs)>) -> Option<Self> {
        let (mut globs, mut owners) = (Vec::new(), Vec::new());
        for (owner, list) in lists {
            debug_assert_eq!(list.case, Case::Insensitive);
            owners.extend(std::iter::repeat_n(owner, list.globs.len()));
            globs.extend(&list.globs);
        }
        Some(Self { set: set(globs).ok()?, owners })
    }

    /// Whether one of the lists matches `text`.
    pub(super) fn matches(&self, text: &str) -> bool {
        self.set.is_match(&*Case::Insensitive.fold(text))
    }

    /// Numbers of the lists that match `text`, ascending.
    pub(super) fn matching(&self, text: &str) -> Vec<usize> {
        let mut owners: Vec<usize> = self
            .set
            .matches(&*Case::Insensitive.fold(text))
            .into_iter()
            .filter_map(|glob| self.owners.get(glob).copied())
            .collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }
}

#[cfg(test)]
mod tests {
    use super::{Case, GlobIndex, Globs};

    fn matches(patterns: &str, text: &str) -> bool {
        Globs::compile(patterns, Case::Sensitive).expect("patterns").matches(text)
    }

    #[test]
    fn single_star_does_not_match_slash() {
        assert!(matches("release/*", "release/1.0"));
        assert!(!matches("release/*", "release/1.0/hotfix"));
        assert!(matches("release/**", "release/1.0/hotfix"));
        assert!(!matches("main", "main2"));
        assert!(!matches("main", "Main"));
    }

    #[test]
    fn matches_any_pattern_of_list() {
        assert!(matches("main, release/*", "release/1"));
        assert!(matches("main,release/*", "main"));
        assert!(!matches("main, release/*", "feature/x"));
    }

    #[test]
    fn rejects_empty_and_invalid_patterns() {
        for broken in ["", "main,,x", "a["] {
            assert!(Globs::compile(broken, Case::Sensitive).is_err(), "{broken}");
        }
    }

    #[test]
    fn index_agrees_with_its_lists() {
        let sources = ["acme/web", "Acme/*", "acme/web, acme/api", "other/**", "*/web"];
        let lists: Vec<Globs> =
            sources.iter().map(|source| Globs::compile(source, Case::Insensitive).expect("patterns")).collect();
        let index = GlobIndex::build(lists.iter().enumerate()).expect("an index");
        for text in ["acme/web", "ACME/Web", "acme/api", "acme/x", "other/web", "none/none"] {
            let each: Vec<usize> = (0..lists.len()).filter(|&list| lists[list].matches(text)).collect();
            assert_eq!(index.matching(text), each, "{text}");
        }
        assert_eq!(index.matching("ACME/WEB"), [0, 1, 2, 4]);
    }
}
