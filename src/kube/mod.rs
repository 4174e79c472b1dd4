//! The Kubernetes API: creating runs, reading and writing Knative Services, and the keys of service account tokens.

mod client;
mod error;
mod knative_service;
mod pipeline_run;
mod token_issuer;

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::time::{Instant, sleep};

pub(crate) use client::ConfigError;
use client::{ApiClient, CALL_TIMEOUT, Call};
pub(crate) use error::{ApiError, ApiErrorKind};
pub(crate) use pipeline_run::{Creation, advice};
pub(crate) use token_issuer::TokenIssuer;

use crate::telemetry::metrics::Registry;

/// Name of this program in an object's `managedFields`.
const FIELD_MANAGER: &str = "github-trigger";
/// Pause before a read is tried again.
const READ_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// A Kubernetes API server and our credentials for it; cheap to clone.
#[derive(Clone)]
pub(crate) struct Cluster {
    api: ApiClient,
}

impl Cluster {
    /// Reads the kubeconfig or the pod's service account; nothing is sent yet. The number of calls is counted in
    /// `registry`.
    ///
    /// Returns the cluster and the namespace that the configuration names.
    /// Fails when there is no configuration, or it cannot be used.
    pub(crate) async fn connect(registry: &Registry) -> Result<(Self, String), ConfigError> {
        let (api, namespace) = ApiClient::connect(registry).await?;
        Ok((Self { api }, namespace))
    }

    /// Reads an object or a list by its path; `None` if there is none. Failures that may pass are tried again.
    /// Fails when it cannot be read.
    pub(crate) async fn read(&self, path: &str) -> Result<Option<Value>, ApiError> {
        let until = Instant::now() + CALL_TIMEOUT;
        loop {
            let call =
                Call { method: Method::GET, uri: path.to_owned(), content_type: "", body: Bytes::new(), trace: None };
            let error = match self.api.send(call, until).await {
                Ok(body) => return Ok(Some(serde_json::from_slice(&body)?)),
                Err(error) if error.kind() == ApiErrorKind::NotFound => return Ok(None),
                Err(error) => error,
            };
            let pause = error.retry_after().unwrap_or(READ_RETRY_INTERVAL);
            if !error.kind().is_temporary() || Instant::now() + pause >= until {
                return Err(error);
            }
            sleep(pause).await;
        }
    }

    /// The cluster as the issuer of service account tokens. `name` is the issuer's name in tokens where it differs from
    /// the one that the cluster announces.
    pub(crate) fn token_issuer(&self, name: Option<String>) -> TokenIssuer {
        TokenIssuer::new(self.api.clone(), name)
    }

    /// Opens the first connection, so that the first delivery does not wait for a handshake.
    pub(crate) async fn open_connection(&self) {
        self.api.open_connection().await;
    }
}
