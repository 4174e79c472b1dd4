//! Webhook deliveries as GitHub sends them.

use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};

/// The secret that [`super::service::Service`] is started with.
pub const SECRET: &str = "It's a Secret to Everybody";

/// The merge commit of the tests' payloads.
pub const SHA: &str = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";

/// The current time as GitHub and Kubernetes write it.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time so many seconds ago.
pub fn ago(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() - seconds).expect("a time");
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The time of all merges of this test run: old ones are ignored.
fn merged_at() -> &'static str {
    static NOW: OnceLock<String> = OnceLock::new();
    NOW.get_or_init(now)
}

/// The payload of a merged pull request: the relevant fields of GitHub's documentation, and some others.
pub fn merged(repository: &str, number: u64, sha: &str) -> Value {
    let (owner, name) = repository.split_once('/').expect("owner/name");
    let url = format!("https://github.com/{repository}");
    json!({
        "action": "closed",
        "number": number,
        "pull_request": {
            "id": 279147437, "number": number, "state": "closed", "title": "Update the README with new information.",
            "html_url": format!("{url}/pull/{number}"), "body": null, "draft": false, "milestone": null,
            "created_at": "2026-11-22T12:00:00Z", "merged_at": merged_at(),
            "merge_commit_sha": sha, "merged": true, "mergeable": null, "merged_by": {"login": owner},
            "user": {"login": owner, "id": 21031067},
            "base": {"ref": "main", "sha": "f95f852bd8fca8fcc58a9a2d6c842781e32a215e"},
            "head": {"ref": "changes", "sha": "ec26c3e57ca3a959ca5aad62de7213c562f8c821", "repo": null}
        },
        "repository": {
            "id": 186853002, "name": name, "full_name": repository, "private": false,
            "owner": {"login": owner, "id": 21031067}, "html_url": url, "clone_url": format!("{url}.git"),
            "default_branch": "main"
        },
        "sender": {"login": owner, "id": 21031067}
    })
}

/// `sha256=<hex>` over `body`.
pub fn sha256(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).expect("a key").chain_update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// `sha1=<hex>` over `body`.
pub fn sha1(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<sha1::Sha1>::new_from_slice(secret.as_bytes()).expect("a key").chain_update(body);
    format!("sha1={}", hex::encode(mac.finalize().into_bytes()))
}

/// The headers of a delivery, signed with SHA-256.
pub fn headers(event: &str, delivery: &str, body: &[u8]) -> Vec<(String, String)> {
    headers_signed_with(SECRET, event, delivery, body)
}

/// The headers of a delivery, signed with SHA-256 and this secret.
pub fn headers_signed_with(secret: &str, event: &str, delivery: &str, body: &[u8]) -> Vec<(String, String)> {
    [
        ("content-type", "application/json".to_owned()),
        ("user-agent", "GitHub-Hookshot/044aadd".to_owned()),
        ("x-github-event", event.to_owned()),
        ("x-github-delivery", delivery.to_owned()),
        ("x-github-hook-id", "292430182".to_owned()),
        ("x-hub-signature-256", sha256(secret, body)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}
