//! Rendering a template without errors does not panic, and always gives the same object with a valid name. No author's
//! text is in its spec where Tekton would expand it.

#![no_main]

use std::sync::OnceLock;

use github_trigger::fuzzing::render;
use github_trigger_fuzz::{CANARY, merge};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|content: &[u8]| {
    static MERGE: OnceLock<String> = OnceLock::new();
    let payload = MERGE.get_or_init(merge).as_bytes();
    let (findings, first) = render(content, payload);
    for finding in &findings {
        assert!(finding.position.0 > 0 && finding.position.1 > 0, "{finding:?}");
        assert!(!finding.message.contains("report it"), "{finding:?}");
    }
    let (_, second) = render(content, payload);
    assert_eq!(first.len(), second.len());
    for (run, again) in first.iter().zip(&second) {
        let (Ok(run), Ok(again)) = (run, again) else {
            assert_eq!(run.is_ok(), again.is_ok());
            continue;
        };
        assert_eq!(run.object, again.object);
        assert_eq!(run.object["kind"], "PipelineRun");
        assert_eq!(run.object["metadata"]["name"], *run.name);
        assert!(run.name.len() <= 63 && run.name.split('.').all(is_label), "{}", run.name);
        // The template's own text may contain the canary.
        if !String::from_utf8_lossy(content).contains("canary") {
            assert!(!run.object["spec"].to_string().contains(CANARY), "{}", run.object);
        }
        let read: Value = serde_saphyr::from_str(&run.yaml).expect("our own YAML");
        assert_eq!(read, run.object, "{}", run.yaml);
    }
});

fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
        && text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().last().is_some_and(alphanumeric)
}
