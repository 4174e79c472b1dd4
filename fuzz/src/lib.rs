//! What the fuzz targets share: deliveries that are proven, and the events in them.

use std::sync::OnceLock;
use std::thread;

use bytes::Bytes;
use github_trigger::delivery::{Delivery, Encoding, Envelope, Key, SignaturePolicy, Unverified};
use github_trigger::event::Event;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use sha2::Sha256;

/// The webhook's secret.
pub const SECRET: &[u8] = b"fuzz";
/// In every text of [`event`]: what Tekton would expand.
pub const CANARY: &str = "$(canary)";

/// The key of [`SECRET`].
pub fn key() -> &'static Key {
    static KEY: OnceLock<Key> = OnceLock::new();
    KEY.get_or_init(|| Key::new(SECRET))
}

/// The right signature of a body, `sha256=<hex>`.
pub fn sha256(body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("a key").chain_update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// A webhook that is signed as it should be, decoded.
pub fn webhook(encoding: Encoding, kind: &str, body: &[u8]) -> Option<Delivery> {
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-github-event", kind), ("x-github-delivery", "d1"), ("x-hub-signature-256", &sha256(body))]
    {
        headers.insert(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_str(value).ok()?);
    }
    let unverified = Unverified::new(headers, Envelope::Webhook(encoding), Bytes::copy_from_slice(body));
    let (verified, _) = unverified.verify([key()], SignaturePolicy::RequireSha256).expect("a right signature");
    verified.decode().ok()
}

/// A merge whose author has written [`CANARY`] wherever an author can.
pub fn event() -> Event {
    let payload = json!({
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
    });
    let delivery = webhook(Encoding::Json, "pull_request", payload.to_string().as_bytes()).expect("a delivery");
    Event::parse(delivery).expect("an event")
}

/// Works on a stack as large as the one that templates are checked on.
pub fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(32 << 20).spawn_scoped(scope, work).expect("a thread");
        match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// `name: value` lines up to an empty one, and what follows.
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
