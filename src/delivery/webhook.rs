//! GitHub's webhook: its headers, and the payload as JSON or inside a form.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::envelope::{Encoding, single_value};
use super::{Delivery, DeliveryId, EventKind, Malformed, trace_of};

const DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");
const EVENT: HeaderName = HeaderName::from_static("x-github-event");

/// `X-GitHub-Delivery`.
pub(super) fn claimed_id(headers: &HeaderMap) -> Option<DeliveryId> {
    single_value(headers, &DELIVERY).and_then(DeliveryId::parse)
}

/// `X-GitHub-Event`.
pub(super) fn claimed_kind(headers: &HeaderMap) -> Option<EventKind> {
    single_value(headers, &EVENT).and_then(EventKind::parse)
}

pub(super) fn decode(headers: HeaderMap, encoding: Encoding, body: Bytes) -> Result<Delivery, Malformed> {
    let kind = claimed_kind(&headers).ok_or(Malformed::Header("X-GitHub-Event"))?;
    let id = claimed_id(&headers).ok_or(Malformed::Header("X-GitHub-Delivery"))?;
    let payload = match encoding {
        Encoding::Json => body,
        Encoding::Form => form_payload(&body)?,
    };
    let trace = trace_of(&headers);
    Ok(Delivery { id, kind, action: None, trace, headers: headers.into(), payload, _sealed: () })
}

fn form_payload(body: &[u8]) -> Result<Bytes, Malformed> {
    let mut payloads = form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
    match (payloads.next(), payloads.next()) {
        (Some((_, payload)), None) => Ok(Bytes::from(payload.into_owned())),
        _ => Err(Malformed::Form),
    }
}
