//! Shared by the fuzz targets: a webhook secret, its signatures, and a merge.

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use sha2::Sha256;

/// The webhook secret.
pub const SECRET: &[u8] = b"fuzz";
/// A text that Tekton would expand. [`merge`] has it in every field that an author can write.
pub const CANARY: &str = "$(canary)";

/// The valid `X-Hub-Signature-256` of a body: `sha256=<hex>`.
pub fn sha256(body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key").chain_update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// The payload of a merge with [`CANARY`] in every field that an author can write.
pub fn merge() -> String {
    json!({
        "action": "closed", "number": 5,
        "pull_request": {
            "number": 5, "merged": true, "merged_at": "2026-11-22T13:46:53Z", "title": CANARY, "body": CANARY,
            "html_url": "https://github.com/acme/web/pull/5",
            "merge_commit_sha": "ec26c3e57ca3a959ca5aad62de7213c562f8c821",
            "base": {"ref": format!("main{CANARY}")}, "head": {"ref": CANARY, "sha": "f95f852bd8fca8fcc58a9a2d6c842781e32a215e"},
            "labels": [{"name": CANARY}, {"name": "deploy"}], "user": {"login": "octo"}
        },
        "repository": {
            "name": "web", "full_name": "acme/web", "html_url": "https://github.com/acme/web",
            "clone_url": "https://github.com/acme/web.git", "owner": {"login": "acme"}
        },
        "sender": {"login": CANARY}
    })
    .to_string()
}

/// Splits the input into headers (`name: value` lines up to an empty line) and the body. Skips invalid lines.
pub fn request(data: &[u8]) -> (HeaderMap, &[u8]) {
    let mut headers = HeaderMap::new();
    let mut rest = data;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, rest)
}
