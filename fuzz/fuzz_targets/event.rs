//! A payload is a merge exactly if it says so, with a full commit; nothing else ends in one.

#![no_main]

use github_trigger::delivery::Encoding;
use github_trigger::event::Event;
use github_trigger_fuzz::webhook;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    for kind in ["pull_request", "push", "release"] {
        let delivery = webhook(Encoding::Json, kind, body).expect("every body is a payload");
        let Ok(event) = Event::parse(delivery) else { continue };
        let _ = (event.moment(), event.commit(), event.is_deletion(), event.merge_or_reason().is_ok());
        // Half a surrogate pair in a field that nobody reads is no reason to refuse it; serde's Value does.
        let Ok(payload) = serde_json::from_slice::<Value>(body) else { return };
        let pull_request = &payload["pull_request"];
        let is_merge = kind == "pull_request" && payload["action"] == "closed" && pull_request["merged"] == true;
        assert_eq!(event.merge.is_some(), is_merge);
        let Some(merge) = event.merge else { continue };
        let commit = merge.commit.as_str();
        let wanted = pull_request["merge_commit_sha"].as_str().unwrap_or_default();
        assert!(commit.eq_ignore_ascii_case(wanted) && matches!(commit.len(), 40 | 64), "{commit} of {wanted}");
        assert!(commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{commit}");
        assert_eq!(merge.repository, payload["repository"]["full_name"]);
        assert_eq!(merge.repository.matches('/').count(), 1);
    }
});
