//! The table of answers: each reason with its outcome, HTTP status, log level and message for the sender.

use http::StatusCode;
use serde::Serialize;
use tracing::Level;

use crate::delivery::DecodeError;
use crate::kube::ApiErrorKind;

/// Seconds after which a sender may try again (`Retry-After` of every 503); an API server restarts in less.
pub(super) const RETRY_AFTER_SECONDS: u16 = 5;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $outcome:ident = $name:literal,)+) => {
        /// The result of a delivery: a closed set of words, the same in answers, logs, metrics and spans.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "lowercase")]
        pub(super) enum Outcome {
            $($(#[$doc])* $outcome,)+
        }

        impl Outcome {
            /// Every outcome.
            pub(super) const ALL: &[Self] = &[$(Self::$outcome,)+];

            /// The word.
            pub(super) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$outcome => $name,)+
                }
            }
        }
    };
}

outcomes! {
    /// At least one run was created, and every run of this delivery exists.
    Created = "created",
    /// Every run of this delivery existed before.
    Duplicate = "duplicate",
    /// The delivery needs no run.
    Ignored = "ignored",
    /// GitHub's ping.
    Pong = "pong",
    /// Not authenticated.
    Rejected = "rejected",
    /// Not a request that this service takes.
    Refused = "refused",
    /// Authenticated, but not an event.
    Malformed = "malformed",
    /// Authenticated, but no valid run can be made of it.
    Invalid = "invalid",
    /// Not now; the same delivery may be sent again.
    Unavailable = "unavailable",
}

macro_rules! reasons {
    ($($reason:ident = $code:literal, $outcome:ident, $status:literal, $level:ident, $message:literal;)+) => {
        /// Why a delivery got its answer. Everything else about the answer follows from it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Reason {
            $($reason,)+
        }

        impl Reason {
            /// Every reason.
            pub(super) const ALL: &[Self] = &[$(Self::$reason,)+];

            /// The machine's code, the same in answers, logs, metrics and spans.
            pub(super) fn code(self) -> &'static str {
                match self {
                    $(Self::$reason => $code,)+
                }
            }

            /// The outcome.
            pub(super) fn outcome(self) -> Outcome {
                match self {
                    $(Self::$reason => Outcome::$outcome,)+
                }
            }

            /// HTTP status as a number.
            fn status_code(self) -> u16 {
                match self {
                    $(Self::$reason => $status,)+
                }
            }

            /// HTTP status as a label.
            pub(super) fn status_label(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($status),)+
                }
            }

            /// Level of the log line: ERROR for what an operator must repair, WARN for failed senders.
            pub(super) fn level(self) -> Level {
                match self {
                    $(Self::$reason => Level::$level,)+
                }
            }

            /// Message for the sender, unless the answer has a more precise one; empty for a success.
            pub(super) fn message(self) -> &'static str {
                match self {
                    $(Self::$reason => $message,)+
                }
            }
        }
    };
}

reasons! {
    // reason, code, outcome, status, log level, message for the sender
    Created = "created", Created, 201, INFO, "";
    Existed = "existed", Duplicate, 200, INFO, "";
    Ping = "ping", Pong, 200, INFO, "";
    NotAMerge = "not_a_merge", Ignored, 200, INFO, "not a merged pull request";
    NoTemplate = "no_template", Ignored, 200, INFO, "no template matches";
    UnknownRepository = "unknown_repository", Ignored, 200, WARN, "no template is for this repository";
    Deletion = "deletion", Ignored, 200, INFO, "a branch or tag was deleted, so that there is nothing to build";
    TooOld = "too_old", Ignored, 200, WARN, "the merge is older than --max-merge-age";
    ForeignEvent = "foreign_event", Ignored, 200, INFO, "not an event of GitHub";
    Signature = "signature", Rejected, 401, WARN, "the signature is missing, malformed or wrong";
    Token = "token", Rejected, 401, WARN, "the bearer token is missing, malformed or wrong";
    Subject = "subject", Rejected, 403, WARN, "the token's subject may not send events here";
    Path = "path", Refused, 404, WARN, "deliveries go to /";
    EventPath = "event_path", Refused, 400, WARN, "events go to /";
    Method = "method", Refused, 405, WARN, "deliveries are sent with POST";
    TooLarge = "too_large", Refused, 413, WARN, "the body is too large";
    MediaType = "media_type", Refused, 415, WARN, "the media type is not supported";
    Truncated = "truncated", Malformed, 400, WARN, "the body ended before it was complete";
    Envelope = "envelope", Malformed, 400, WARN, "a required header or attribute is missing or malformed";
    Payload = "payload", Malformed, 400, WARN, "the payload is not a GitHub event";
    Template = "template", Invalid, 422, ERROR, "no valid PipelineRun can be made of this event; the service's log says why";
    Object = "object", Invalid, 422, ERROR, "no valid PipelineRun can be made of this event; the service's log says why";
    AdmissionDenied = "admission_denied", Invalid, 422, ERROR, "the cluster's admission denied the PipelineRun; the service's log says why";
    ObjectTooLarge = "object_too_large", Invalid, 422, ERROR, "the PipelineRun is larger than the cluster stores; the service's log says more";
    Deadline = "deadline", Unavailable, 503, ERROR, "the deadline passed before the work was done; send the delivery again";
    Busy = "busy", Unavailable, 503, ERROR, "too many deliveries at the same time; send it again";
    Stopping = "stopping", Unavailable, 503, ERROR, "the service is stopping; send the delivery again";
    Forbidden = "forbidden", Unavailable, 503, ERROR, "not every PipelineRun could be created; send the delivery again";
    QuotaExceeded = "quota_exceeded", Unavailable, 503, ERROR, "not every PipelineRun could be created; send the delivery again";
    Namespace = "namespace", Unavailable, 503, ERROR, "not every PipelineRun could be created; send the delivery again";
    NotInstalled = "not_installed", Unavailable, 503, ERROR, "not every PipelineRun could be created; send the delivery again";
    Unauthorized = "unauthorized", Unavailable, 503, ERROR, "not every PipelineRun could be created; send the delivery again";
    BeingDeleted = "being_deleted", Unavailable, 503, ERROR, "not every PipelineRun could be created; send the delivery again";
    ApiServer = "api_server", Unavailable, 503, ERROR, "not every PipelineRun could be created; send the delivery again";
    NoSecret = "no_secret", Unavailable, 503, ERROR, "no usable webhook secret is mounted; send the delivery again when one is";
    Team = "team", Unavailable, 503, WARN, "the team's configuration is not valid; send the delivery again when it is";
    Keys = "keys", Unavailable, 503, ERROR, "tokens cannot be verified now; send the event again";
    Output = "output", Unavailable, 503, ERROR, "the run cannot be printed; send the delivery again";
    Defect = "defect", Unavailable, 503, ERROR, "internal error; send the delivery again";
}

impl Reason {
    /// The HTTP status.
    pub(super) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.status_code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Whether the sender was authenticated before this reason was found.
    pub(super) fn is_authenticated(self) -> bool {
        !matches!(self.outcome(), Outcome::Rejected | Outcome::Refused)
    }
}

impl From<&DecodeError> for Reason {
    fn from(error: &DecodeError) -> Self {
        match error {
            DecodeError::DataType => Self::MediaType,
            DecodeError::Foreign(_) => Self::ForeignEvent,
            DecodeError::Malformed(_) => Self::Envelope,
        }
    }
}

impl From<ApiErrorKind> for Reason {
    fn from(kind: ApiErrorKind) -> Self {
        match kind {
            ApiErrorKind::AlreadyExists => Self::Existed,
            ApiErrorKind::BeingDeleted => Self::BeingDeleted,
            ApiErrorKind::Forbidden => Self::Forbidden,
            ApiErrorKind::QuotaExceeded => Self::QuotaExceeded,
            ApiErrorKind::NamespaceTerminating | ApiErrorKind::NamespaceNotFound => Self::Namespace,
            ApiErrorKind::NotInstalled => Self::NotInstalled,
            ApiErrorKind::Unauthorized => Self::Unauthorized,
            ApiErrorKind::AdmissionDenied => Self::AdmissionDenied,
            ApiErrorKind::Invalid => Self::Object,
            ApiErrorKind::TooLarge => Self::ObjectTooLarge,
            ApiErrorKind::Conflict
            | ApiErrorKind::NotFound
            | ApiErrorKind::Throttled
            | ApiErrorKind::ServerError
            | ApiErrorKind::Timeout
            | ApiErrorKind::Transport => Self::ApiServer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_each_reason_a_code_of_its_own_and_a_valid_status() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            let first = Reason::ALL.iter().position(|other| other.code() == reason.code());
            assert_eq!(first, Some(index), "{reason:?}");
            assert_eq!(reason.status().as_str(), reason.status_label(), "{reason:?}");
        }
    }

    #[test]
    fn gives_each_outcome_its_statuses() {
        for reason in Reason::ALL {
            let statuses: &[u16] = match reason.outcome() {
                Outcome::Created => &[201],
                Outcome::Duplicate | Outcome::Ignored | Outcome::Pong => &[200],
                Outcome::Rejected => &[401, 403],
                Outcome::Refused => &[400, 404, 405, 413, 415],
                Outcome::Malformed => &[400],
                Outcome::Invalid => &[422],
                Outcome::Unavailable => &[503],
            };
            assert!(statuses.contains(&reason.status_code()), "{reason:?}");
            assert_eq!(reason.message().is_empty(), matches!(reason, Reason::Created | Reason::Existed | Reason::Ping));
        }
    }

    #[test]
    fn logs_an_error_exactly_for_what_an_operator_must_repair() {
        for reason in Reason::ALL {
            // A merge that old is a replay, or was lost for days; one in an unknown repository may have been renamed. A
            // team's faults have an ERROR line of their own, however many deliveries they refuse.
            if matches!(reason, Reason::TooOld | Reason::UnknownRepository | Reason::Team) {
                assert_eq!(reason.level(), Level::WARN);
                continue;
            }
            let expected = match reason.outcome() {
                Outcome::Created | Outcome::Duplicate | Outcome::Ignored | Outcome::Pong => Level::INFO,
                Outcome::Rejected | Outcome::Refused | Outcome::Malformed => Level::WARN,
                Outcome::Invalid | Outcome::Unavailable => Level::ERROR,
            };
            assert_eq!(reason.level(), expected, "{reason:?}");
        }
    }

    #[test]
    fn answers_a_refused_object_with_422_and_a_refused_create_with_503() {
        for kind in ApiErrorKind::ALL {
            let status = match kind {
                ApiErrorKind::AlreadyExists => 200,
                ApiErrorKind::AdmissionDenied | ApiErrorKind::Invalid | ApiErrorKind::TooLarge => 422,
                _ => 503,
            };
            assert_eq!(Reason::from(*kind).status().as_u16(), status, "{kind:?}");
        }
    }
}
