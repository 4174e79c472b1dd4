//! One call of GitHub's API as a request, and what is read of its answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::error::ApiError;

const JSON: HeaderValue = HeaderValue::from_static("application/vnd.github+json");
const VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-github-api-version"), HeaderValue::from_static("2022-11-28"));

/// One call.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) method: &'static str,
    /// Path and query below the API's address.
    pub(super) path: &'a str,
    pub(super) body: Option<&'a Value>,
    /// What it is about, for errors: `the status of 0123 in acme/web`.
    pub(super) what: &'a str,
    /// The permission that it needs, as GitHub names it.
    pub(super) permission: &'static str,
    /// Whether it may be sent again although the first one may have been done.
    pub(super) is_repeatable: bool,
    /// Whether a success may come without a body.
    pub(super) may_be_empty: bool,
    /// Whether it is made again and again: an answer that has not changed is not counted by GitHub's rate limit.
    pub(super) is_polled: bool,
}

impl<'a> Call<'a> {
    /// Reads.
    pub(super) fn get(path: &'a str, what: &'a str, permission: &'static str) -> Self {
        Self {
            method: "GET",
            path,
            body: None,
            what,
            permission,
            is_repeatable: true,
            may_be_empty: false,
            is_polled: false,
        }
    }

    /// Creates. It is sent again only if GitHub has certainly not done it.
    pub(super) fn post(path: &'a str, body: &'a Value, what: &'a str, permission: &'static str) -> Self {
        Self {
            method: "POST",
            path,
            body: Some(body),
            what,
            permission,
            is_repeatable: false,
            may_be_empty: false,
            is_polled: false,
        }
    }

    /// A call whose repetition does no harm.
    pub(super) fn repeatable(self) -> Self {
        Self { is_repeatable: true, ..self }
    }

    /// A call that is made again and again.
    pub(super) fn polled(self) -> Self {
        Self { is_polled: true, ..self }
    }

    /// A call whose success may come without a body.
    pub(super) fn may_be_empty(self) -> Self {
        Self { may_be_empty: true, ..self }
    }
}

/// The answer of a success.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) body: Value,
    /// The path that answered, after redirects.
    pub(super) path: String,
    /// The next page.
    pub(super) next: Option<NextPage>,
}

/// Where the next page of a list is.
#[derive(Clone)]
pub(super) enum NextPage {
    /// A path below the API's address.
    Path(String),
    /// The query of the same path: the link names the server by another address than the operator does, and nothing is sent there.
    Query(String),
}

impl NextPage {
    /// The path of the next page, after the page at `path`.
    pub(super) fn below(self, path: &str) -> String {
        match self {
            Self::Path(next) => next,
            Self::Query(query) => format!("{}?{query}", path.split('?').next().unwrap_or_default()),
        }
    }
}

/// The request of a call at a path, with a token.
/// Fails when the token cannot be a header.
pub(super) fn request(call: &Call<'_>, path: &str, token: &SecretString) -> Result<Request<Bytes>, ApiError> {
    let invalid = |_| ApiError::Refused {
        what: call.what.to_owned(),
        status: StatusCode::BAD_REQUEST,
        message: "the request cannot be made".to_owned(),
    };
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
        .map_err(http::Error::from)
        .map_err(invalid)?;
    bearer.set_sensitive(true);
    let mut request = Request::builder()
        .method(Method::from_bytes(call.method.as_bytes()).unwrap_or_default())
        .uri(path)
        .header(ACCEPT, JSON)
        .header(VERSION.0, VERSION.1)
        .header(AUTHORIZATION, bearer);
    let body = match call.body {
        Some(body) => {
            request = request.header(CONTENT_TYPE, "application/json");
            body.to_string()
        }
        None => String::new(),
    };
    request.body(body.into()).map_err(invalid)
}

/// Longest pause that an answer can ask for, in seconds; nothing here waits for so long.
const MAX_PAUSE: u64 = 24 * 60 * 60;

/// A pause that an answer asks for.
pub(super) fn pause(seconds: u64) -> Duration {
    Duration::from_secs(seconds.clamp(1, MAX_PAUSE))
}

/// The pause that the header `Retry-After` asks for.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    text(headers, &RETRY_AFTER)?.parse().ok().map(pause)
}

/// A header's value, if it is text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The header `Date` in seconds since 1970.
pub(super) fn http_date(text: &str) -> Option<i64> {
    let time = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp::from(time).as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_pauses() {
        let asked = |value: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static(value))]))
        };
        assert_eq!(asked("0"), Some(Duration::from_secs(1)));
        assert_eq!(asked("30"), Some(Duration::from_secs(30)));
        assert_eq!(asked("18446744073709551615"), Some(Duration::from_secs(MAX_PAUSE)));
        assert_eq!(asked("soon"), None);
    }

    #[test]
    fn reads_dates() {
        assert_eq!(http_date("Thu, 26 Nov 2026 07:30:00 GMT"), Some(1_795_678_200));
        assert_eq!(http_date("yesterday"), None);
    }
}
