//! Names of runs. A merge always gives the same name, however often and in whichever way it is delivered.

use sha2::{Digest, Sha256};

use crate::github::Event;
use crate::names;

/// Maximum length of the base; with `-` and the hex digits a name has at most 63 characters and fits into a label.
const MAX_BASE_LENGTH: usize = 50;
/// Hex digits of the hash: 48 bits; in a million runs with one base, the probability of a collision is 1 in 500.
const HASH_DIGITS: usize = 12;

/// Inputs of a name besides its base.
pub(super) struct Identity<'a> {
    /// Event that the run is created for.
    pub(super) event: &'a Event,
    /// The template's `metadata.namespace`; `None` if not written.
    pub(super) namespace: Option<&'a str>,
    /// The template's name as written, with its placeholders.
    pub(super) template: &'a str,
}

impl Identity<'_> {
    /// The values to hash, all of them signed or ours. A merge is identified by repository, number and commit; any other event by its
    /// kind, repository and [`Event::identity`]. The delivery's id is not part of it, because no
    /// signature covers it.
    ///
    /// No part contains a line break.
    fn parts(&self) -> Vec<String> {
        let mut parts = match &self.event.merge {
            Some(merge) => vec![
                "merged".to_owned(),
                merge.repository.to_ascii_lowercase(),
                merge.number.to_string(),
                merge.commit.to_string(),
            ],
            None => {
                let repository = self.event.repository_name().unwrap_or_default().to_ascii_lowercase();
                let mut parts = vec![self.event.kind.to_string(), repository];
                parts.extend_from_slice(self.event.identity());
                parts.iter_mut().for_each(|part| *part = part.replace('\n', " "));
                parts
            }
        };
        parts.extend([self.namespace.unwrap_or_default().to_owned(), self.template.to_owned()]);
        // Runs of one team never have the names of another's, even of templates with the same name.
        parts.extend(self.event.team.name().map(str::to_owned));
        parts
    }
}

/// A text that is not valid as the beginning of a run's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a valid name; use lower case letters, digits, `-` and `.`, begin with a letter or digit, and write slug(...) around a placeholder"
)]
pub(super) struct InvalidName(String);

/// Returns the base of a name: `text`, cut to its maximum length, without `-` and `.` at the end.
/// Fails when the result is not a valid beginning of an object's name.
pub(super) fn base(text: &str) -> Result<&str, InvalidName> {
    let cut = text.char_indices().nth(MAX_BASE_LENGTH).map_or(text, |(index, _)| &text[..index]);
    let base = cut.trim_end_matches(['-', '.']);
    if names::is_subdomain(base) {
        return Ok(base);
    }
    Err(InvalidName(cut.to_owned()))
}

/// Checks a text that a template writes beside a placeholder.
/// Fails when no value of the placeholder makes a valid name of it.
pub(super) fn literal(text: &str, is_first: bool) -> Result<(), InvalidName> {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let begins = !is_first || text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && text.chars().all(is_allowed) { Ok(()) } else { Err(InvalidName(text.to_owned())) }
}

/// Returns `<base>-<12 hex digits>`, for example `build-5a957c52b9de`.
pub(super) fn name(base: &str, identity: &Identity<'_>) -> String {
    let mut hash = Sha256::new();
    for part in identity.parts() {
        hash.update(part.as_bytes());
        hash.update(b"\n");
    }
    let hex = hex::encode(hash.finalize());
    format!("{base}-{}", &hex[..HASH_DIGITS])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::team::Team;
    use crate::template::testing::event;

    const SHA: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

    fn merge(repository: &str, number: u64, commit: &str, delivery: &str) -> Event {
        let payload = json!({
            "action": "closed", "repository": {"full_name": repository},
            "pull_request": {"number": number, "merged": true, "merge_commit_sha": commit}
        });
        event("pull_request", delivery, &payload)
    }

    fn name_of(event: &Event, template: &str) -> String {
        name("build", &Identity { event, namespace: None, template })
    }

    #[test]
    fn keeps_name_across_versions() {
        // If this value changes, a merge that is redelivered after an upgrade gets a second run.
        assert_eq!(name_of(&merge("Codertocat/Hello-World", 2, SHA, "d1"), "build"), "build-5a957c52b9de");
    }

    #[test]
    fn name_of_merge_ignores_only_case_and_delivery() {
        let first = merge("Codertocat/Hello-World", 2, SHA, "d1");
        let one = name_of(&first, "build");
        assert_ne!(one, name_of(&first, "deploy"));
        assert_ne!(one, name_of(&merge("Codertocat/Hello-World", 3, SHA, "d1"), "build"));
        assert_ne!(one, name_of(&merge("a/b", 2, SHA, "d1"), "build"));
        assert_ne!(one, name_of(&merge("Codertocat/Hello-World", 2, &"a".repeat(40), "d1"), "build"));
        assert_ne!(one, name("build", &Identity { event: &first, namespace: Some("ci"), template: "build" }));
        assert_eq!(one, name_of(&merge("codertocat/hello-world", 2, &SHA.to_uppercase(), "d2"), "build"));
    }

    #[test]
    fn name_of_other_event_depends_on_signed_content_alone() {
        let push = |delivery: &str, after: &str, pushed_at: u64| {
            let repository = json!({"full_name": "a/b", "pushed_at": pushed_at});
            event("push", delivery, &json!({"ref": "refs/heads/main", "after": after, "repository": repository}))
        };
        let one = name_of(&push("d1", SHA, 1), "build");
        assert_eq!(one, name_of(&push("d2", SHA, 1), "build"), "nobody signs a delivery's id");
        assert_ne!(one, name_of(&push("d1", &"a".repeat(40), 1), "build"));
        assert_ne!(one, name_of(&push("d1", SHA, 2), "build"), "pushed again, after a force push to and fro");
        let other = |delivery: &str, text: &str| event("made_up", delivery, &json!({"a": text}));
        assert_eq!(name_of(&other("d1", "x"), "build"), name_of(&other("d2", "x"), "build"));
        assert_ne!(name_of(&other("d1", "x"), "build"), name_of(&other("d1", "y"), "build"));
    }

    #[test]
    fn names_of_teams_differ() {
        let of = |team: Team| {
            let mut event = merge("a/b", 2, SHA, "d1");
            event.team = team;
            name_of(&event, "build")
        };
        let (top, a, b) = (of(Team::TOP), of(Team::of_folder("a")), of(Team::of_folder("b")));
        assert!(top != a && top != b && a != b, "{top} {a} {b}");
    }

    #[test]
    fn cuts_and_trims_base() {
        assert_eq!(base("tekton-kn-sample-"), Ok("tekton-kn-sample"));
        assert_eq!(base(&"a".repeat(60)).map(str::len), Ok(50));
        assert_eq!(base(&format!("{}-bcd", "a".repeat(49))).map(str::len), Ok(49));
        for bad in ["", "-", "Build", "a_b", "ä"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
