//! A delivery saved in a file, as people have it: GitHub's JSON alone, headers and payload from GitHub's delivery page, an
//! answer of GitHub's API (a delivery, or a pull request), or a CloudEvent. For `render` only: it is not authenticated.

use std::collections::HashMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{DecodeError, Delivery, DeliveryId, EventKind, claimed_id, claimed_kind, cloudevent};

/// Values for a file that does not contain them.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// GitHub's name of the event, e.g. `pull_request`.
    pub(crate) kind: EventKind,
    /// Id of the delivery.
    pub(crate) id: DeliveryId,
}

/// Id of a delivery that has none: the nil UUID.
pub(crate) const NIL_ID: &str = "00000000-0000-0000-0000-000000000000";

impl Default for Defaults {
    /// An event of a pull request, with the nil id.
    fn default() -> Self {
        Self { kind: EventKind::PullRequest, id: DeliveryId(NIL_ID.to_owned()) }
    }
}

/// Why a file cannot be read as a delivery.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SavedError {
    /// No line of the file begins with `{`.
    #[error("no JSON object in the payload file; save the payload as GitHub shows it, with or without its headers")]
    MissingPayload,
    /// The JSON has a `specversion`, but is not a valid CloudEvent with a GitHub event.
    #[error("not a valid CloudEvent with a GitHub event: {0}")]
    CloudEvent(#[from] DecodeError),
    /// Something else; the text says what it looks like, and what to do.
    #[error("the payload file looks like {0}")]
    Other(String),
}

/// Parses the text of a saved delivery; `defaults` fill in a missing event name or id.
/// Fails when the text has no JSON object, or its form is unknown.
pub(crate) fn read(text: &str, defaults: Defaults) -> Result<Delivery, SavedError> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut headers = HeaderMap::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('{') {
            return with_payload(headers, &text[offset..], defaults);
        }
        if line.trim_start().starts_with('[') {
            return Err(SavedError::Other(
                "a list; save one delivery of it: gh api repos/OWNER/NAME/hooks/HOOK/deliveries/ID".to_owned(),
            ));
        }
        if let Some((name, value)) = line.split_once(':')
            && let Ok(name) = name.trim().parse::<HeaderName>()
            && let Ok(value) = value.trim().parse::<HeaderValue>()
        {
            headers.insert(name, value);
        }
        offset += line.len();
    }
    Err(SavedError::MissingPayload)
}

/// The delivery of a pull request's event that an object of GitHub's API tells of: a delivery, or a pull request. `id` is
/// for a pull request, which has none. `None` if it is another object, or the id is invalid.
pub(crate) fn from_api(object: &Value, id: &str) -> Option<Delivery> {
    read(&object.to_string(), Defaults { kind: EventKind::PullRequest, id: DeliveryId::parse(id)? }).ok()
}

fn with_payload(headers: HeaderMap, payload: &str, defaults: Defaults) -> Result<Delivery, SavedError> {
    let payload = payload.trim();
    let probe = serde_json::from_str::<Probe>(payload).unwrap_or_default();
    if probe.specversion.is_some() {
        return Ok(cloudevent::structured(headers, &Bytes::copy_from_slice(payload.as_bytes()))?);
    }
    if let Some(request) = probe.request {
        return request.delivery(probe.guid, probe.event, defaults);
    }
    let named = claimed_kind(&headers);
    let fields: Map<String, Value> = serde_json::from_str(payload).unwrap_or_default();
    if let (None, Some(merge)) = (&named, from_pull_request(&fields)) {
        return Ok(local(headers, defaults.kind, defaults.id, merge.to_string()));
    }
    if let (None, Some(message)) = (&named, other_form(&fields, &defaults.kind)) {
        return Err(SavedError::Other(message));
    }
    let id = claimed_id(&headers).unwrap_or(defaults.id);
    Ok(local(headers, named.unwrap_or(defaults.kind), id, payload.to_owned()))
}

/// A delivery with the headers that GitHub would have sent.
fn local(mut headers: HeaderMap, kind: EventKind, id: DeliveryId, payload: String) -> Delivery {
    for (name, value) in [("x-github-event", kind.as_str()), ("x-github-delivery", id.as_str())] {
        if let (false, Ok(value)) = (headers.contains_key(name), value.parse()) {
            headers.insert(name, value);
        }
    }
    Delivery::from_local_file(id, kind, headers, payload.into())
}

/// The event of a merge, out of the API's pull request. `None` if the fields are not those of a pull request.
fn from_pull_request(fields: &Map<String, Value>) -> Option<Value> {
    let repository = fields.get("base")?.get("repo")?.clone();
    let is_pull_request = fields.contains_key("merge_commit_sha") && !fields.contains_key("action");
    let mut fields = fields.clone();
    // An entry of a list says only when it was merged.
    let is_merged = fields.get("merged_at").is_some_and(Value::is_string);
    fields.entry("merged").or_insert(is_merged.into());
    let event = || {
        let mut event = json!({
            "action": if fields.get("state").and_then(Value::as_str) == Some("open") { "opened" } else { "closed" },
            "number": fields.get("number"), "pull_request": fields, "repository": repository,
            "sender": fields.get("merged_by").filter(|user| user.is_object()).or(fields.get("user")),
        });
        if let Some(owner) = repository.get("owner").filter(|owner| owner["type"] == "Organization") {
            event["organization"] = organization(owner);
        }
        event
    };
    is_pull_request.then(event)
}

/// An organisation as a delivery has it, out of the owner of a repository.
fn organization(owner: &Value) -> Value {
    let text = |field: &str| owner[field].as_str().unwrap_or_default();
    let url = text("url").replacen("/users/", "/orgs/", 1);
    let below = |path: &str| format!("{url}/{path}");
    json!({
        "login": owner["login"], "id": owner["id"], "node_id": owner["node_id"], "url": url,
        "repos_url": below("repos"), "events_url": below("events"), "hooks_url": below("hooks"),
        "issues_url": below("issues"), "members_url": below("members{/member}"),
        "public_members_url": below("public_members{/member}"), "avatar_url": owner["avatar_url"], "description": null,
    })
}

/// What the fields look like, if it is not the payload of `kind`.
fn other_form(fields: &Map<String, Value>, kind: &EventKind) -> Option<String> {
    let has = |name: &str| fields.contains_key(name);
    if *kind == EventKind::PullRequest && !has("pull_request") {
        let likely = [
            ("issue_comment", has("comment") && has("issue")),
            ("push", has("ref") && has("commits")),
            ("release", has("release")),
            ("issues", has("issue")),
            ("workflow_run", has("workflow_run")),
            ("check_run", has("check_run")),
            ("deployment_status", has("deployment_status")),
            ("deployment", has("deployment")),
            ("merge_group", has("merge_group")),
            ("ping", has("zen")),
        ];
        if let Some((event, _)) = likely.into_iter().find(|(_, found)| *found) {
            return Some(format!("the payload of `{event}`; add --event {event}"));
        }
    }
    if has("delivered_at") && has("guid") {
        return Some(
            "an entry of a list of deliveries, without its payload; save the delivery itself: gh api \
                     repos/OWNER/NAME/hooks/HOOK/deliveries/ID"
                .to_owned(),
        );
    }
    if has("message") && has("documentation_url") {
        return Some("an error of GitHub's API; its `message` says why".to_owned());
    }
    if has("kind") && has("apiVersion") {
        return Some("a Kubernetes object; give it to --trigger-config, and a payload of GitHub here".to_owned());
    }
    // Anything else is parsed as the payload of `kind`, which says what is missing.
    None
}

#[derive(Deserialize, Default)]
struct Probe {
    #[serde(default)]
    specversion: Option<String>,
    #[serde(default)]
    guid: Option<String>,
    #[serde(default)]
    event: Option<String>,
    #[serde(default)]
    request: Option<SavedRequest>,
}

/// `request` of the deliveries API.
#[derive(Deserialize)]
struct SavedRequest {
    headers: HashMap<String, String>,
    payload: Value,
}

impl SavedRequest {
    fn delivery(self, guid: Option<String>, event: Option<String>, defaults: Defaults) -> Result<Delivery, SavedError> {
        let pairs = self
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?)));
        let headers: HeaderMap = pairs.collect();
        let kind = claimed_kind(&headers).or_else(|| EventKind::parse(&event?)).unwrap_or(defaults.kind);
        let id = claimed_id(&headers).or_else(|| DeliveryId::parse(&guid?)).unwrap_or(defaults.id);
        let payload = match self.payload {
            // A hook with the form's content type.
            Value::String(text) => text,
            Value::Null => {
                return Err(SavedError::Other(
                    "a delivery whose payload GitHub no longer has; take a newer one".to_owned(),
                ));
            }
            payload => payload.to_string(),
        };
        Ok(local(headers, kind, id, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(text: &str) -> Result<Delivery, SavedError> {
        let kind = EventKind::parse("pull_request").expect("a kind");
        read(text, Defaults { kind, id: DeliveryId::parse("default").expect("an id") })
    }

    #[test]
    fn uses_defaults_for_payload_alone() {
        let delivery = delivery("\u{FEFF}\n  {\"a\": 1}\n").expect("a delivery");
        assert_eq!((delivery.kind.as_str(), delivery.id.as_str()), ("pull_request", "default"));
        assert_eq!(&delivery.payload[..], b"{\"a\": 1}");
    }

    #[test]
    fn reads_headers_of_github_delivery_page() {
        let page = "Request URL: https://hooks.example.com/\nRequest method: POST\nAccept: */*\n\
                    X-GitHub-Delivery: 72d3162e\nX-GitHub-Event: push\n\nPayload\n{\n  \"ref\": \"refs/heads/main\"\n}\n";
        let delivery = delivery(page).expect("a delivery");
        assert_eq!((delivery.kind.as_str(), delivery.id.as_str()), ("push", "72d3162e"));
        assert!(&delivery.payload[..].starts_with(b"{\n  \"ref\""));
    }

    #[test]
    fn reads_structured_cloud_event() {
        for kind in ["dev.knative.source.github.push", "com.github.push.created"] {
            let event = format!(r#"{{"specversion":"1.0","id":"e1","source":"x","type":"{kind}","data":{{"b":1}}}}"#);
            let delivery = delivery(&event).expect("a delivery");
            assert_eq!((delivery.kind.as_str(), delivery.id.as_str()), ("push", "e1"));
            assert_eq!(&delivery.payload[..], b"{\"b\":1}");
        }
        for broken in [
            r#"{"specversion":"1.0","id":"e1","type":"org.example","data":{}}"#,
            r#"{"specversion":"1.0","type":"dev.knative.source.github.push","data":{}}"#,
            r#"{"specversion":"1.0","id":"e1","source":"x","type":"dev.knative.source.github.push"}"#,
        ] {
            assert!(matches!(delivery(broken), Err(SavedError::CloudEvent(_))), "{broken}");
        }
    }

    #[test]
    fn rejects_file_without_json() {
        assert!(matches!(delivery(""), Err(SavedError::MissingPayload)));
        assert!(matches!(delivery("X-GitHub-Event: push\n"), Err(SavedError::MissingPayload)));
    }

    #[test]
    fn reads_a_delivery_of_githubs_api() {
        let answer = json!({
            "id": 1, "guid": "g1", "delivered_at": "2026-11-22T13:46:55Z", "event": "push", "action": null, "status": "OK",
            "request": {"headers": {"X-GitHub-Event": "push", "X-GitHub-Delivery": "g1", "X-GitHub-Hook-ID": "7"},
                "payload": {"ref": "refs/heads/main"}},
            "response": {"headers": {}, "payload": "{}"}
        });
        for text in [answer.to_string(), format!("HTTP/2.0 200 OK\nX-Github-Request-Id: r\n\n{answer:#}\n")] {
            let delivery = delivery(&text).expect("a delivery");
            assert_eq!((delivery.kind.as_str(), delivery.id.as_str()), ("push", "g1"));
            assert_eq!(&delivery.payload[..], b"{\"ref\":\"refs/heads/main\"}");
            let names: Vec<&str> = delivery.headers.iter().map(|(name, _)| name).collect();
            assert!(names.contains(&"x-github-hook-id") && !names.contains(&"x-github-request-id"), "{names:?}");
        }
    }

    #[test]
    fn reads_a_pull_request_of_githubs_api_as_its_merge() {
        let pull = json!({"number": 5, "state": "closed", "merged": true, "merge_commit_sha": "0a", "user": {"login": "octo"},
            "merged_by": {"login": "mona"}, "base": {"ref": "main", "repo": {"full_name": "acme/web"}}});
        let delivery = delivery(&pull.to_string()).expect("a delivery");
        let payload: Value = serde_json::from_slice(&delivery.payload).expect("JSON");
        assert_eq!(payload["action"], "closed");
        assert_eq!(payload["repository"]["full_name"], "acme/web");
        assert_eq!(payload["sender"]["login"], "mona");
        assert_eq!(payload["pull_request"]["merge_commit_sha"], "0a");
    }

    #[test]
    fn gives_the_headers_that_the_delivery_would_have() {
        let delivery = delivery("{\"a\": 1}").expect("a delivery");
        let headers: Vec<_> = delivery.headers.iter().collect();
        assert!(headers.contains(&("x-github-event", "pull_request")), "{headers:?}");
        assert!(headers.contains(&("x-github-delivery", "default")), "{headers:?}");
    }

    #[test]
    fn says_what_a_file_looks_like() {
        for (text, looks) in [
            ("[{\"id\": 1, \"guid\": \"a\"}]", "a list; save one delivery"),
            ("{\"ref\": \"refs/heads/main\", \"commits\": []}", "`push`; add --event push"),
            ("{\"issue\": {}, \"comment\": {}}", "`issue_comment`; add --event issue_comment"),
            ("{\"id\": 1, \"guid\": \"a\", \"delivered_at\": \"x\"}", "an entry of a list of deliveries"),
            ("{\"message\": \"Not Found\", \"documentation_url\": \"x\"}", "an error of GitHub's API"),
            ("{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}", "a Kubernetes object"),
            ("{\"request\": {\"headers\": {}, \"payload\": null}}", "a delivery whose payload GitHub no longer has"),
        ] {
            let error = delivery(text).map(drop).expect_err(text).to_string();
            assert!(error.contains(looks), "{text}: {error}");
        }
    }
}
