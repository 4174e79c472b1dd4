use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;

use super::*;
use crate::delivery::decoded::Malformed;

const SECRET: &[u8] = b"s3cret";

fn signed(body: &[u8]) -> HeaderMap {
    let mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET).expect("a key").chain_update(body);
    let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    let mut headers = HeaderMap::new();
    headers.insert("x-hub-signature-256", HeaderValue::from_str(&signature).expect("a value"));
    headers.insert("x-github-event", HeaderValue::from_static("pull_request"));
    headers.insert("x-github-delivery", HeaderValue::from_static("72d3162e-cc78-11e3-81ab-4c9367dc0958"));
    headers
}

fn decode(headers: HeaderMap, encoding: Encoding, body: &'static [u8]) -> Result<Delivery, DecodeError> {
    Unverified::new(headers, Envelope::Webhook(encoding), Bytes::from_static(body))
        .verify(&[TeamKey::of_top(SECRET)], SignaturePolicy::AcceptSha1)
        .expect("a verified delivery")
        .0
        .decode()
}

#[test]
fn json_body_is_payload() {
    let body = b"{\"a\": 1}";
    let delivery = decode(signed(body), Encoding::Json, body).expect("a delivery");
    assert_eq!(delivery.payload[..], body[..]);
    assert_eq!(delivery.kind.as_str(), "pull_request");
    assert_eq!(delivery.id.as_str(), "72d3162e-cc78-11e3-81ab-4c9367dc0958");
}

#[test]
fn verifies_form_before_decoding() {
    let body = b"payload=%7B%22a%22%3A+%22%C3%BC%22%7D&other=1";
    let delivery = decode(signed(body), Encoding::Form, body).expect("a delivery");
    assert_eq!(delivery.payload, "{\"a\": \"ü\"}".as_bytes());
}

#[test]
fn rejects_form_without_exactly_one_payload() {
    for body in [&b""[..], b"a=1", b"payload=1&payload=2"] {
        assert_eq!(decode(signed(body), Encoding::Form, body).expect_err("no payload"), Malformed::Form.into());
    }
}

#[test]
fn rejects_missing_repeated_and_invalid_github_headers() {
    let body = b"{}";
    for (name, bad) in [
        ("x-github-event", vec![]),
        ("x-github-event", vec!["Pull Request"]),
        ("x-github-event", vec![""]),
        ("x-github-event", vec!["push", "pull_request"]),
        ("x-github-delivery", vec![]),
        ("x-github-delivery", vec!["a b"]),
        ("x-github-delivery", vec!["a", "b"]),
    ] {
        let mut headers = signed(body);
        headers.remove(name);
        for value in &bad {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        assert!(
            matches!(decode(headers, Encoding::Json, body), Err(DecodeError::Malformed(Malformed::Header(_)))),
            "{name}: {bad:?}"
        );
    }
    let long = "x".repeat(129);
    assert_eq!(DeliveryId::parse(&long), None);
    assert_eq!(EventKind::parse(&long), None);
}

#[test]
fn accepts_credential_for_cloud_events_only() {
    let credential = Credential::Network(NetworkTrust::from_operator());
    let unverified = |envelope| Unverified::new(HeaderMap::new(), envelope, Bytes::new());
    assert!(unverified(Envelope::Binary).accept(&credential).is_ok());
    assert!(unverified(Envelope::Structured).accept(&credential).is_ok());
    let refused = unverified(Envelope::Webhook(Encoding::Json)).accept(&credential).map(drop);
    assert_eq!(refused.expect_err("a webhook").error, SignatureError::Missing);
}

#[test]
fn debug_hides_body() {
    let unverified = Unverified::new(HeaderMap::new(), Envelope::Binary, Bytes::from_static(b"hunter2"));
    assert!(!format!("{unverified:?}").contains("hunter2"));
}
