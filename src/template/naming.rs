//! A run's name: the same for the same merge, however often and whichever way it is delivered.

use sha2::{Digest, Sha256};

use super::label;
use crate::github::Event;

/// Characters of the base; with `-` and the hex a name has at most 63, so that it fits into a label.
const MAX_BASE: usize = 50;
/// Hex digits of the hash: 48 bits, so that even a million runs of one base collide with a chance of 1 in 500.
const HEX: usize = 12;

/// What a name is derived from besides its base.
pub(super) struct Identity<'a> {
    /// The event.
    pub(super) event: &'a Event,
    /// The template's namespace as written, or nothing.
    pub(super) namespace: Option<&'a str>,
    /// The template's name as written, before its placeholders are filled.
    pub(super) template: &'a str,
}

impl Identity<'_> {
    /// A merge is itself, whichever delivery brings it; of any other event only the delivery is known to be the same.
    ///
    /// No part can hold a line break: all come from checked types, and the template's names are DNS names.
    fn parts(&self) -> Vec<String> {
        let mut parts = match &self.event.merge {
            Some(merge) => vec![
                "merged".to_owned(),
                merge.repository.to_ascii_lowercase(),
                merge.number.to_string(),
                merge.commit.to_string(),
            ],
            None => vec![
                self.event.kind.to_string(),
                self.event.repository_name().unwrap_or_default().to_ascii_lowercase().replace('\n', " "),
                self.event.delivery.to_string(),
            ],
        };
        parts.extend([self.namespace.unwrap_or_default().to_owned(), self.template.to_owned()]);
        parts
    }
}

/// A text that cannot be the beginning of a run's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a valid name of an object: lower case letters, digits, `-` and `.`, beginning with a letter or digit"
)]
pub(super) struct InvalidName(String);

/// The base of a name: cut to its length, without what may not stand before a `-`.
///
/// # Errors
/// When what is left is not the beginning of an object's name.
pub(super) fn base(text: &str) -> Result<&str, InvalidName> {
    let cut = text.char_indices().nth(MAX_BASE).map_or(text, |(index, _)| &text[..index]);
    let base = cut.trim_end_matches(['-', '.']);
    if label::is_subdomain(base) {
        return Ok(base);
    }
    Err(InvalidName(text.to_owned()))
}

/// `<base>-<12 hex>`.
pub(super) fn name(base: &str, identity: &Identity<'_>) -> String {
    let mut hash = Sha256::new();
    for part in identity.parts() {
        hash.update(part.as_bytes());
        hash.update(b"\n");
    }
    let hex = hex::encode(hash.finalize());
    format!("{base}-{}", &hex[..HEX])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
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
    fn the_name_is_pinned() {
        // A change of this value makes one more run of each merge that is redelivered over an upgrade.
        assert_eq!(name_of(&merge("Codertocat/Hello-World", 2, SHA, "d1"), "build"), "build-5a957c52b9de");
    }

    #[test]
    fn every_part_of_a_merge_counts_and_neither_case_nor_delivery_does() {
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
    fn another_event_is_its_delivery() {
        let push = |delivery: &str| event("push", delivery, &json!({"repository": {"full_name": "a/b"}}));
        assert_eq!(name_of(&push("d1"), "build"), name_of(&push("d1"), "build"));
        assert_ne!(name_of(&push("d1"), "build"), name_of(&push("d2"), "build"));
        let create = event("create", "d1", &json!({"repository": {"full_name": "a/b"}}));
        assert_ne!(name_of(&push("d1"), "build"), name_of(&create, "build"));
    }

    #[test]
    fn a_base_is_cut_and_trimmed() {
        assert_eq!(base("tekton-kn-sample-"), Ok("tekton-kn-sample"));
        assert_eq!(base(&"a".repeat(60)).map(str::len), Ok(50));
        assert_eq!(base(&format!("{}-bcd", "a".repeat(49))).map(str::len), Ok(49));
        for bad in ["", "-", "Build", "a_b", "ä"] {
            assert!(base(bad).is_err(), "{bad}");
        }
    }
}
