//! Whatever passes as a template renders without a panic into an object with a legal name, the same each time; nothing
//! that an author has typed stands in its spec where Tekton would expand it.

#![no_main]

use std::sync::OnceLock;

use github_trigger::event::Event;
use github_trigger::mounted::File;
use github_trigger::template::{Severity, Stamp, parse};
use github_trigger_fuzz::{CANARY, event, on_a_large_stack};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|content: &[u8]| {
    static EVENT: OnceLock<Event> = OnceLock::new();
    let event = EVENT.get_or_init(event);
    let (templates, findings) = parse(vec![File { path: "fuzz.yaml".into(), content: content.to_vec() }]);
    for finding in &findings {
        assert!(finding.at.line > 0 && finding.at.column > 0, "{finding}");
        assert!(!finding.message.contains("report it"), "{finding}");
    }
    // What does not pass is not used.
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return;
    }
    let stamp = Stamp { namespace: "builds" };
    let (first, second) = on_a_large_stack(|| (templates.decide(event, stamp), templates.decide(event, stamp)));
    assert_eq!(first.runs.len(), second.runs.len());
    for (run, again) in first.runs.iter().zip(&second.runs) {
        let (Ok(run), Ok(again)) = (run, again) else {
            assert_eq!(run.is_ok(), again.is_ok());
            continue;
        };
        assert_eq!(run.object, again.object);
        assert_eq!(run.object["kind"], "PipelineRun");
        assert_eq!(run.object["metadata"]["name"], *run.name);
        assert!(run.name.len() <= 63 && run.name.split('.').all(is_label), "{}", run.name);
        // A template that says so itself is trusted.
        if !String::from_utf8_lossy(content).contains("canary") {
            assert!(!run.object["spec"].to_string().contains(CANARY), "{}", run.object);
        }
        let yaml = run.to_yaml().expect("YAML");
        let read: Value = serde_saphyr::from_str(&yaml).expect("our own YAML");
        assert_eq!(read, run.object, "{yaml}");
    }
});

fn is_label(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().all(|byte| alphanumeric(byte) || byte == b'-')
        && text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().last().is_some_and(alphanumeric)
}
