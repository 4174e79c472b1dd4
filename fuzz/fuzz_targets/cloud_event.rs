//! What is decoded of a CloudEvent is what a plain reader finds in it, in either mode.
//!
//! Input: header lines, an empty line, the body.

#![no_main]

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use github_trigger::delivery::{Credential, Envelope, NetworkTrust, Unverified};
use github_trigger::event::Event;
use github_trigger_fuzz::request;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let (headers, body) = request(data);
    let Ok(envelope) = Envelope::of(&headers) else { return };
    let unverified = Unverified::new(headers.clone(), envelope, Bytes::copy_from_slice(body));
    let accepted = unverified.accept(&Credential::Network(NetworkTrust::by_operator()));
    // A webhook needs its signature in every mode.
    assert_eq!(accepted.is_ok(), envelope.is_cloud_event());
    let Ok(verified) = accepted else { return };
    let Ok(delivery) = verified.decode() else { return };
    let id = delivery.id().as_str();
    assert!(!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id:?}");
    assert!(delivery.payload().trim_ascii_start().starts_with(b"{"));
    match envelope {
        Envelope::Structured => {
            // Half a surrogate pair in a field that nobody reads is no reason to refuse it; serde's Value does.
            let Ok(event) = serde_json::from_slice::<Value>(body) else { return };
            let expected = match event["data_base64"].as_str() {
                Some(data) => BASE64_STANDARD.decode(data).expect("Base64"),
                None => event["data"].to_string().into_bytes(),
            };
            let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
            assert_eq!(json(delivery.payload()), json(&expected));
        }
        _ => {
            assert_eq!(delivery.payload(), body);
            assert_eq!(headers.get_all("ce-type").iter().count(), 1);
        }
    }
    let _ = Event::parse(delivery);
});
