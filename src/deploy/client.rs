//! The API of one Service, which the rollout works with.

use std::error::Error;

use serde_json::Value;

use super::service::Service;

/// Reads and writes one Knative Service.
pub(crate) trait ServiceClient {
    /// Reads the Service; `None` if it does not exist.
    async fn read(&self) -> Result<Option<Service>, ServiceError>;

    /// Creates the Service.
    async fn create(&self, service: &Value) -> Result<Service, ServiceError>;

    /// Applies a JSON merge patch, which holds the `resourceVersion` that it is for.
    async fn patch(&self, patch: &Value) -> Result<Service, ServiceError>;
}

/// Why a Service was not read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    /// The Service has changed since it was read; read it again.
    #[error("the Service was changed at the same moment")]
    Conflict,
    /// The API server does not answer, or asks for a later try.
    #[error("the API server does not answer: {0}")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The API server refuses the request for good.
    #[error("{message}")]
    Refused {
        /// The refusal and what to do.
        message: String,
        /// The API server's answer.
        source: Box<dyn Error + Send + Sync>,
    },
}
