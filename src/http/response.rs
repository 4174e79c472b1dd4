//! The form of a response: JSON for GitHub, an empty body or an event for the sender of a CloudEvent.
//!
//! A Broker answers 502 for a 2xx with any other body, and sends the event again (`knative.dev/eventing`,
//! `pkg/broker/filter`).

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::answer::Answer;
use crate::delivery::{DeliveryId, Envelope};

/// Characters that the HTTP binding encodes in an attribute, besides those that are not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// The `source` of events that reply to events.
#[derive(Debug, Clone)]
pub(crate) struct ReplyEvents {
    source: String,
}

/// The form that a sender gets its answer in.
#[derive(Debug, Clone, Copy)]
pub(super) enum ResponseForm<'a> {
    /// JSON.
    Json,
    /// The status alone, if it is a success.
    Status,
    /// An event, if it is a success.
    Event(&'a ReplyEvents),
}

impl ReplyEvents {
    /// Replies of the Knative Service `name` in `namespace`.
    pub(crate) fn from_service(namespace: &str, name: &str) -> Self {
        Self { source: format!("/apis/serving.knative.dev/v1/namespaces/{namespace}/services/{name}") }
    }

    /// The answer in binary mode. The same delivery with the same outcome gives the same id, because it is the same event.
    fn event(&self, answer: &Answer, delivery: &DeliveryId, dry_run: bool) -> Response {
        let outcome = answer.reason().outcome().as_str();
        let mut response = answer.to_response(Some(delivery), dry_run);
        let attributes = [
            ("ce-specversion", "1.0".to_owned()),
            ("ce-type", format!("dev.github-trigger.pipelinerun.{outcome}")),
            ("ce-source", self.source.clone()),
            ("ce-id", format!("{}.{outcome}", delivery.as_str())),
        ];
        for (name, value) in attributes {
            let value = utf8_percent_encode(&value, ENCODED).to_string();
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

impl<'a> ResponseForm<'a> {
    /// The form for a request. An event is answered with an event only if its sender asks for one (`Prefer: reply`) and
    /// `replies` allows it.
    pub(super) fn from_request(
        envelope: Option<Envelope>,
        headers: &HeaderMap,
        replies: Option<&'a ReplyEvents>,
    ) -> Self {
        if !envelope.is_some_and(Envelope::is_cloud_event) {
            return Self::Json;
        }
        let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let wants_reply = preferences.flat_map(|value| value.split(',')).any(|preference| {
            preference.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("reply"))
        });
        match replies {
            Some(replies) if wants_reply => Self::Event(replies),
            _ => Self::Status,
        }
    }

    /// The HTTP response. Every sender gets a failure as JSON.
    pub(super) fn respond(self, answer: &Answer, delivery: Option<&DeliveryId>, dry_run: bool) -> Response {
        let status = answer.reason().status();
        match (self, delivery) {
            (Self::Event(replies), Some(delivery)) if status.is_success() => replies.event(answer, delivery, dry_run),
            // A reply needs the id of the event.
            (Self::Status | Self::Event(_), _) if status.is_success() => status.into_response(),
            _ => answer.to_response(delivery, dry_run),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Encoding;
    use crate::http::outcome::Reason;

    fn form(envelope: Envelope, preference: &'static str, replies: Option<&ReplyEvents>) -> &'static str {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", HeaderValue::from_static(preference));
        match ResponseForm::from_request(Some(envelope), &headers, replies) {
            ResponseForm::Json => "json",
            ResponseForm::Status => "status",
            ResponseForm::Event(_) => "event",
        }
    }

    #[test]
    fn answers_with_an_event_only_on_request() {
        let replies = ReplyEvents::from_service("ns", "name");
        let with = Some(&replies);
        assert_eq!(form(Envelope::Binary, "reply", with), "event");
        assert_eq!(form(Envelope::Structured, "wait=5, Reply;x=y", with), "event");
        assert_eq!(form(Envelope::Binary, "noreply", with), "status");
        assert_eq!(form(Envelope::Binary, "reply", None), "status");
        assert_eq!(form(Envelope::Webhook(Encoding::Json), "reply", with), "json");
    }

    #[test]
    fn encodes_the_attributes_of_a_reply() {
        let replies = ReplyEvents::from_service("ns", "name");
        let id = DeliveryId::parse("100%\"x\"").expect("an id");
        let response = ResponseForm::Event(&replies).respond(&Answer::new(Reason::NoTemplate), Some(&id), false);
        assert_eq!(response.headers()["ce-id"], "100%25%22x%22.ignored");
        assert_eq!(response.headers()["ce-type"], "dev.github-trigger.pipelinerun.ignored");
        assert_eq!(response.headers()["ce-source"], "/apis/serving.knative.dev/v1/namespaces/ns/services/name");
        let response = ResponseForm::Event(&replies).respond(&Answer::new(Reason::NoTemplate), None, false);
        assert!(http_body::Body::is_end_stream(response.body()), "an empty body");
    }
}
