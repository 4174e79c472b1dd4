//! What is deployed, as a stamp on the Service and on its revisions: it decides which of two deployments is the newer one.
//!
//! One clock decides, the time of the merge on GitHub, which is signed and the same in every delivery.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

/// Annotations of the stamp.
const COMMIT: &str = "github-trigger.dev/commit";
const MERGED_AT: &str = "github-trigger.dev/merged-at";
const ORDER: &str = "github-trigger.dev/order";
const PULL_REQUEST: &str = "github-trigger.dev/pull-request-url";

/// What is deployed, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The full commit, lower case.
    pub(crate) commit: Option<String>,
    /// Time of the merge.
    pub(crate) merged_at: Option<Timestamp>,
    /// Decides between merges of the same time; the higher one is newer.
    pub(crate) order: Option<u64>,
    /// Page of the pull request.
    pub(crate) pull_request: Option<String>,
}

/// How a deployed stamp relates to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// It is older, the same, or one of the two is unknown.
    NotNewer,
    /// It has the same time and another commit, and no order decides.
    Unclear,
    /// It is newer.
    Newer,
}

impl Stamp {
    /// Reads the stamp in an object's annotations; what is malformed counts as unknown.
    pub(super) fn from_annotations(annotations: &BTreeMap<String, String>) -> Self {
        let text = |key| annotations.get(key).filter(|value| !value.is_empty()).cloned();
        Self {
            commit: text(COMMIT),
            merged_at: text(MERGED_AT).and_then(|time| time.parse().ok()),
            order: text(ORDER).and_then(|order| order.parse().ok()),
            pull_request: text(PULL_REQUEST),
        }
    }

    /// The annotations for a merge patch. A deployment without a time keeps the deployed one and its order, so that a merge
    /// older than that still does not replace it; the rest is taken away where it is no longer true.
    pub(super) fn to_patch(&self, current: &Self) -> Map<String, Value> {
        let mut texts = vec![
            (COMMIT, self.commit.clone(), current.commit.clone()),
            (PULL_REQUEST, self.pull_request.clone(), current.pull_request.clone()),
        ];
        if let Some(time) = self.merged_at {
            texts.push((MERGED_AT, Some(time.to_string()), current.merged_at.map(|time| time.to_string())));
            let order = |stamp: &Self| stamp.order.map(|order| order.to_string());
            texts.push((ORDER, order(self), order(current)));
        }
        let changed = texts.into_iter().filter(|(_, ours, theirs)| ours != theirs);
        changed.map(|(key, ours, _)| (key.into(), ours.map_or(Value::Null, Value::from))).collect()
    }

    /// Whether `deployed` is newer than this one, so that this one is not deployed any more.
    pub(crate) fn is_superseded_by(&self, deployed: &Self) -> bool {
        self.age_of(deployed) == Age::Newer
    }

    /// How old `deployed` is beside this one.
    pub(super) fn age_of(&self, deployed: &Self) -> Age {
        let (Some(ours), Some(theirs)) = (self.merged_at, deployed.merged_at) else { return Age::NotNewer };
        if ours != theirs {
            return if theirs > ours { Age::Newer } else { Age::NotNewer };
        }
        if self.commit == deployed.commit || self.commit.is_none() || deployed.commit.is_none() {
            return Age::NotNewer;
        }
        match (self.order, deployed.order) {
            (Some(ours), Some(theirs)) if theirs > ours => Age::Newer,
            (Some(ours), Some(theirs)) if theirs < ours => Age::NotNewer,
            _ => Age::Unclear,
        }
    }

    /// The stamp in words, e.g. `commit 1a2b3c4d, merged at 2026-11-22T12:00:00Z`.
    pub(crate) fn words(&self) -> String {
        let commit = self.commit.as_deref().map(|commit| format!("commit {}", commit.get(..8).unwrap_or(commit)));
        let time = self.merged_at.map(|time| format!("merged at {time}"));
        let words: Vec<String> = commit.into_iter().chain(time).collect();
        if words.is_empty() { "an unknown commit".to_owned() } else { words.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(commit: &str, time: &str, order: Option<u64>) -> Stamp {
        Stamp {
            commit: Some(commit.to_owned()),
            merged_at: Some(time.parse().expect("a time")),
            order,
            pull_request: None,
        }
    }

    #[test]
    fn the_later_merge_is_newer_and_order_decides_between_equal_times() {
        let (early, late) = ("2026-11-22T12:00:00Z", "2026-11-22T12:00:11Z");
        let ours = stamp("a", early, Some(1));
        for (deployed, age) in [
            (stamp("b", late, None), Age::Newer),
            (stamp("b", "2026-11-22T11:00:00Z", Some(9)), Age::NotNewer),
            (stamp("b", "2026-11-22T13:00:00+01:00", Some(2)), Age::Newer),
            (stamp("b", early, Some(0)), Age::NotNewer),
            (stamp("b", early, Some(1)), Age::Unclear),
            (stamp("b", early, None), Age::Unclear),
            (stamp("a", early, None), Age::NotNewer),
            (Stamp::default(), Age::NotNewer),
        ] {
            assert_eq!(ours.age_of(&deployed), age, "{deployed:?}");
        }
        assert_eq!(Stamp::default().age_of(&ours), Age::NotNewer);
    }

    #[test]
    fn patches_what_differs_and_reads_it_back() {
        let ours = stamp("a", "2026-11-22T12:00:00Z", None);
        let old = stamp("b", "2026-11-22T11:00:00Z", Some(3));
        let patch = ours.to_patch(&old);
        assert_eq!(patch.get(COMMIT), Some(&"a".into()));
        assert_eq!(patch.get(ORDER), Some(&Value::Null));
        let written = patch.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        assert_eq!(Stamp::from_annotations(&written), ours);
        assert!(ours.to_patch(&ours).is_empty());
        let without: Vec<_> = Stamp::default().to_patch(&old).into_iter().collect();
        assert_eq!(without, [(COMMIT.to_owned(), Value::Null)]);
        let without_time = Stamp { commit: Some("c".to_owned()), ..Stamp::default() };
        let patch: Vec<_> = without_time.to_patch(&old).into_iter().collect();
        assert_eq!(patch, [(COMMIT.to_owned(), "c".into())], "an older merge must not replace it");
    }
}
