//! Reading, creating and patching a Knative Service.

use http::{Method, StatusCode};
use serde_json::Value;
use tokio::time::Instant;

use super::exchange::{Call, Reply};
use super::{ATTEMPT, Cluster, FIELD_MANAGER};
use crate::deploy::Service;
use crate::trace::TraceContext;

/// Why a Service was not read or written, in words for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// Somebody else was faster; read it again.
    #[error("somebody else has changed the Service at the same moment")]
    Conflict,
    /// The API server does not answer, or not now.
    #[error("the API server does not answer: {0}")]
    Unavailable(String),
    /// The Role lacks a verb.
    #[error(
        "no right to {verb} services.serving.knative.dev in the namespace {namespace}: give the Role of this service \
             account the verb {verb} ({message})"
    )]
    Forbidden {
        /// The verb.
        verb: &'static str,
        /// The namespace.
        namespace: String,
        /// What the API server says.
        message: String,
    },
    /// There is no such namespace, or no Knative.
    #[error("{0}")]
    Missing(String),
    /// Knative's webhook, or the API server, does not take it.
    #[error("the Service is refused: {0}")]
    Invalid(String),
}

impl Cluster {
    /// Reads a Service; nothing if there is none.
    ///
    /// # Errors
    /// When that is not known.
    pub async fn service(
        &self,
        namespace: &str,
        name: &str,
        trace: Option<&TraceContext>,
    ) -> Result<Option<Service>, ServiceError> {
        let reply = self.ask(Method::GET, &uri(namespace, Some(name)), "", Vec::new(), trace).await?;
        if reply.status == StatusCode::NOT_FOUND && reply.failure().0 == "NotFound" {
            return Ok(None);
        }
        read(reply, "get", namespace).map(Some)
    }

    /// Creates a Service.
    ///
    /// # Errors
    /// When it was not created; [`ServiceError::Conflict`] when it exists.
    pub async fn create_service(
        &self,
        namespace: &str,
        service: &Value,
        trace: Option<&TraceContext>,
    ) -> Result<Service, ServiceError> {
        let uri = uri(namespace, None);
        let reply = self.ask(Method::POST, &uri, "application/json", service.to_string().into_bytes(), trace).await?;
        read(reply, "create", namespace)
    }

    /// Changes a Service by a JSON merge patch.
    ///
    /// # Errors
    /// When it was not changed; [`ServiceError::Conflict`] when it is not the version that the patch was made for.
    pub async fn patch_service(
        &self,
        namespace: &str,
        name: &str,
        patch: &Value,
        trace: Option<&TraceContext>,
    ) -> Result<Service, ServiceError> {
        let uri = uri(namespace, Some(name));
        let format = "application/merge-patch+json";
        let reply = self.ask(Method::PATCH, &uri, format, patch.to_string().into_bytes(), trace).await?;
        read(reply, "patch", namespace)
    }

    async fn ask(
        &self,
        method: Method,
        uri: &str,
        content_type: &'static str,
        body: Vec<u8>,
        trace: Option<&TraceContext>,
    ) -> Result<Reply, ServiceError> {
        let call = Call { method, uri, content_type, body, trace };
        self.api.send(call, Instant::now() + ATTEMPT).await.map_err(ServiceError::Unavailable)
    }
}

fn uri(namespace: &str, name: Option<&str>) -> String {
    let services = format!("/apis/serving.knative.dev/v1/namespaces/{namespace}/services");
    match name {
        Some(name) => format!("{services}/{name}?fieldValidation=Strict&fieldManager={FIELD_MANAGER}"),
        None => format!("{services}?fieldValidation=Strict&fieldManager={FIELD_MANAGER}"),
    }
}

fn read(reply: Reply, verb: &'static str, namespace: &str) -> Result<Service, ServiceError> {
    if reply.status.is_success() {
        return serde_json::from_slice(&reply.body)
            .map_err(|error| ServiceError::Invalid(format!("the API server's answer cannot be read: {error}")));
    }
    let (reason, message) = reply.failure();
    let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
    Err(match reply.status {
        StatusCode::CONFLICT => ServiceError::Conflict,
        // An admission webhook may answer 403, too, and says so.
        StatusCode::FORBIDDEN if !message.contains("admission webhook") => {
            ServiceError::Forbidden { verb, namespace: namespace.to_owned(), message }
        }
        StatusCode::NOT_FOUND if reason == "NotFound" && message.contains("namespaces") => {
            ServiceError::Missing(format!("the namespace {namespace} does not exist"))
        }
        StatusCode::NOT_FOUND if reason == "NotFound" => ServiceError::Conflict,
        StatusCode::NOT_FOUND => ServiceError::Missing(
            "the API server knows no services.serving.knative.dev/v1: is Knative Serving installed?".to_owned(),
        ),
        StatusCode::UNAUTHORIZED => ServiceError::Invalid(format!("the credentials are not taken (401 {message})")),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ServiceError::Unavailable(message),
        status if status.is_server_error() => ServiceError::Unavailable(format!("{} {message}", status.as_u16())),
        _ => ServiceError::Invalid(message),
    })
}
