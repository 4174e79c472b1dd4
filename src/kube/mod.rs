//! The Kubernetes API: creating runs, reading and writing Knative Services, and the keys of service account tokens.

mod client;
mod error;
mod knative_service;
mod pipeline_run;
mod token_issuer;

use std::time::Duration;

use client::ApiClient;
pub(crate) use client::ConfigError;
pub(crate) use error::{ApiError, ApiErrorKind};
pub(crate) use pipeline_run::{Creation, advice};
pub(crate) use token_issuer::TokenIssuer;

use crate::telemetry::metrics::Registry;

/// Name of this program in an object's `managedFields`.
const FIELD_MANAGER: &str = "github-trigger";
/// Timeout of one call that no delivery waits for.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

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
