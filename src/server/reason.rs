//! Why a delivery was answered as it was: the closed set that metrics count by. The words for people are the answer's.

use http::StatusCode;

use super::answer::Outcome;
use crate::delivery::Unproven;
use crate::delivery::token::TokenError;

/// Why, in one word; status and outcome follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A run was created.
    Created,
    /// Every run existed.
    Existed,
    /// GitHub's ping.
    Ping,
    /// Not a closed and merged pull request, and no template wants anything else.
    NotAMerge,
    /// No template matches.
    NoTemplate,
    /// A CloudEvent that is not GitHub's.
    ForeignEvent,
    /// No signature.
    SignatureMissing,
    /// A signature that is none.
    SignatureMalformed,
    /// A signature of none of the secrets.
    SignatureMismatch,
    /// SHA-1 where SHA-256 is required.
    Sha1Only,
    /// No token.
    TokenMissing,
    /// A token that is none.
    TokenMalformed,
    /// A key that the issuer does not have.
    TokenKey,
    /// Signature, issuer, audience or time of a token.
    TokenInvalid,
    /// A token of somebody else.
    Subject,
    /// Another path.
    Path,
    /// Another method.
    Method,
    /// Too many bytes.
    TooLarge,
    /// A body that nobody here can read.
    MediaType,
    /// The body ended early.
    Truncated,
    /// Required headers or attributes.
    Envelope,
    /// The payload.
    Payload,
    /// A template that cannot be rendered with this event.
    Template,
    /// An object that the API server refuses.
    Object,
    /// Out of time.
    Deadline,
    /// Too much in flight.
    Busy,
    /// The service is stopping.
    Stopping,
    /// The API server.
    ApiServer,
    /// The keys of tokens are not known.
    Keys,
    /// A defect of this program.
    Defect,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 30] = [
        Self::Created,
        Self::Existed,
        Self::Ping,
        Self::NotAMerge,
        Self::NoTemplate,
        Self::ForeignEvent,
        Self::SignatureMissing,
        Self::SignatureMalformed,
        Self::SignatureMismatch,
        Self::Sha1Only,
        Self::TokenMissing,
        Self::TokenMalformed,
        Self::TokenKey,
        Self::TokenInvalid,
        Self::Subject,
        Self::Path,
        Self::Method,
        Self::TooLarge,
        Self::MediaType,
        Self::Truncated,
        Self::Envelope,
        Self::Payload,
        Self::Template,
        Self::Object,
        Self::Deadline,
        Self::Busy,
        Self::Stopping,
        Self::ApiServer,
        Self::Keys,
        Self::Defect,
    ];

    /// Every status, as number and as text.
    pub fn statuses() -> Vec<(u16, &'static str)> {
        let statuses = [
            (200, "200"),
            (201, "201"),
            (400, "400"),
            (401, "401"),
            (403, "403"),
            (404, "404"),
            (405, "405"),
            (413, "413"),
            (415, "415"),
            (422, "422"),
            (503, "503"),
        ];
        statuses.to_vec()
    }

    /// What became of the delivery.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Created => Outcome::Created,
            Self::Existed => Outcome::Duplicate,
            Self::Ping => Outcome::Pong,
            Self::NotAMerge | Self::NoTemplate | Self::ForeignEvent => Outcome::Ignored,
            Self::SignatureMissing | Self::SignatureMalformed | Self::SignatureMismatch | Self::Sha1Only => {
                Outcome::Rejected
            }
            Self::TokenMissing | Self::TokenMalformed | Self::TokenKey | Self::TokenInvalid | Self::Subject => {
                Outcome::Rejected
            }
            Self::Path | Self::Method | Self::TooLarge | Self::MediaType => Outcome::Refused,
            Self::Truncated | Self::Envelope | Self::Payload => Outcome::Malformed,
            Self::Template | Self::Object => Outcome::Invalid,
            Self::Deadline | Self::Busy | Self::Stopping | Self::ApiServer | Self::Keys | Self::Defect => {
                Outcome::Unavailable
            }
        }
    }

    /// The HTTP status.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Subject => StatusCode::FORBIDDEN,
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => match self.outcome() {
                Outcome::Created => StatusCode::CREATED,
                Outcome::Duplicate | Outcome::Ignored | Outcome::Pong => StatusCode::OK,
                Outcome::Rejected => StatusCode::UNAUTHORIZED,
                Outcome::Refused | Outcome::Malformed => StatusCode::BAD_REQUEST,
                Outcome::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
                Outcome::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Existed => "existed",
            Self::Ping => "ping",
            Self::NotAMerge => "not_a_merge",
            Self::NoTemplate => "no_template",
            Self::ForeignEvent => "foreign_event",
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed => "signature_malformed",
            Self::SignatureMismatch => "signature_mismatch",
            Self::Sha1Only => "sha1_only",
            Self::TokenMissing => "token_missing",
            Self::TokenMalformed => "token_malformed",
            Self::TokenKey => "token_key",
            Self::TokenInvalid => "token_invalid",
            Self::Subject => "subject",
            Self::Path => "path",
            Self::Method => "method",
            Self::TooLarge => "too_large",
            Self::MediaType => "media_type",
            Self::Truncated => "truncated",
            Self::Envelope => "envelope",
            Self::Payload => "payload",
            Self::Template => "template",
            Self::Object => "object",
            Self::Deadline => "deadline",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::ApiServer => "api_server",
            Self::Keys => "keys",
            Self::Defect => "defect",
        }
    }
}

impl From<&Unproven> for Reason {
    fn from(unproven: &Unproven) -> Self {
        match unproven {
            Unproven::Missing => Self::SignatureMissing,
            Unproven::Sha1Only => Self::Sha1Only,
            Unproven::Malformed(_) => Self::SignatureMalformed,
            Unproven::Mismatch(_) => Self::SignatureMismatch,
        }
    }
}

impl From<&TokenError> for Reason {
    fn from(error: &TokenError) -> Self {
        match error {
            TokenError::Missing => Self::TokenMissing,
            TokenError::Malformed(_) => Self::TokenMalformed,
            TokenError::UnknownKey => Self::TokenKey,
            TokenError::Invalid(_) => Self::TokenInvalid,
            TokenError::Subject(_) => Self::Subject,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_status_that_is_counted_and_a_word_of_its_own() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            let status = reason.status();
            let text = Reason::statuses().into_iter().find(|(code, _)| *code == status.as_u16());
            assert_eq!(text.map(|(_, text)| text), Some(status.as_str()), "{reason:?}");
            let same = Reason::ALL.iter().position(|other| other.as_str() == reason.as_str());
            assert_eq!(same, Some(index), "{reason:?}");
        }
    }
}
