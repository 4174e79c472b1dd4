//! A decoded CloudEvent has the same data as the result of a plain JSON parser, in binary and structured mode.
//!
//! Input: header lines, an empty line, the body.

#![no_main]

use base64::prelude::{BASE64_STANDARD, Engine};
use github_trigger::fuzzing::cloud_event;
use github_trigger_fuzz::request;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let (headers, body) = request(data);
    let Some(event) = cloud_event(&headers, body) else { return };
    assert!(!event.id.is_empty() && event.id.bytes().all(|byte| byte.is_ascii_graphic()), "{:?}", event.id);
    assert!(event.payload.trim_ascii_start().starts_with(b"{"));
    if event.structured {
        // serde's Value rejects a lone surrogate, also in fields that the service does not read.
        let Ok(structured) = serde_json::from_slice::<Value>(body) else { return };
        let expected = match structured["data_base64"].as_str() {
            Some(data) => BASE64_STANDARD.decode(data).expect("Base64"),
            None => structured["data"].to_string().into_bytes(),
        };
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
        assert_eq!(json(&event.payload), json(&expected));
    } else {
        assert_eq!(event.payload, body);
        assert_eq!(headers.get_all("ce-type").iter().count(), 1);
    }
});
