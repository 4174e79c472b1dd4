//! Reading, creating and patching one Knative Service, for the Deployer.

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::time::Instant;

use super::client::{CALL_TIMEOUT, Call};
use super::error::{ApiError, ApiErrorKind};
use super::{Cluster, FIELD_MANAGER};
use crate::deploy::{Service, ServiceClient, ServiceError};
use crate::telemetry::trace::TraceContext;

/// One Knative Service in a cluster.
pub(crate) struct KnativeService {
    cluster: Cluster,
    namespace: String,
    name: String,
    trace: Option<TraceContext>,
}

impl Cluster {
    /// The Service `name` of `namespace`, which need not exist. Calls continue `trace`.
    pub(crate) fn knative_service(&self, namespace: &str, name: &str, trace: Option<TraceContext>) -> KnativeService {
        KnativeService { cluster: self.clone(), namespace: namespace.to_owned(), name: name.to_owned(), trace }
    }
}

impl ServiceClient for KnativeService {
    async fn read(&self) -> Result<Option<Service>, ServiceError> {
        match self.call(Method::GET, true, "", Bytes::new()).await {
            Err(error) if error.kind() == ApiErrorKind::NotFound => Ok(None),
            answer => self.parse(answer, "get").map(Some),
        }
    }

    async fn create(&self, service: &Value) -> Result<Service, ServiceError> {
        let body = Bytes::from(service.to_string());
        self.parse(self.call(Method::POST, false, "application/json", body).await, "create")
    }

    async fn patch(&self, patch: &Value) -> Result<Service, ServiceError> {
        let body = Bytes::from(patch.to_string());
        self.parse(self.call(Method::PATCH, true, "application/merge-patch+json", body).await, "patch")
    }
}

impl KnativeService {
    async fn call(
        &self,
        method: Method,
        named: bool,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Bytes, ApiError> {
        let name = if named { format!("/{}", self.name) } else { String::new() };
        let uri = format!(
            "/apis/serving.knative.dev/v1/namespaces/{}/services{name}?fieldValidation=Strict&fieldManager={FIELD_MANAGER}",
            self.namespace
        );
        let call = Call { method, uri, content_type, body, trace: self.trace.as_ref() };
        self.cluster.api.send(call, Instant::now() + CALL_TIMEOUT).await
    }

    fn parse(&self, answer: Result<Bytes, ApiError>, verb: &str) -> Result<Service, ServiceError> {
        let error = match answer {
            Ok(body) => return serde_json::from_slice(&body).map_err(|error| refused(error.into(), "")),
            Err(error) => error,
        };
        let namespace = &self.namespace;
        Err(match error.kind() {
            // The Service was created, changed or deleted since it was read: reading it again decides.
            ApiErrorKind::AlreadyExists | ApiErrorKind::Conflict | ApiErrorKind::NotFound => ServiceError::Conflict,
            kind if kind.is_temporary() => ServiceError::Unavailable(Box::new(error)),
            ApiErrorKind::Forbidden => refused(
                error,
                &format!(
                    "no right to {verb} services.serving.knative.dev in the namespace {namespace}: give the Role of this \
                     service account the verb {verb}: "
                ),
            ),
            ApiErrorKind::NamespaceNotFound => refused(error, &format!("the namespace {namespace} does not exist: ")),
            ApiErrorKind::NotInstalled => refused(
                error,
                "the API server serves no services.serving.knative.dev/v1; is Knative Serving installed? ",
            ),
            ApiErrorKind::Unauthorized => refused(error, "the API server does not accept the credentials: "),
            _ => refused(error, "the API server refuses the Service: "),
        })
    }
}

fn refused(error: ApiError, context: &str) -> ServiceError {
    ServiceError::Refused { message: format!("{context}{error}"), source: Box::new(error) }
}
