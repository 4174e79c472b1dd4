//! GitHub's webhook: its headers, and the payload as JSON or inside a form.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::{Delivery, DeliveryId, EventKind};

/// How the payload is written into the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`: the body is the payload.
    Json,
    /// `application/x-www-form-urlencoded`: the payload is the form's `payload`.
    Form,
}

/// Why a verified webhook cannot be read. The sender is told with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A header that GitHub always sends is missing, repeated or not of GitHub's form.
    #[error("the header {0} is missing or malformed")]
    Header(&'static str),
    /// A form without `payload`, or with several.
    #[error("the form must have exactly one field `payload`")]
    Form,
}

impl Encoding {
    /// The encoding that a request's headers name; nothing for one that is not understood.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        // The signature is over the bytes as sent: a compressed body would be verified but not readable.
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return None;
        }
        let media_type = single(headers, CONTENT_TYPE.as_str())?.split(';').next()?.trim();
        if media_type.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else if media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            Some(Self::Form)
        } else {
            None
        }
    }
}

/// The value of a header that stands exactly once and is ASCII.
fn single<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => HeaderValue::to_str(value).ok(),
        _ => None,
    }
}

/// The delivery id that a request claims, for answers and logs; nothing if it is missing or unfit to print.
pub(crate) fn claimed_id(headers: &HeaderMap) -> Option<DeliveryId> {
    single(headers, "x-github-delivery").and_then(DeliveryId::parse)
}

/// The event's name that a request claims.
pub(crate) fn claimed_kind(headers: &HeaderMap) -> Option<EventKind> {
    single(headers, "x-github-event").and_then(EventKind::parse)
}

pub(super) fn decode(headers: HeaderMap, encoding: Encoding, body: Bytes) -> Result<Delivery, Malformed> {
    let kind = claimed_kind(&headers).ok_or(Malformed::Header("X-GitHub-Event"))?;
    let id = claimed_id(&headers).ok_or(Malformed::Header("X-GitHub-Delivery"))?;
    let payload = match encoding {
        Encoding::Json => body,
        Encoding::Form => form_payload(&body)?,
    };
    Ok(Delivery { id, kind, headers, payload })
}

fn form_payload(body: &[u8]) -> Result<Bytes, Malformed> {
    let mut payloads = form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
    match (payloads.next(), payloads.next()) {
        (Some((_, payload)), None) => Ok(Bytes::from(payload.into_owned())),
        _ => Err(Malformed::Form),
    }
}
