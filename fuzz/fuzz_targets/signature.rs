//! A signature is accepted exactly if it is the HMAC in hex, no matter which other headers are present.
//!
//! Input: header lines, an empty line, the body.

#![no_main]

use github_trigger::fuzzing::signature;
use github_trigger_fuzz::{SECRET, request};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (headers, body) = request(data);
    for require_sha256 in [false, true] {
        let (accepted, well_formed) = signature(&headers, body, SECRET, require_sha256);
        assert_eq!(accepted, is_valid(&headers, body, require_sha256));
        assert!(!accepted || well_formed);
    }
});

/// A second implementation of the rule.
fn is_valid(headers: &HeaderMap, body: &[u8], require_sha256: bool) -> bool {
    let sha256 = Hmac::<sha2::Sha256>::new_from_slice(SECRET).expect("a key").chain_update(body).finalize();
    let sha1 = Hmac::<sha1::Sha1>::new_from_slice(SECRET).expect("a key").chain_update(body).finalize();
    let is = |name: &str, prefix: &str, digest: &[u8]| {
        let values: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        let [value] = values.as_slice() else { return false };
        value
            .strip_prefix(prefix.as_bytes())
            .is_some_and(|hex| hex.eq_ignore_ascii_case(hex::encode(digest).as_bytes()))
    };
    if headers.contains_key("x-hub-signature-256") {
        return is("x-hub-signature-256", "sha256=", &sha256.into_bytes());
    }
    !require_sha256 && is("x-hub-signature", "sha1=", &sha1.into_bytes())
}
