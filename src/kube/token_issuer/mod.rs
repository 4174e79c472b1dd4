//! The cluster as the issuer of service account tokens: its name and its public keys, read from the API server with the
//! pod's own credentials and cached.
//!
//! Every service account may read both (the cluster role `system:service-account-issuer-discovery`), so that no right has to
//! be given. Source: "Service account issuer discovery" in Kubernetes' documentation.

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
/// Path of the keys on every API server, whatever address its discovery document announces.
const KEYS: &str = "/openid/v1/jwks";
/// Keys are read again after this time, so that a withdrawn key is forgotten.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Shortest time between two searches for an unknown key, whose name any sender can make up.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(10);
/// Shortest time between two tries after a failure.
const FAILURE_INTERVAL: Duration = Duration::from_secs(1);

/// The issuer's keys, cached.
pub(crate) struct TokenIssuer {
    api: ApiClient,
    /// The issuer's name in tokens, from the operator; else it is discovered.
    name: Option<String>,
    known: ArcSwapOption<Known>,
    /// Time and result of the last read; locked by the task that reads.
    last: Mutex<Option<(Instant, Result<(), KeysUnavailable>)>>,
}

struct Known {
    keys: Arc<KeySet>,
    since: Instant,
}

/// No keys are known, so that a token can be neither accepted nor rejected. The sender gets 503.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum KeysUnavailable {
    #[error("cannot read the keys of the cluster's tokens from {0}: {1}")]
    Api(&'static str, #[source] Arc<ApiError>),
    #[error("{0} is not what an API server answers: {1}")]
    Answer(&'static str, #[source] Arc<serde_json::Error>),
    #[error("the API server did not give the keys of its tokens in time")]
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

    /// The keys to verify a token with: the cached ones if the token's key is among them, else those that the API server
    /// has now, unless it was asked a moment ago. Waits until `until` at most.
    /// Fails when no keys are cached and the API server gives none.
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

    /// Reads the keys before the first event needs them. The result is only logged.
    pub(crate) async fn prefetch(&self) {
        match self.refresh().await {
            Ok(keys) => tracing::debug!(keys = ?keys, "read the keys of the cluster's tokens"),
            Err(error) => tracing::warn!(error = %error, "tokens cannot be verified yet"),
        }
    }

    async fn refresh(&self) -> Result<Arc<KeySet>, KeysUnavailable> {
        // Those who wait here get the result of the one that reads.
        let mut last = self.last.lock().await;
        let interval = |result: &Result<(), _>| if result.is_ok() { UNKNOWN_KEY_INTERVAL } else { FAILURE_INTERVAL };
        let result = match last.take() {
            Some((at, result)) if at.elapsed() < interval(&result) => (at, result),
            _ => (Instant::now(), self.fetch().await),
        };
        let failure = result.1.clone().err();
        *last = Some(result);
        match (self.known.load_full(), failure) {
            // Keys that were good an hour ago are better than none.
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
