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
use tokio::time::{Instant, sleep_until, timeout_at};

use super::client::{ApiClient, CALL_TIMEOUT, Call};
use super::error::ApiError;
use crate::delivery::token::{BearerToken, KeySet};

const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Path of the keys on every API server; the `jwks_uri` of its discovery document is ignored.
const KEYS: &str = "/openid/v1/jwks";
/// Maximum age of cached keys; a withdrawn key is accepted no longer than this while the API server is reachable.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Minimum time between two reads. A token with an unknown key, which any sender can invent, waits for the next one.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The issuer's keys, cached.
pub(crate) struct TokenIssuer {
    api: ApiClient,
    /// Issuer name set by the operator; `None` to read it from the API server.
    name: Option<String>,
    known: ArcSwapOption<Known>,
    /// The last read; locked during the next one.
    last: Mutex<Option<Read>>,
}

/// One attempt to read the keys.
struct Read {
    begun: Instant,
    result: Result<(), KeysUnavailable>,
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

    /// Returns the keys to verify a token with: the cached ones if they include the token's key, else those of a read that
    /// begins after this call, so that a token is never refused for a key that is newer than the cache. Reads begin at most
    /// once per [`READ_INTERVAL`], and callers share them. Waits until `until` at most.
    /// Fails when the token's key is not cached and the API server does not return any keys in time.
    pub(crate) async fn keys_for(
        &self,
        token: &BearerToken<'_>,
        until: Instant,
    ) -> Result<Arc<KeySet>, KeysUnavailable> {
        let known = || self.known.load_full().filter(|known| known.keys.has_key_of(token));
        if let Some(known) = known().filter(|known| known.since.elapsed() < MAX_AGE) {
            return Ok(Arc::clone(&known.keys));
        }
        let read = timeout_at(until, self.read_after(Instant::now())).await;
        match (read.unwrap_or(Err(KeysUnavailable::Timeout)), known(), self.known.load_full()) {
            // If the read failed, expired keys stay in use.
            (_, Some(known), _) | (Ok(()), None, Some(known)) => Ok(Arc::clone(&known.keys)),
            (Err(error), None, _) => Err(error),
            (Ok(()), None, None) => Err(KeysUnavailable::Timeout),
        }
    }

    /// Reads the keys before the first event needs them, and logs the result.
    pub(crate) async fn prefetch(&self) {
        match (self.read_after(Instant::now()).await, self.known.load_full()) {
            (Ok(()), known) => {
                tracing::debug!(keys = ?known.map(|known| Arc::clone(&known.keys)), "read the token issuer's keys")
            }
            (Err(error), _) => {
                tracing::warn!(error = %error, "tokens cannot be verified yet; each CloudEvent tries again");
            }
        }
    }

    /// The result of a read that begins after `asked`: one that another caller makes, or our own.
    async fn read_after(&self, asked: Instant) -> Result<(), KeysUnavailable> {
        let mut last = self.last.lock().await;
        if let Some(read) = &*last {
            if read.begun >= asked {
                return read.result.clone();
            }
            sleep_until(read.begun + READ_INTERVAL).await;
        }
        let begun = Instant::now();
        let result = self.fetch().await;
        *last = Some(Read { begun, result: result.clone() });
        result
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
