//! The paths that a push changed.

use serde::Deserialize;

use super::event::Event;
use crate::delivery::EventKind;

/// GitHub lists at most so many commits of a push (its documentation of the event).
const MAX_COMMITS: usize = 2048;
/// GitHub lists at most so many files of a commit (its documentation of the commits API).
const MAX_FILES: usize = 3000;
/// A larger payload is not read a second time.
const MAX_PAYLOAD: usize = 4 << 20;
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

#[derive(Deserialize)]
struct Push {
    before: String,
    #[serde(default)]
    created: bool,
    #[serde(default)]
    forced: bool,
    /// Gitea lists only some of them.
    #[serde(default)]
    total_commits: Option<usize>,
    commits: Vec<PushedCommit>,
}

/// Each list must be there: a sender that leaves one out does not say what changed.
#[derive(Deserialize)]
struct PushedCommit {
    added: Vec<String>,
    removed: Vec<String>,
    modified: Vec<String>,
}

impl Event {
    /// The paths that a push changed, each once for each commit that did. `None` for another event, and if the payload may
    /// not list all of them: a new branch, a forced push, or more commits or files than GitHub lists.
    pub(crate) fn changed_paths(&self) -> Option<&[String]> {
        self.changed_paths.get_or_init(|| read(&self.kind, &self.payload)).as_deref()
    }
}

fn read(kind: &EventKind, payload: &[u8]) -> Option<Vec<String>> {
    if *kind != EventKind::Push || payload.len() > MAX_PAYLOAD {
        return None;
    }
    let push: Push = serde_json::from_slice(payload).ok()?;
    let is_complete = !push.created && !push.forced && !NO_COMMIT.starts_with(&push.before);
    let is_cut = push.total_commits.is_some_and(|total| total > push.commits.len());
    if !is_complete || is_cut || push.commits.is_empty() || push.commits.len() >= MAX_COMMITS {
        return None;
    }
    let mut paths = Vec::new();
    for PushedCommit { added, removed, modified } in push.commits {
        if added.len() + removed.len() + modified.len() >= MAX_FILES {
            return None;
        }
        paths.extend(added.into_iter().chain(removed).chain(modified));
    }
    Some(paths)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn paths(payload: &Value) -> Option<Vec<String>> {
        read(&EventKind::Push, payload.to_string().as_bytes())
    }

    fn push() -> Value {
        let commit =
            |added: &[&str], modified: &[&str]| json!({"added": added, "removed": ["old"], "modified": modified});
        json!({"before": "a".repeat(40), "commits": [commit(&["web/a"], &[]), commit(&[], &["docs/b"])]})
    }

    #[test]
    fn lists_the_paths_of_all_commits() {
        assert_eq!(paths(&push()).expect("paths"), ["web/a", "old", "old", "docs/b"]);
        assert_eq!(read(&EventKind::PullRequest, push().to_string().as_bytes()), None);
    }

    #[test]
    fn knows_when_paths_may_be_missing() {
        for (field, value) in [
            ("created", json!(true)),
            ("forced", json!(true)),
            ("before", json!("0".repeat(40))),
            ("before", Value::Null),
            ("commits", json!([])),
            ("total_commits", json!(3)),
            ("commits", json!([{"added": [], "removed": []}])),
            ("commits", json!(vec![push()["commits"][0].clone(); MAX_COMMITS])),
            ("commits", json!([{"added": vec!["a"; MAX_FILES], "removed": [], "modified": []}])),
        ] {
            let mut payload = push();
            payload[field] = value.clone();
            assert_eq!(paths(&payload), None, "{field}");
        }
        let mut large = push();
        large["padding"] = "x".repeat(MAX_PAYLOAD).into();
        assert_eq!(paths(&large), None);
    }
}
