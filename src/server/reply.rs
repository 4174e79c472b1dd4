//! How a sender is answered: GitHub with JSON, an event's sender with nothing or with an event.
//!
//! A Broker takes any body of a 2xx that is no CloudEvent for a failure, answers 502 and sends the event again
//! (`knative.dev/eventing`, `pkg/broker/filter`).

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::answer::Answer;
use crate::delivery::{DeliveryId, Envelope};

/// What the HTTP binding has encoded in an attribute, besides what is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Who answers with events, if anybody wants them: their `source`.
#[derive(Debug, Clone)]
pub struct ReplyEvents {
    source: String,
}

/// What a sender wants to hear.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// What became of the delivery, as JSON.
    Json,
    /// The status alone.
    Status,
    /// What became of the delivery, as an event.
    Event(&'a ReplyEvents),
}

impl ReplyEvents {
    /// Replies come from the Knative Service `name` of `namespace`.
    pub fn of_service(namespace: &str, name: &str) -> Self {
        Self { source: format!("/apis/serving.knative.dev/v1/namespaces/{namespace}/services/{name}") }
    }
}

impl<'a> Wanted<'a> {
    /// Reads a request: an event is replied to with an event only if its sender asks for it (`Prefer: reply`).
    pub(super) fn of(envelope: Option<Envelope>, headers: &HeaderMap, replies: Option<&'a ReplyEvents>) -> Self {
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

    /// The HTTP response. What is not a success is told to everybody alike.
    pub(super) fn respond(self, answer: &Answer, delivery: Option<&DeliveryId>, dry_run: bool) -> Response {
        match (self, delivery) {
            (Self::Status, _) if answer.status.is_success() => answer.status.into_response(),
            (Self::Event(replies), Some(delivery)) if answer.status.is_success() => {
                replies.event(answer, delivery, dry_run)
            }
            _ => answer.respond(delivery, dry_run),
        }
    }
}

impl ReplyEvents {
    /// The answer in binary mode. The same delivery with the same outcome gives the same id: it is the same event.
    fn event(&self, answer: &Answer, delivery: &DeliveryId, dry_run: bool) -> Response {
        let outcome = answer.outcome.as_str();
        let mut response = answer.respond(Some(delivery), dry_run);
        let attributes = [
            ("ce-specversion", "1.0".to_owned()),
            ("ce-type", format!("dev.github-trigger.pipelinerun.{outcome}")),
            ("ce-source", self.source.clone()),
            ("ce-id", format!("{delivery}.{outcome}")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::Encoding;
    use crate::server::Reason;

    fn wanted(envelope: Envelope, preference: &'static str, replies: Option<&ReplyEvents>) -> &'static str {
        let mut headers = HeaderMap::new();
        headers.insert("prefer", HeaderValue::from_static(preference));
        match Wanted::of(Some(envelope), &headers, replies) {
            Wanted::Json => "json",
            Wanted::Status => "status",
            Wanted::Event(_) => "event",
        }
    }

    #[test]
    fn only_who_asks_gets_an_event() {
        let replies = ReplyEvents::of_service("ns", "name");
        let with = Some(&replies);
        assert_eq!(wanted(Envelope::Binary, "reply", with), "event");
        assert_eq!(wanted(Envelope::Structured, "wait=5, Reply;x=y", with), "event");
        assert_eq!(wanted(Envelope::Binary, "noreply", with), "status");
        assert_eq!(wanted(Envelope::Binary, "reply", None), "status");
        assert_eq!(wanted(Envelope::Webhook(Encoding::Json), "reply", with), "json");
    }

    #[test]
    fn a_reply_is_an_event_whatever_the_delivery_is_called() {
        let replies = ReplyEvents::of_service("ns", "name");
        let id = DeliveryId::parse("100%\"x\"").expect("an id");
        let response = Wanted::Event(&replies).respond(&Answer::told(Reason::NoTemplate, "nothing"), Some(&id), false);
        assert_eq!(response.headers()["ce-id"], "100%25%22x%22.ignored");
        assert_eq!(response.headers()["ce-type"], "dev.github-trigger.pipelinerun.ignored");
        assert_eq!(response.headers()["ce-source"], "/apis/serving.knative.dev/v1/namespaces/ns/services/name");
    }
}
