//! The cluster as the issuer of its service accounts' tokens: its name and its public keys, read from the API server with
//! the pod's own credentials and kept.
//!
//! Every service account may read both (the cluster role `system:service-account-issuer-discovery`), so that no right has to
//! be given. Source: "Service account issuer discovery" in Kubernetes' documentation.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Method;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::ATTEMPT;
use super::exchange::{Api, Call};
use crate::delivery::token::{BearerToken, KeySet};

const DISCOVERY: &str = "/.well-known/openid-configuration";
/// Where an API server has its keys, whatever address it announces them under.
const KEYS: &str = "/openid/v1/jwks";
/// After so long keys are read again, so that one that was withdrawn is forgotten.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Anybody can make up a key's name: it is looked for this often at most.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(10);
/// After a failure the API server is asked again this soon.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// The issuer's keys, as far as they are known.
pub struct Issuer {
    api: Api,
    /// The operator's word for the issuer's name.
    name: Option<String>,
    known: ArcSwapOption<Known>,
    /// Held by the one who asks the API server; when it was last asked, and whether it answered.
    asking: Mutex<Option<(Instant, Result<(), String>)>>,
}

struct Known {
    keys: Arc<KeySet>,
    since: Instant,
}

/// The keys are not known, and a token can be neither right nor wrong. The sender is told with 503.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the API server does not give the keys of its tokens: {0}")]
pub struct KeysUnavailable(String);

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
}

impl Issuer {
    pub(super) fn new(api: Api, name: Option<String>) -> Self {
        Self { api, name, known: ArcSwapOption::empty(), asking: Mutex::new(None) }
    }

    /// The keys to check a token with, until `until` at most: the known ones if the token's is among them, else those
    /// that the API server has now, unless it was asked a moment ago.
    ///
    /// # Errors
    /// When no keys are known and the API server gives none.
    pub async fn keys_for(&self, token: &BearerToken<'_>, until: Instant) -> Result<Arc<KeySet>, KeysUnavailable> {
        if let Some(known) = self.known.load_full()
            && known.since.elapsed() < MAX_AGE
            && known.keys.has_key_of(token)
        {
            return Ok(Arc::clone(&known.keys));
        }
        let late = |_| KeysUnavailable("it did not answer in time".to_owned());
        timeout_at(until, self.refresh()).await.map_err(late)?
    }

    /// Reads the keys before the first event needs them; what it finds is only logged.
    pub async fn warm(&self) {
        match self.refresh().await {
            Ok(keys) => tracing::debug!(keys = ?keys, "the API server gives the keys of its tokens"),
            Err(error) => tracing::warn!(reason = %error, "events cannot be verified yet"),
        }
    }

    async fn refresh(&self) -> Result<Arc<KeySet>, KeysUnavailable> {
        // Whoever waits here finds what the one before has found.
        let mut asked = self.asking.lock().await;
        let last = asked.take();
        let too_soon = last
            .as_ref()
            .is_some_and(|(at, answer)| at.elapsed() < if answer.is_ok() { UNKNOWN_KEY_PAUSE } else { FAILURE_PAUSE });
        let answer = match last {
            Some(last) if too_soon => last,
            _ => (Instant::now(), self.fetch().await),
        };
        let failure = answer.1.clone().err();
        *asked = Some(answer);
        // Keys that were good an hour ago are better than none.
        match (self.known.load_full(), failure) {
            (Some(known), _) => Ok(Arc::clone(&known.keys)),
            (None, failure) => Err(KeysUnavailable(failure.unwrap_or_default())),
        }
    }

    async fn fetch(&self) -> Result<(), String> {
        let issuer = match &self.name {
            Some(name) => name.clone(),
            None => {
                let answer = self.get(DISCOVERY).await?;
                let discovery: Discovery =
                    serde_json::from_slice(&answer).map_err(|error| format!("{DISCOVERY}: {error}"))?;
                discovery.issuer
            }
        };
        let keys = KeySet::parse(issuer, &self.get(KEYS).await?).map_err(|error| format!("{KEYS}: {error}"))?;
        self.known.store(Some(Arc::new(Known { keys: Arc::new(keys), since: Instant::now() })));
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        let call = Call { method: Method::GET, uri: path, content_type: "", body: Vec::new(), trace: None };
        match self.api.send(call, Instant::now() + ATTEMPT).await {
            Ok(reply) if reply.status.is_success() => Ok(reply.body.to_vec()),
            Ok(reply) => Err(format!("{path}: {}", reply.status)),
            Err(error) => Err(format!("{path}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests;
