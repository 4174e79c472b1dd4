//! The evaluation of a compiled expression ends without a panic and always gives the same value.

#![no_main]

use std::sync::OnceLock;

use github_trigger::fuzzing::evaluate;
use github_trigger_fuzz::merge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    static MERGE: OnceLock<String> = OnceLock::new();
    let payload = MERGE.get_or_init(merge).as_bytes();
    let Some(value) = evaluate(source, payload) else { return };
    // Maps are unordered, so compare sorted bytes.
    let sorted = |value: &Result<String, String>| {
        let mut bytes = format!("{value:?}").into_bytes();
        bytes.sort_unstable();
        bytes
    };
    assert_eq!(evaluate(source, payload).as_ref().map(&sorted), Some(sorted(&value)));
    // Error messages are logged, so they may name types, but not values of the payload.
    if let Err(message) = value {
        assert!(!message.contains("canary") || source.contains("canary"), "{message}");
    }
});
