//! What a delivery is wrapped in, as its headers say: GitHub's webhook, or a CloudEvent in one of its content modes.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// What a delivery is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// GitHub's own request.
    Webhook(Encoding),
    /// A CloudEvent in binary mode: attributes are headers, the body is the data.
    Binary,
    /// A CloudEvent in structured mode: the body is a JSON object with attributes and data.
    Structured,
}

/// How the payload is written into a webhook's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// `application/json`: the body is the payload.
    Json,
    /// `application/x-www-form-urlencoded`: the payload is the form's `payload`.
    Form,
}

/// A body that nobody here can read. The sender is told with 415.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unsupported {
    /// It is compressed: the signature is over the bytes as sent, so that it would be verified but not readable.
    #[error("the body must not be compressed (Content-Encoding)")]
    Compressed,
    /// Several CloudEvents in one request, which nobody may send who was not asked to.
    #[error("a batch of CloudEvents is not taken; send each event by itself")]
    Batch,
    /// A CloudEvent in another format than JSON.
    #[error("a CloudEvent in structured mode must be application/cloudevents+json")]
    EventFormat,
    /// Neither a webhook's nor a CloudEvent's media type.
    #[error(
        "the Content-Type must be application/json or application/x-www-form-urlencoded, or that of a CloudEvent with \
         JSON data"
    )]
    MediaType,
}

/// The attributes that make a request a CloudEvent; one is enough to be treated as one, and to lack the others.
const ATTRIBUTES: [&str; 4] = ["ce-specversion", "ce-type", "ce-id", "ce-source"];

impl Envelope {
    /// Reads the headers. The Content-Type comes first, as the HTTP binding says: whatever `ce-` headers it has, a
    /// structured event is a structured event.
    /// Fails when nothing here can read such a body.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Unsupported> {
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Unsupported::Compressed);
        }
        let media_type = single(headers, &CONTENT_TYPE).map(essence);
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

    /// Whether it is a CloudEvent, in either mode.
    pub(crate) fn is_cloud_event(self) -> bool {
        !matches!(self, Self::Webhook(_))
    }

    /// The name in logs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Binary => "cloudevent-binary",
            Self::Structured => "cloudevent-structured",
        }
    }
}

/// A media type in lower case, without its parameters.
pub(super) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The value of a header that stands exactly once and is ASCII.
pub(super) fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
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
    fn the_media_type_decides() {
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
    fn any_required_attribute_makes_a_cloud_event_but_the_media_type_comes_first() {
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
    fn a_compressed_body_is_not_understood() {
        let coded = |coding| of(&[("content-type", "application/json"), ("content-encoding", coding)]);
        assert_eq!(coded("gzip"), Err(Unsupported::Compressed));
        assert_eq!(coded("identity"), Ok(Envelope::Webhook(Encoding::Json)));
    }
}
