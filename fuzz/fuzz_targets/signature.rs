//! A signature is accepted exactly if it is the hex of the HMAC, whatever else the headers hold.
//!
//! Input: header lines, an empty line, the body.

#![no_main]

use bytes::Bytes;
use github_trigger::delivery::{Encoding, Envelope, SignaturePolicy, Unverified, precheck};
use github_trigger_fuzz::{SECRET, key, request};
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (headers, body) = request(data);
    for policy in [SignaturePolicy::AcceptSha1, SignaturePolicy::RequireSha256] {
        let unverified =
            Unverified::new(headers.clone(), Envelope::Webhook(Encoding::Json), Bytes::copy_from_slice(body));
        let accepted = unverified.verify([key()], policy).is_ok();
        assert_eq!(accepted, is_right(&headers, body, policy));
        assert!(!accepted || precheck(&headers, policy).is_ok());
    }
});

/// The rule, written another way.
fn is_right(headers: &HeaderMap, body: &[u8], policy: SignaturePolicy) -> bool {
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
    policy == SignaturePolicy::AcceptSha1 && is("x-hub-signature", "sha1=", &sha1.into_bytes())
}
