//! CloudEvents as Knative's GitHubSource and the CloudEvents adapter for GitHub send them.

use serde_json::{Value, json};

/// GitHubSource's event type for pull requests.
pub const PULL_REQUEST: &str = "dev.knative.source.github.pull_request";

/// The headers of an event in binary mode, with an empty and a non-ASCII extension, as GitHubSource sends them.
pub fn binary(kind: &str, id: &str) -> Vec<(String, String)> {
    [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-type", kind),
        ("ce-source", "https://github.com/acme/web"),
        ("ce-id", id),
        ("ce-subject", "5"),
        ("ce-time", "2026-11-22T13:46:53.11970473Z"),
        ("ce-action", "closed"),
        ("ce-label", ""),
        ("ce-sender", "J\u{f6}rg"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// An event in structured mode: its headers and its body.
pub fn structured(kind: &str, id: &str, data: &Value) -> (Vec<(String, String)>, Vec<u8>) {
    let event = json!({"specversion": "1.0", "type": kind, "source": "https://github.com/acme/web", "id": id,
        "subject": "5", "time": "2026-11-22T13:46:53Z", "datacontenttype": "application/json", "data": data});
    let headers = vec![("content-type".to_owned(), "application/cloudevents+json; charset=utf-8".to_owned())];
    (headers, event.to_string().into_bytes())
}
