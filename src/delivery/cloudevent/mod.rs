//! CloudEvents 1.0 over HTTP, in binary and structured mode, as Knative's GitHubSource and the CloudEvents adapter for
//! GitHub send them.
//!
//! Sources: "HTTP Protocol Binding for CloudEvents" 1.0.2 and "JSON Event Format for CloudEvents" 1.0.2; the types of
//! `knative-extensions/eventing-github` and of the specification's `adapters/github.md`.

use std::borrow::Cow;

use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::decoded::{DecodeError, Delivery, DeliveryId, Malformed, trace_of};
use super::envelope::{media_type_essence, single_value};
use super::event_kind::EventKind;
use crate::telemetry::trace::TraceContext;

/// `dev.knative.source.github.<event>`: GitHubSource's types.
const KNATIVE: &str = "dev.knative.source.github.";
/// `com.github.<event>.<action>`: the types of the CloudEvents adapter for GitHub.
const ADAPTER: &str = "com.github.";
/// Longest id, which goes into an annotation and the log.
const MAX_ID: usize = 1024;

/// The attributes that are read; all others are allowed and ignored.
struct Attributes<'a> {
    id: Cow<'a, str>,
    kind: Cow<'a, str>,
    trace: Option<TraceContext>,
}

/// The header `ce-id` of a request in binary mode.
pub(super) fn claimed_id(headers: &HeaderMap) -> Option<DeliveryId> {
    delivery_id(&header(headers, "ce-id", "id").ok()?).ok()
}

/// The GitHub event in the header `ce-type` of a request in binary mode.
pub(super) fn claimed_kind(headers: &HeaderMap) -> Option<EventKind> {
    github_event(&header(headers, "ce-type", "type").ok()?).map(|(kind, _)| kind)
}

/// Binary mode: attributes are headers, the body is the data.
pub(super) fn binary(headers: HeaderMap, body: Bytes) -> Result<Delivery, DecodeError> {
    check_version(&header(&headers, "ce-specversion", "specversion")?)?;
    check_source(&header(&headers, "ce-source", "source")?)?;
    let traced = |name: &str| headers.get(name)?.to_str().ok();
    let attributes = Attributes {
        id: header(&headers, "ce-id", "id")?.into(),
        kind: header(&headers, "ce-type", "type")?.into(),
        trace: traced("ce-traceparent").and_then(|parent| TraceContext::parse(parent, traced("ce-tracestate"))),
    };
    // Without a Content-Type there is no datacontenttype, which means JSON.
    if headers.contains_key(CONTENT_TYPE) && !single_value(&headers, &CONTENT_TYPE).is_some_and(is_json) {
        return foreign_or(&attributes, DecodeError::DataType);
    }
    delivery(&attributes, headers, || Ok(body))
}

/// The JSON event format. A `null` is the same as an absent attribute.
#[derive(Deserialize)]
struct Structured<'a> {
    #[serde(borrow)]
    specversion: Option<Cow<'a, str>>,
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    datacontenttype: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
    /// Extensions; their values never make an event invalid.
    #[serde(borrow)]
    traceparent: Option<&'a RawValue>,
    #[serde(borrow)]
    tracestate: Option<&'a RawValue>,
}

/// Structured mode: the body is a JSON object with attributes and data.
pub(super) fn structured(headers: HeaderMap, body: &Bytes) -> Result<Delivery, DecodeError> {
    // serde would read an array as the fields in order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Malformed::Event("it must be a JSON object".to_owned()).into());
    }
    let event: Structured<'_> = serde_json::from_slice(body).map_err(|error| Malformed::Event(error.to_string()))?;
    check_version(&required(event.specversion, "specversion")?)?;
    check_source(&required(event.source, "source")?)?;
    let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
    let state = event.tracestate.and_then(text);
    let parent = event.traceparent.and_then(text);
    let attributes = Attributes {
        id: required(event.id, "id")?,
        kind: required(event.kind, "type")?,
        trace: parent.and_then(|parent| TraceContext::parse(&parent, state.as_deref())),
    };
    if event.datacontenttype.as_deref().is_some_and(|media_type| !is_json(media_type)) {
        return foreign_or(&attributes, DecodeError::DataType);
    }
    delivery(&attributes, headers, || match (event.data, event.data_base64) {
        (Some(data), None) => Ok(body.slice_ref(data.get().as_bytes())),
        (None, Some(data)) => {
            BASE64_STANDARD.decode(&*data).map(Bytes::from).map_err(|_| Malformed::Data("data_base64 is not Base64"))
        }
        (None, None) => Err(Malformed::Data("data is missing")),
        (Some(_), Some(_)) => Err(Malformed::Data("data and data_base64 exclude each other")),
    })
}

/// An event of a foreign type is ignored, whatever else is wrong with it.
fn foreign_or(attributes: &Attributes<'_>, error: DecodeError) -> Result<Delivery, DecodeError> {
    match github_event(&attributes.kind) {
        Some(_) => Err(error),
        None => Err(DecodeError::Foreign(attributes.kind.to_string())),
    }
}

fn delivery(
    attributes: &Attributes<'_>,
    headers: HeaderMap,
    data: impl FnOnce() -> Result<Bytes, Malformed>,
) -> Result<Delivery, DecodeError> {
    let Some((kind, action)) = github_event(&attributes.kind) else {
        return Err(DecodeError::Foreign(attributes.kind.to_string()));
    };
    let id = delivery_id(&attributes.id)?;
    let payload = data()?;
    if payload.trim_ascii_start().first() != Some(&b'{') {
        return Err(Malformed::Data("it must be a JSON object, the payload of GitHub's webhook").into());
    }
    // The HTTP header describes the last hop, the extension the origin of the event.
    let trace = trace_of(&headers).or_else(|| attributes.trace.clone());
    Ok(Delivery { action: action.map(str::to_owned), trace, ..Delivery::unproven(id, kind, headers, payload) })
}

/// The GitHub event in a CloudEvent's type, and the action if the type names one.
fn github_event(kind: &str) -> Option<(EventKind, Option<&str>)> {
    if let Some(event) = kind.strip_prefix(KNATIVE) {
        return Some((EventKind::parse(event)?, None));
    }
    let rest = kind.strip_prefix(ADAPTER)?;
    let (event, action) = rest.split_once('.').map_or((rest, None), |(event, action)| (event, Some(action)));
    Some((EventKind::parse(event)?, action))
}

/// Any string is legal as an id; other characters than visible ASCII are percent-encoded, as in the HTTP binding.
fn delivery_id(id: &str) -> Result<DeliveryId, Malformed> {
    if let Some(id) = DeliveryId::parse(id) {
        return Ok(id);
    }
    let encoded = percent_encode(id.as_bytes(), NON_ALPHANUMERIC).to_string();
    if encoded.len() > MAX_ID {
        return Err(Malformed::Attribute("id", "is too long"));
    }
    Ok(DeliveryId(encoded))
}

fn check_version(version: &str) -> Result<(), Malformed> {
    if version == "1.0" { Ok(()) } else { Err(Malformed::Attribute("specversion", "must be 1.0")) }
}

/// A URI-reference must have no white space; nothing here follows it.
fn check_source(source: &str) -> Result<(), Malformed> {
    if source.chars().any(char::is_whitespace) {
        return Err(Malformed::Attribute("source", "must be a URI reference"));
    }
    Ok(())
}

fn is_json(media_type: &str) -> bool {
    let media_type = media_type_essence(media_type);
    media_type == "application/json" || media_type.ends_with("+json")
}

fn required<'a>(value: Option<Cow<'a, str>>, name: &'static str) -> Result<Cow<'a, str>, Malformed> {
    let value = value.ok_or(Malformed::Attribute(name, "is missing"))?;
    check(&value, name)?;
    Ok(value)
}

/// A required attribute in a header: unquoted if quoted, then percent-decoded once.
fn header(headers: &HeaderMap, header: &str, name: &'static str) -> Result<String, Malformed> {
    let mut values = headers.get_all(header).iter();
    let value = match (values.next(), values.next()) {
        (Some(value), None) => unquote(value.as_bytes()),
        (None, _) => return Err(Malformed::Attribute(name, "is missing")),
        (Some(_), Some(_)) => return Err(Malformed::Attribute(name, "is repeated")),
    };
    let decoded = percent_decode(&value).decode_utf8();
    let text = decoded.map_err(|_| Malformed::Attribute(name, "is not UTF-8"))?.into_owned();
    check(&text, name)?;
    Ok(text)
}

fn check(value: &str, name: &'static str) -> Result<(), Malformed> {
    if value.is_empty() {
        return Err(Malformed::Attribute(name, "is empty"));
    }
    if value.chars().any(char::is_control) {
        return Err(Malformed::Attribute(name, "has control characters"));
    }
    Ok(())
}

/// The text between double quotes, with `\x` as `x`; a value without quotes unchanged.
fn unquote(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(value);
    };
    let mut unquoted = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(&byte) = bytes.next() {
        unquoted.push(if byte == b'\\' { *bytes.next().unwrap_or(&byte) } else { byte });
    }
    Cow::Owned(unquoted)
}

#[cfg(test)]
mod tests;
