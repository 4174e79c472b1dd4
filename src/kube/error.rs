//! The meaning of an API server's failure, decided once for runs, Services and keys.
//!
//! Kubernetes says most of it in fields of its `Status`. It says some of it only in the message: that an object of the
//! same name is being deleted (`registry/generic/registry/store.go`), that a quota is exceeded
//! (`plugin/resourcequota/controller.go`), that a webhook or policy denied the request
//! (`plugin/webhook/errors/statuserror.go`, `plugin/policy/validating/plugin.go`), and that etcd takes no object of this
//! size.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use kube::core::Status;
use tower::BoxError;

/// An API server may ask for a longer pause; the clock must be able to hold it.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Characters of an answer that is not a `Status`, for the log.
const MAX_TEXT: usize = 200;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $code:literal,)+) => {
        /// The kind of a failure.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum ApiErrorKind {
            $($(#[$doc])* $kind,)+
        }

        impl ApiErrorKind {
            /// Every kind.
            pub(crate) const ALL: &[Self] = &[$(Self::$kind,)+];

            /// The kind's code in metrics.
            pub(crate) fn code(self) -> &'static str {
                match self {
                    $(Self::$kind => $code,)+
                }
            }
        }
    };
}

kinds! {
    /// An object of this name exists.
    AlreadyExists = "already_exists",
    /// An object of this name exists and is being deleted; the name is free when that is done.
    BeingDeleted = "being_deleted",
    /// The object was changed by another client since it was read.
    Conflict = "conflict",
    /// RBAC does not allow it.
    Forbidden = "forbidden",
    /// A `ResourceQuota` is exhausted.
    QuotaExceeded = "quota_exceeded",
    /// The namespace is being deleted.
    NamespaceTerminating = "namespace_terminating",
    /// The namespace does not exist.
    NamespaceNotFound = "namespace_not_found",
    /// The object does not exist.
    NotFound = "not_found",
    /// The API server does not serve this kind of object.
    NotInstalled = "not_installed",
    /// The credentials are not accepted.
    Unauthorized = "unauthorized",
    /// An admission webhook or policy denied the object.
    AdmissionDenied = "admission_denied",
    /// The object is not valid.
    Invalid = "invalid",
    /// The object is larger than the API server stores.
    TooLarge = "too_large",
    /// The API server limits requests (429).
    Throttled = "throttled",
    /// The API server failed (5xx), or something in front of it gave an answer that its API does not have.
    ServerError = "server_error",
    /// There was no answer in time.
    Timeout = "timeout",
    /// The request could not be sent, or its answer not be read.
    Transport = "transport",
}

/// A failed call of the API server.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ApiError {
    kind: ApiErrorKind,
    retry_after: Option<Duration>,
    #[source]
    source: Source,
}

#[derive(Debug, thiserror::Error)]
enum Source {
    #[error("{code} {message}", code = .0.code, message = .0.message.split_whitespace().collect::<Vec<_>>().join(" "))]
    Status(Box<Status>),
    #[error("{}", crate::telemetry::chain(.0))]
    Client(#[from] Box<kube::Error>),
    #[error("the answer cannot be read: {0}")]
    Body(#[source] BoxError),
    #[error("the answer cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error("no answer in time")]
    Timeout,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)
    }
}

impl ApiError {
    /// Reads an answer that is not a success.
    pub(super) fn from_answer(code: StatusCode, retry_after: Option<u64>, body: &[u8]) -> Self {
        let status = serde_json::from_slice(body).unwrap_or_else(|_| {
            // A proxy's page, or the plain 404 of an API group that is not served.
            let text: String = String::from_utf8_lossy(body).trim().chars().take(MAX_TEXT).collect();
            Status::failure(&text, "")
        });
        let status = status.with_code(code.as_u16());
        let asked = status.details.as_ref().map(|details| u64::from(details.retry_after_seconds));
        let retry_after = retry_after.or(asked).filter(|seconds| *seconds > 0);
        Self {
            kind: kind(code, &status),
            retry_after: retry_after.map(|seconds| Duration::from_secs(seconds).min(MAX_RETRY_AFTER)),
            source: Source::Status(status.boxed()),
        }
    }

    /// A success that is not the API server's: a page for people, or another object.
    pub(super) fn not_an_api_server(body: &[u8]) -> Self {
        let text: String = String::from_utf8_lossy(body).trim().chars().take(MAX_TEXT).collect();
        let message = format!("something else than the API server answers at its address: {text}");
        let status = Status::failure(&message, "").with_code(StatusCode::BAD_GATEWAY.as_u16());
        Self { kind: ApiErrorKind::ServerError, retry_after: None, source: Source::Status(status.boxed()) }
    }

    /// There was no answer in time.
    pub(super) fn timeout() -> Self {
        Self { kind: ApiErrorKind::Timeout, retry_after: None, source: Source::Timeout }
    }

    /// The answer's body broke off, or is longer than any answer that is read here.
    pub(super) fn body(error: BoxError) -> Self {
        Self { kind: ApiErrorKind::Transport, retry_after: None, source: Source::Body(error) }
    }

    /// The kind of the failure.
    pub(crate) fn kind(&self) -> ApiErrorKind {
        self.kind
    }

    /// The pause that the API server asks for before the next try.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        Self { kind: ApiErrorKind::Transport, retry_after: None, source: Box::new(error).into() }
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self { kind: ApiErrorKind::Transport, retry_after: None, source: error.into() }
    }
}

impl ApiErrorKind {
    /// Whether the same request may succeed a moment later.
    pub(crate) fn is_temporary(self) -> bool {
        match self {
            Self::BeingDeleted
            | Self::Conflict
            | Self::Throttled
            | Self::ServerError
            | Self::Timeout
            | Self::Transport => true,
            Self::AlreadyExists
            | Self::Forbidden
            | Self::QuotaExceeded
            | Self::NamespaceTerminating
            | Self::NamespaceNotFound
            | Self::NotFound
            | Self::NotInstalled
            | Self::Unauthorized
            | Self::AdmissionDenied
            | Self::Invalid
            | Self::TooLarge => false,
        }
    }
}

fn kind(code: StatusCode, status: &Status) -> ApiErrorKind {
    use ApiErrorKind as Kind;
    let message = status.message.as_str();
    let details = status.details.as_ref();
    let has_cause = |reason: &str| details.is_some_and(|details| details.causes.iter().any(|c| c.reason == reason));
    // Webhooks choose their status freely; the API server writes who denied it into the message.
    if is_admission_denial(message) {
        return Kind::AdmissionDenied;
    }
    match code {
        StatusCode::CONFLICT if status.reason == "AlreadyExists" && message.starts_with("object is being deleted") => {
            Kind::BeingDeleted
        }
        StatusCode::CONFLICT if status.reason == "AlreadyExists" => Kind::AlreadyExists,
        StatusCode::CONFLICT => Kind::Conflict,
        StatusCode::UNAUTHORIZED => Kind::Unauthorized,
        StatusCode::FORBIDDEN if has_cause("NamespaceTerminating") => Kind::NamespaceTerminating,
        StatusCode::FORBIDDEN if message.contains("exceeded quota: ") || message.contains("failed quota: ") => {
            Kind::QuotaExceeded
        }
        StatusCode::FORBIDDEN => Kind::Forbidden,
        StatusCode::NOT_FOUND if status.reason != "NotFound" => Kind::NotInstalled,
        StatusCode::NOT_FOUND => match details.map(|details| details.kind.as_str()) {
            Some("namespaces") => Kind::NamespaceNotFound,
            // A served kind names the object that is missing.
            Some(_) if details.is_some_and(|details| !details.name.is_empty()) => Kind::NotFound,
            _ => Kind::NotInstalled,
        },
        StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Kind::Invalid,
        StatusCode::TOO_MANY_REQUESTS => Kind::Throttled,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Kind::Timeout,
        code if code.is_server_error() && is_too_large_for_etcd(message) => Kind::TooLarge,
        _ => Kind::ServerError,
    }
}

/// etcd takes requests of some 1.5 MiB; its client in the API server refuses those of 2 MiB itself.
fn is_too_large_for_etcd(message: &str) -> bool {
    message.contains("etcdserver: request is too large") || message.contains("trying to send message larger than max")
}

fn is_admission_denial(message: &str) -> bool {
    let webhook = message.contains("admission webhook \"") && message.contains("\" denied the request");
    webhook || (message.contains("ValidatingAdmissionPolicy '") && message.contains("' denied request"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn error(code: u16, body: &Value) -> ApiError {
        ApiError::from_answer(StatusCode::from_u16(code).expect("a status"), None, body.to_string().as_bytes())
    }

    fn status(reason: &str, message: &str, details: &Value) -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message,
            "details": details})
    }

    #[test]
    fn reads_the_kind_from_the_answer() {
        let none = json!(null);
        let run = json!({"name": "a", "group": "tekton.dev", "kind": "pipelineruns"});
        let terminating = json!({"name": "a", "kind": "pipelineruns", "causes":
            [{"reason": "NamespaceTerminating", "message": "namespace ci is being terminated"}]});
        let namespace = json!({"name": "ci", "kind": "namespaces"});
        let denied = "admission webhook \"policy.example.com\" denied the request: no";
        let policy = "pipelineruns.tekton.dev \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no";
        for (code, reason, message, details, expected) in [
            (409, "AlreadyExists", "pipelineruns.tekton.dev \"a\" already exists", &run, ApiErrorKind::AlreadyExists),
            (
                409,
                "AlreadyExists",
                "object is being deleted: pipelineruns.tekton.dev \"a\" already exists",
                &run,
                ApiErrorKind::BeingDeleted,
            ),
            (409, "Conflict", "the object has been modified", &run, ApiErrorKind::Conflict),
            (401, "Unauthorized", "Unauthorized", &none, ApiErrorKind::Unauthorized),
            (403, "Forbidden", "User \"x\" cannot create resource", &run, ApiErrorKind::Forbidden),
            (
                403,
                "Forbidden",
                "is forbidden: exceeded quota: runs, requested: count=1",
                &run,
                ApiErrorKind::QuotaExceeded,
            ),
            (
                403,
                "Forbidden",
                "unable to create new content in namespace ci",
                &terminating,
                ApiErrorKind::NamespaceTerminating,
            ),
            (403, "Forbidden", denied, &none, ApiErrorKind::AdmissionDenied),
            (400, "", denied, &none, ApiErrorKind::AdmissionDenied),
            (503, "", denied, &none, ApiErrorKind::AdmissionDenied),
            (422, "Invalid", policy, &run, ApiErrorKind::AdmissionDenied),
            (404, "NotFound", "namespaces \"ci\" not found", &namespace, ApiErrorKind::NamespaceNotFound),
            (404, "NotFound", "services.serving.knative.dev \"a\" not found", &run, ApiErrorKind::NotFound),
            (
                404,
                "NotFound",
                "the server could not find the requested resource",
                &json!({}),
                ApiErrorKind::NotInstalled,
            ),
            (400, "BadRequest", "strict decoding error", &none, ApiErrorKind::Invalid),
            (422, "Invalid", "spec.x: Invalid value", &run, ApiErrorKind::Invalid),
            (413, "RequestEntityTooLarge", "limit is 3145728", &none, ApiErrorKind::TooLarge),
            (500, "InternalError", "rpc error: etcdserver: request is too large", &none, ApiErrorKind::TooLarge),
            (
                500,
                "InternalError",
                "rpc error: code = ResourceExhausted desc = trying to send message larger than max (2098245 vs. 2097152)",
                &none,
                ApiErrorKind::TooLarge,
            ),
            (500, "InternalError", "failed calling webhook \"x\"", &none, ApiErrorKind::ServerError),
            (429, "TooManyRequests", "slow down", &none, ApiErrorKind::Throttled),
            (504, "Timeout", "timed out", &none, ApiErrorKind::Timeout),
            (302, "", "Found", &none, ApiErrorKind::ServerError),
            (405, "MethodNotAllowed", "not allowed", &none, ApiErrorKind::ServerError),
        ] {
            assert_eq!(error(code, &status(reason, message, details)).kind(), expected, "{code} {reason} {message}");
        }
    }

    #[test]
    fn takes_answers_that_are_no_status() {
        let answer = |code, body: &str| {
            ApiError::from_answer(StatusCode::from_u16(code).expect("a status"), Some(7), body.as_bytes())
        };
        assert_eq!(answer(404, "404 page not found").kind(), ApiErrorKind::NotInstalled);
        let gateway = answer(502, &format!("<html>{}", "x".repeat(1000)));
        assert_eq!(gateway.kind(), ApiErrorKind::ServerError);
        assert!(gateway.to_string().len() < 220, "{gateway}");
        assert_eq!(gateway.retry_after(), Some(Duration::from_secs(7)));
    }

    #[test]
    fn takes_the_pause_from_header_or_details() {
        let details = json!({"retryAfterSeconds": 3});
        let asked = error(429, &status("TooManyRequests", "slow down", &details));
        assert_eq!(asked.retry_after(), Some(Duration::from_secs(3)));
        let at_once = ApiError::from_answer(StatusCode::SERVICE_UNAVAILABLE, Some(0), b"");
        assert_eq!(at_once.retry_after(), None, "our own backoff");
        let never = ApiError::from_answer(StatusCode::SERVICE_UNAVAILABLE, Some(u64::MAX), b"");
        assert_eq!(never.retry_after(), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn gives_each_kind_a_code_of_its_own() {
        for (index, kind) in ApiErrorKind::ALL.iter().enumerate() {
            let first = ApiErrorKind::ALL.iter().position(|other| other.code() == kind.code());
            assert_eq!(first, Some(index), "{kind:?}");
        }
    }
}
