//! A payload is a merge exactly if its fields say so. Its commit is a full hash.

#![no_main]

use github_trigger::fuzzing::event;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    for kind in ["pull_request", "push", "release"] {
        let Some(merge) = event(kind, body) else { continue };
        // serde's Value rejects a lone surrogate, also in fields that the service does not read.
        let Ok(payload) = serde_json::from_slice::<Value>(body) else { return };
        let pull_request = &payload["pull_request"];
        let is_merge = kind == "pull_request" && payload["action"] == "closed" && pull_request["merged"] == true;
        assert_eq!(merge.is_some(), is_merge);
        let Some(merge) = merge else { continue };
        let (commit, expected) = (merge.commit, pull_request["merge_commit_sha"].as_str().unwrap_or_default());
        assert!(commit.eq_ignore_ascii_case(expected) && matches!(commit.len(), 40 | 64), "{commit} of {expected}");
        assert!(commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{commit}");
        assert_eq!(merge.repository, payload["repository"]["full_name"]);
        assert_eq!(merge.repository.matches('/').count(), 1);
    }
});
