//! A delivery's headers as text, so that events and templates need not know HTTP.

use http::HeaderMap;

/// The headers that a delivery came with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers(HeaderMap);

impl Headers {
    /// Names in lower case and values, without values that are not visible ASCII. A repeated name comes repeatedly.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
    }
}

impl From<HeaderMap> for Headers {
    fn from(headers: HeaderMap) -> Self {
        Self(headers)
    }
}
