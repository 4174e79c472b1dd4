//! A form is accepted exactly if it has one payload, which equals the result of a second decoder.

#![no_main]

use github_trigger::fuzzing::form_payload;
use github_trigger_fuzz::{SECRET, sha256};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let mut headers = HeaderMap::new();
    headers.insert("x-hub-signature-256", HeaderValue::from_str(&sha256(body)).expect("a value"));
    let decoded = form_payload(headers, body, SECRET);
    let mut payloads = body.split(|&byte| byte == b'&').filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        let value = pair.get(equals + 1..).unwrap_or_default();
        (decode(&pair[..equals]) == "payload").then(|| decode(value))
    });
    let expected = payloads.next().filter(|_| payloads.next().is_none());
    assert_eq!(decoded.map(|payload| payload.to_vec()), expected.map(String::into_bytes));
});

/// Decodes `application/x-www-form-urlencoded` text according to the URL standard.
fn decode(text: &[u8]) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        match (first, hex) {
            (b'%', Some(hex)) => {
                bytes.extend(hex::decode(hex).expect("two digits"));
                rest = &tail[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (&byte, _) => bytes.push(byte),
        }
        rest = tail;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
