//! A delivery saved in a file: GitHub's JSON alone, headers and payload from GitHub's delivery page, or a CloudEvent.
//! For `render` only: it is not authenticated.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{DecodeError, Delivery, DeliveryId, EventKind, claimed_id, claimed_kind, cloudevent};

/// Values for a file that does not contain them.
#[derive(Debug, Clone)]
pub(crate) struct Defaults {
    /// GitHub's name of the event, e.g. `pull_request`.
    pub(crate) kind: EventKind,
    /// Id of the delivery.
    pub(crate) id: DeliveryId,
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
}

/// Parses the text of a saved delivery; `defaults` fill in a missing event name or id.
/// Fails when the text has no JSON object, or an invalid CloudEvent.
pub(crate) fn read(text: &str, defaults: Defaults) -> Result<Delivery, SavedError> {
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    let mut headers = HeaderMap::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('{') {
            return with_payload(headers, &text[offset..], defaults);
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

fn with_payload(headers: HeaderMap, payload: &str, defaults: Defaults) -> Result<Delivery, SavedError> {
    let payload = payload.trim();
    if let Ok(probe) = serde_json::from_str::<Probe>(payload)
        && probe.specversion.is_some()
    {
        return Ok(cloudevent::structured(headers, &Bytes::copy_from_slice(payload.as_bytes()))?);
    }
    let kind = claimed_kind(&headers).unwrap_or(defaults.kind);
    let id = claimed_id(&headers).unwrap_or(defaults.id);
    Ok(Delivery::from_local_file(id, kind, headers, Bytes::copy_from_slice(payload.as_bytes())))
}

#[derive(Deserialize)]
struct Probe {
    specversion: Option<String>,
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
}
