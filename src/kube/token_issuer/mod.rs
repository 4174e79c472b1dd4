//! The cluster as the issuer of service account tokens. Reads its name and public keys from the API server with the
//! pod's credentials, and caches them.
//!
//! Every service account may read both (cluster role `system:service-account-issuer-discovery`); no extra right is
//! needed. Source: "Service account issuer discovery" in Kubernetes' documentation.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::CALL_TIMEOUT;
use super::client::{ApiClient, Call};
use super::error::ApiError;
use crate::delivery::token::{BearerToken, KeySet};

const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Path of the keys on every API server; the `jwks_uri` of its discovery document is ignored.
const KEYS: &str = "/openid/v1/jwks";
/// Maximum age of cached keys; a withdrawn key is accepted no longer than this while the API server is reachable.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Minimum time between two reads for an unknown key id, which any sender can invent.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(10);
/// Minimum time between two attempts after a failure.
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

/// The issuer's keys, cached.
pub(crate) struct TokenIssuer {
    api: ApiClient,
    /// Issuer name set by the operator; `None` to read it from the API server.
    name: Option<String>,
    known: ArcSwapOption<Known>,
    /// Time and result of the last read; locked during a read.
    last: Mutex<Option<(Instant, Result<(), KeysUnavailable>)>>,
}

struct Known {
    keys: Arc<KeySet>,
    since: Instant,
}

/// Why no keys are available to verify a token. The sender gets 503.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum KeysUnavailable {
    #[error("cannot read the token issuer's keys from the API server ({0}): {1}")]
    Api(&'static str, #[source] Arc<ApiError>),
    #[error("cannot parse the API server's answer to {0}: {1}")]
    Answer(&'static str, #[source] Arc<serde_json::Error>),
    #[error("timeout while the token issuer's keys were read from the API server")]
    Timeout,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

impl TokenIssuer {
    pub(super) fn new(api: ApiClient, name: Option<String>) -> Self {
        Self { api, name, known: ArcSwapOption::empty(), last: Mutex::new(None) }
    }

    /// Returns the keys to verify a token with: the cached ones if they include the token's key, else new ones from the
    /// API server, at most once per [`UNKNOWN_KEY_INTERVAL`]. Waits until `until` at most.
    /// Fails when no keys are cached and the API server does not return any in time.
    pub(crate) async fn keys_for(
        &self,
        token: &BearerToken<'_>,
        until: Instant,
    ) -> Result<Arc<KeySet>, KeysUnavailable> {
        if let Some(known) = self.known.load_full()
            && known.since.elapsed() < MAX_AGE
            && known.keys.has_key_of(token)
        {
            return Ok(Arc::clone(&known.keys));
        }
        timeout_at(until, self.refresh()).await.map_err(|_| KeysUnavailable::Timeout)?
    }

    /// Reads the keys before the first event needs them, and logs the result.
    pub(crate) async fn prefetch(&self) {
        match self.refresh().await {
            Ok(keys) => tracing::debug!(keys = ?keys, "read the token issuer's keys"),
            Err(error) => tracing::warn!(error = %error, "tokens cannot be verified yet; each CloudEvent tries again"),
        }
    }

    async fn refresh(&self) -> Result<Arc<KeySet>, KeysUnavailable> {
        // Concurrent callers wait here and share the result of one read.
        let mut last = self.last.lock().await;
        let interval = |result: &Result<(), _>| if result.is_ok() { UNKNOWN_KEY_INTERVAL } else { FAILURE_INTERVAL };
        let result = match last.take() {
            Some((at, result)) if at.elapsed() < interval(&result) => (at, result),
            _ => (Instant::now(), self.fetch().await),
        };
        let failure = result.1.clone().err();
        *last = Some(result);
        match (self.known.load_full(), failure) {
            // If the read failed, the expired keys stay in use.
            (Some(known), _) => Ok(Arc::clone(&known.keys)),
            (None, failure) => Err(failure.unwrap_or(KeysUnavailable::Timeout)),
        }
    }

    async fn fetch(&self) -> Result<(), KeysUnavailable> {
        let issuer = match &self.name {
            Some(name) => name.clone(),
            None => {
                let answer = self.get(DISCOVERY).await?;
                let discovery = serde_json::from_slice::<Discovery>(&answer);
                discovery.map_err(|error| KeysUnavailable::Answer(DISCOVERY, error.into()))?.issuer
            }
        };
        let keys = KeySet::parse(issuer, &self.get(KEYS).await?);
        let keys = keys.map_err(|error| KeysUnavailable::Answer(KEYS, error.into()))?;
        self.known.store(Some(Arc::new(Known { keys: Arc::new(keys), since: Instant::now() })));
        Ok(())
    }

    async fn get(&self, path: &'static str) -> Result<Bytes, KeysUnavailable> {
        let call =
            Call { method: Method::GET, uri: path.to_owned(), content_type: "", body: Bytes::new(), trace: None };
        let answer = self.api.send(call, Instant::now() + CALL_TIMEOUT).await;
        answer.map_err(|error| KeysUnavailable::Api(path, error.into()))
    }
}

#[cfg(test)]
mod tests;
