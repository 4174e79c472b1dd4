//! The envelope of a delivery, detected from its headers: GitHub's webhook, or a CloudEvent in one of its modes.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The envelope of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// GitHub's own request.
    Webhook(Encoding),
    /// A CloudEvent in binary mode: attributes are headers, the body is the data.
    Binary,
    /// A CloudEvent in structured mode: the body is a JSON object with attributes and data.
    Structured,
}

/// Encoding of the payload in a webhook's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `application/json`: the body is the payload.
    Json,
    /// `application/x-www-form-urlencoded`: the payload is the form field `payload`.
    Form,
}

/// Why a body's format is not supported. The sender gets 415.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsupported {
    /// The body is compressed; the signature covers the compressed bytes, but the payload could not be read.
    #[error("the body must not be compressed; send it without Content-Encoding")]
    Compressed,
    /// Several CloudEvents in one request; receivers need not support batches.
    #[error("a batch of CloudEvents is not supported; send one event per request")]
    Batch,
    /// A structured CloudEvent in a format other than JSON.
    #[error("a CloudEvent in structured mode must be application/cloudevents+json")]
    EventFormat,
    /// The media type of neither a webhook nor a CloudEvent.
    #[error(
        "the Content-Type must be application/json or application/x-www-form-urlencoded, or the request must be a \
         CloudEvent with JSON data"
    )]
    MediaType,
}

/// Required attributes of a CloudEvent; a request with one of them is a CloudEvent, perhaps an incomplete one.
const ATTRIBUTES: [&str; 4] = ["ce-specversion", "ce-type", "ce-id", "ce-source"];

impl Envelope {
    /// Detects the envelope. The Content-Type comes first, as the HTTP binding requires: a structured event stays one
    /// even with `ce-` headers.
    /// Fails when the body is compressed or its format is not supported.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Unsupported> {
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Unsupported::Compressed);
        }
        let media_type = single_value(headers, &CONTENT_TYPE).map(media_type_essence);
        if let Some(kind) =
            media_type.as_deref().and_then(|media_type| media_type.strip_prefix("application/cloudevents"))
        {
            return match kind {
                "+json" => Ok(Self::Structured),
                kind if kind.starts_with("-batch") => Err(Unsupported::Batch),
                _ => Err(Unsupported::EventFormat),
            };
        }
        if headers.keys().any(|name| ATTRIBUTES.contains(&name.as_str())) {
            return Ok(Self::Binary);
        }
        match media_type.as_deref() {
            Some("application/json") => Ok(Self::Webhook(Encoding::Json)),
            Some("application/x-www-form-urlencoded") => Ok(Self::Webhook(Encoding::Form)),
            _ => Err(Unsupported::MediaType),
        }
    }

    /// Whether the delivery is a CloudEvent, in either mode.
    pub(crate) fn is_cloud_event(self) -> bool {
        !matches!(self, Self::Webhook(_))
    }

    /// The value in logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Binary => "cloudevent-binary",
            Self::Structured => "cloudevent-structured",
        }
    }
}

/// The media type in lower case, without parameters.
pub(super) fn media_type_essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The header's value; `None` if the header is missing, repeated or not ASCII.
pub(super) fn single_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => HeaderValue::to_str(value).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Result<Envelope, Unsupported> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        Envelope::from_headers(&map)
    }

    #[test]
    fn detects_envelope_from_media_type() {
        let typed = |content_type| of(&[("content-type", content_type)]);
        assert_eq!(typed("application/json"), Ok(Envelope::Webhook(Encoding::Json)));
        assert_eq!(typed("Application/JSON; charset=utf-8"), Ok(Envelope::Webhook(Encoding::Json)));
        assert_eq!(typed("application/x-www-form-urlencoded"), Ok(Envelope::Webhook(Encoding::Form)));
        for structured in [
            "application/cloudevents+json",
            "application/cloudevents+json; charset=utf-8",
            "Application/CloudEvents+JSON;charset=UTF-8",
        ] {
            assert_eq!(typed(structured), Ok(Envelope::Structured), "{structured}");
        }
        for batch in ["application/cloudevents-batch+json", "APPLICATION/cloudevents-batch+json; charset=utf-8"] {
            assert_eq!(typed(batch), Err(Unsupported::Batch), "{batch}");
        }
        for format in ["application/cloudevents", "application/cloudevents+avro", "application/cloudevents+jsonp"] {
            assert_eq!(typed(format), Err(Unsupported::EventFormat), "{format}");
        }
        for other in ["", "text/plain", "application/jsonp", "application/xml", "multipart/form-data"] {
            assert_eq!(typed(other), Err(Unsupported::MediaType), "{other}");
        }
        assert_eq!(of(&[]), Err(Unsupported::MediaType));
    }

    #[test]
    fn detects_cloud_event_from_any_required_attribute_unless_structured() {
        for name in ATTRIBUTES {
            assert_eq!(of(&[("content-type", "application/json"), (name, "x")]), Ok(Envelope::Binary), "{name}");
            assert_eq!(of(&[(name, "x")]), Ok(Envelope::Binary), "{name}");
            let structured = of(&[("content-type", "application/cloudevents+json"), (name, "x")]);
            assert_eq!(structured, Ok(Envelope::Structured), "{name}");
        }
        let extension = of(&[("content-type", "application/json"), ("ce-action", "closed")]);
        assert_eq!(extension, Ok(Envelope::Webhook(Encoding::Json)));
    }

    #[test]
    fn rejects_compressed_body() {
        let coded = |coding| of(&[("content-type", "application/json"), ("content-encoding", coding)]);
        assert_eq!(coded("gzip"), Err(Unsupported::Compressed));
        assert_eq!(coded("identity"), Ok(Envelope::Webhook(Encoding::Json)));
    }
}
