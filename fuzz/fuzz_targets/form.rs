//! A form has one payload or none, and it is what a plain decoder makes of it.

#![no_main]

use github_trigger::delivery::Encoding;
use github_trigger_fuzz::webhook;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let decoded = webhook(Encoding::Form, "pull_request", body);
    let mut payloads = body.split(|&byte| byte == b'&').filter_map(|pair| {
        let equals = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        let value = pair.get(equals + 1..).unwrap_or_default();
        (decode(&pair[..equals]) == "payload").then(|| decode(value))
    });
    let expected = payloads.next().filter(|_| payloads.next().is_none());
    assert_eq!(decoded.map(|delivery| delivery.payload().to_vec()), expected.map(String::into_bytes));
});

/// `application/x-www-form-urlencoded`, as the URL standard describes it.
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
