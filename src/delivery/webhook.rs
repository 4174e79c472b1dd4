//! GitHub's webhook: its headers, and the payload as JSON or inside a form.

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::decoded::{ClaimedHook, Delivery, DeliveryId, Malformed, trace_of};
use super::envelope::{Encoding, single_value};
use super::event_kind::EventKind;

const DELIVERY: HeaderName = HeaderName::from_static("x-github-delivery");
const EVENT: HeaderName = HeaderName::from_static("x-github-event");
const HOOK: HeaderName = HeaderName::from_static("x-github-hook-id");
const TARGET_TYPE: HeaderName = HeaderName::from_static("x-github-hook-installation-target-type");
const TARGET_ID: HeaderName = HeaderName::from_static("x-github-hook-installation-target-id");

/// `X-GitHub-Delivery`.
pub(super) fn claimed_id(headers: &HeaderMap) -> Option<DeliveryId> {
    single_value(headers, &DELIVERY).and_then(DeliveryId::parse)
}

/// `X-GitHub-Event`.
pub(super) fn claimed_kind(headers: &HeaderMap) -> Option<EventKind> {
    single_value(headers, &EVENT).and_then(EventKind::parse)
}

/// `X-GitHub-Hook-ID` and the hook's repository, organization or App, as far as they have GitHub's form.
pub(super) fn claimed_hook(headers: &HeaderMap) -> Option<ClaimedHook> {
    let number = |name: HeaderName| single_value(headers, &name).filter(|id| is_number(id)).map(str::to_owned);
    let kind = single_value(headers, &TARGET_TYPE).and_then(EventKind::parse);
    let (id, target) = (number(HOOK)?, number(TARGET_ID));
    Some(ClaimedHook { id, target: kind.zip(target).map(|(kind, id)| format!("{kind}/{id}")) })
}

fn is_number(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}

pub(super) fn decode(headers: HeaderMap, encoding: Encoding, body: Bytes) -> Result<Delivery, Malformed> {
    let kind = claimed_kind(&headers).ok_or(Malformed::Header("X-GitHub-Event"))?;
    let id = claimed_id(&headers).ok_or(Malformed::Header("X-GitHub-Delivery"))?;
    let payload = match encoding {
        Encoding::Json => body,
        Encoding::Form => form_payload(&body)?,
    };
    let trace = trace_of(&headers);
    Ok(Delivery { trace, ..Delivery::unproven(id, kind, headers, payload) })
}

fn form_payload(body: &[u8]) -> Result<Bytes, Malformed> {
    let mut payloads = form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
    match (payloads.next(), payloads.next()) {
        (Some((_, payload)), None) => Ok(Bytes::from(payload.into_owned())),
        _ => Err(Malformed::Form),
    }
}
