//! What tells an event from others of its kind and repository, merges apart.
//!
//! It comes from the signed payload alone: every delivery of one event has the same, whatever hook or header brings it.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::event::Event;
use crate::delivery::EventKind;
use crate::json;

/// Fields that depend on the hook, not on the event: GitHub adds them for an organization's, an enterprise's or an App's.
const OF_THE_HOOK: [&str; 3] = ["organization", "enterprise", "installation"];
/// Most memory that values may take: a larger payload is not parsed a second time.
const MAX_PARSED: u64 = 16 << 20;

/// The fields of a push that identify it. Knative's GitHubSource leaves others out.
#[derive(Deserialize)]
struct Push {
    #[serde(rename = "ref")]
    reference: String,
    after: String,
    #[serde(default)]
    before: Option<String>,
    repository: PushedRepository,
}

#[derive(Deserialize)]
struct PushedRepository {
    /// Tells pushes of the same commits apart, after a force push to and fro.
    #[serde(default)]
    pushed_at: Option<Box<RawValue>>,
}

impl Event {
    /// Signed content that tells this event from others of its kind and repository: of a push what was pushed, of every
    /// other kind a digest of the payload, whatever the order of its fields and its white space.
    pub(crate) fn identity(&self) -> &[String] {
        self.identity.get_or_init(|| read(&self.kind, &self.payload))
    }
}

fn read(kind: &EventKind, payload: &[u8]) -> Vec<String> {
    if *kind == EventKind::Push
        && let Ok(push) = serde_json::from_slice::<Push>(payload)
    {
        let pushed_at = push.repository.pushed_at.map(|time| time.get().to_owned());
        return vec![push.reference, push.before.unwrap_or_default(), push.after, pushed_at.unwrap_or_default()];
    }
    vec![hex::encode(digest(payload))]
}

fn digest(payload: &[u8]) -> [u8; 32] {
    let fields = (json::memory(payload) <= MAX_PARSED).then(|| serde_json::from_slice::<Map<String, Value>>(payload));
    match fields {
        Some(Ok(mut fields)) => {
            OF_THE_HOOK.iter().for_each(|name| drop(fields.remove(*name)));
            let mut fields = Value::Object(fields);
            name_repositories(&mut fields);
            // The keys of a map of serde_json are sorted.
            Sha256::digest(fields.to_string()).into()
        }
        _ => Sha256::digest(payload).into(),
    }
}

/// Puts a repository's name in place of what GitHub says about it, at any depth: stars and counts change between two
/// deliveries of one event.
fn name_repositories(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(name_repositories),
        Value::Object(fields) => {
            let name = fields.get("full_name").filter(|name| name.is_string()).cloned();
            match name {
                Some(name) => *value = name,
                None => fields.values_mut().for_each(name_repositories),
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn digest_does_not_depend_on_counts_of_the_repository() {
        let of = |stars: u32| {
            let repository =
                format!(r#"{{"full_name": "acme/web", "stargazers_count": {stars}, "owner": {{"login": "acme"}}}}"#);
            digest(format!(r#"{{"repository": {repository}, "issue": {{"repo": {repository}, "n": 1}}}}"#).as_bytes())
        };
        assert_eq!(of(1), of(2));
    }

    #[test]
    fn digest_depends_on_content_alone() {
        let one = digest(br#"{"a": {"x": 1, "y": [1, 2]}, "b": null}"#);
        assert_eq!(one, digest(br#"{"b":null,"organization":{"id":1},"a":{"y":[1,2],"x":1}}"#));
        assert_ne!(one, digest(br#"{"a": {"x": 1, "y": [2, 1]}, "b": null}"#));
        assert_ne!(one, digest(br#"{"a": {"x": 1, "y": [1, 2]}}"#));
    }
}
