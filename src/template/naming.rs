//! A run's name: the same for the same merge, however often and whichever way it is delivered.

use sha2::{Digest, Sha256};

use super::label;
use crate::event::Merge;

/// Characters of the base; with `-` and the hex a name has at most 63, so that it fits into a label.
const MAX_BASE: usize = 50;
/// Hex digits of the hash: 48 bits, so that even a million runs of one base collide with a chance of 1 in 500.
const HEX: usize = 12;

/// What a name is derived from besides its base.
pub(super) struct Identity<'a> {
    /// What happened, e.g. `merged`.
    pub(super) event: &'a str,
    /// The merge.
    pub(super) merge: &'a Merge,
    /// The template's namespace as written, or nothing.
    pub(super) namespace: Option<&'a str>,
    /// The template's name as written, before its placeholders are filled.
    pub(super) template: &'a str,
}

/// The base of a name: cut to its length, without what may not stand before a `-`.
///
/// # Errors
/// When what is left is not the beginning of an object's name.
pub(super) fn base(text: &str) -> Result<&str, String> {
    let cut = text.char_indices().nth(MAX_BASE).map_or(text, |(index, _)| &text[..index]);
    let base = cut.trim_end_matches(['-', '.']);
    if label::is_subdomain(base) {
        return Ok(base);
    }
    Err(format!(
        "`{text}` is no name for an object: lower case letters, digits, `-` and `.`, beginning with a letter or digit"
    ))
}

/// `<base>-<12 hex>`.
pub(super) fn name(base: &str, identity: &Identity<'_>) -> String {
    let merge = identity.merge;
    let mut hash = Sha256::new();
    // No part can hold a line break: repository and commit are checked, the template's names are DNS names.
    for part in [
        identity.event,
        &merge.repository.to_ascii_lowercase(),
        &merge.number.to_string(),
        merge.commit.as_str(),
        identity.namespace.unwrap_or_default(),
        identity.template,
    ] {
        hash.update(part.as_bytes());
        hash.update(b"\n");
    }
    let hex = hex::encode(hash.finalize());
    format!("{base}-{}", &hex[..HEX])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Commit;

    fn merge() -> Merge {
        Merge {
            repository: "Codertocat/Hello-World".into(),
            number: 2,
            commit: Commit::parse("ec26c3e57ca3a959ca5aad62de7213c562f8c821").expect("a commit"),
        }
    }

    fn name_of(merge: &Merge, template: &str) -> String {
        name("build", &Identity { event: "merged", merge, namespace: None, template })
    }

    #[test]
    fn the_name_is_pinned() {
        // A change of this value makes one more run of each merge that is redelivered over an upgrade.
        assert_eq!(name_of(&merge(), "build"), "build-5a957c52b9de");
    }

    #[test]
    fn every_part_of_the_identity_counts_and_the_repositorys_case_does_not() {
        let one = name_of(&merge(), "build");
        assert_ne!(one, name_of(&merge(), "deploy"));
        assert_ne!(one, name_of(&Merge { number: 3, ..merge() }, "build"));
        assert_ne!(one, name_of(&Merge { repository: "a/b".into(), ..merge() }, "build"));
        let commit = Commit::parse(&"a".repeat(40)).expect("a commit");
        assert_ne!(one, name_of(&Merge { commit, ..merge() }, "build"));
        assert_eq!(one, name_of(&Merge { repository: "codertocat/hello-world".into(), ..merge() }, "build"));
        let other_namespace =
            name("build", &Identity { event: "merged", merge: &merge(), namespace: Some("ci"), template: "build" });
        assert_ne!(one, other_namespace);
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
