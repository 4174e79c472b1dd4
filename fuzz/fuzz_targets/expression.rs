//! Every expression that compiles ends, without a panic and always with the same value.

#![no_main]

use std::sync::OnceLock;

use github_trigger::fuzzing::evaluate;
use github_trigger_fuzz::merge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|source: &str| {
    static MERGE: OnceLock<String> = OnceLock::new();
    let payload = MERGE.get_or_init(merge).as_bytes();
    let Some(value) = evaluate(source, payload) else { return };
    // Maps have no order.
    let sorted = |value: &Result<String, String>| {
        let mut bytes = format!("{value:?}").into_bytes();
        bytes.sort_unstable();
        bytes
    };
    assert_eq!(evaluate(source, payload).as_ref().map(&sorted), Some(sorted(&value)));
    // A message goes into the log, where it names kinds of values, never a value.
    if let Err(message) = value {
        assert!(!message.contains("canary") || source.contains("canary"), "{message}");
    }
});
