//! Why a call of GitHub's API failed.

use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::credential::CredentialError;
use crate::remote::RemoteError;

/// Longest part of GitHub's message that an error quotes, in characters.
pub(super) const MAX_QUOTED: usize = 300;

/// Why a call failed: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The credential cannot be used.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// No answer.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// 5xx, until the end of our patience.
    #[error("GitHub failed with {0}; try again later")]
    Server(StatusCode),
    /// A rate limit that lasts longer than our patience.
    #[error("GitHub's rate limit is used up for {} s more; try again then", .0.as_secs())]
    RateLimit(Duration),
    /// 401.
    #[error("GitHub does not accept the credential in {file}: {message}; is it expired or revoked?")]
    Unauthorized {
        /// The credential's file.
        file: String,
        /// GitHub's sentence.
        message: String,
    },
    /// 403.
    #[error("GitHub forbids {what}: {message}; {advice}")]
    Forbidden {
        /// What was tried.
        what: String,
        /// GitHub's sentence.
        message: String,
        /// What to do.
        advice: String,
    },
    /// 404: GitHub says the same of what does not exist and of what one may not see.
    #[error("GitHub does not know {what}, or the credential in {file} may not see it (it needs {permission})")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The credential's file.
        file: String,
        /// The permission.
        permission: &'static str,
    },
    /// The App is not installed on the repository or organisation.
    #[error("the App {id} is not installed on {owner}; install it there, on the App's page on GitHub")]
    NotInstalled {
        /// The App.
        id: String,
        /// The repository or organisation.
        owner: String,
    },
    /// A redirect to another host, or without end.
    #[error(
        "GitHub redirects to {0}, where no credential is sent; give that address with --github-api-url if it is right"
    )]
    Redirect(String),
    /// A success that is not an answer of GitHub's API.
    #[error(
        "{0} does not answer like GitHub's API; is the address right? (GitHub Enterprise Server: https://HOST/api/v3)"
    )]
    NotGitHub(String),
    /// Any other refusal.
    #[error("GitHub refuses {what} with {status}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// The status.
        status: StatusCode,
        /// GitHub's sentence.
        message: String,
    },
}

impl ApiError {
    /// Whether GitHub is away, so that the same call may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Server(_) | Self::RateLimit(_) => true,
            Self::Remote(error) => error.is_temporary(),
            _ => false,
        }
    }
}

impl ApiError {
    /// Whether it says something about the object that was asked for, and nothing about GitHub as a whole.
    pub(crate) fn is_of_one_object(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. }
                | Self::Refused { .. }
                | Self::Forbidden { .. }
                | Self::Server(_)
                | Self::NotGitHub(_)
        )
    }
}

/// What to do about a 403 with this sentence of GitHub's: most are about a permission, and some are not.
pub(super) fn advice(message: &str, file: &str, permission: &str) -> String {
    let says = |word: &str| message.to_ascii_lowercase().contains(word);
    if says("saml") || says("single sign") {
        return format!("authorise the token in {file} for the organisation (single sign-on), on its page on GitHub");
    }
    if says("ip allow list") || says("ip address") {
        return "add the address that requests come from to the organisation's IP allow list".to_owned();
    }
    if says("suspended") {
        return "let an owner lift the suspension of the App's installation".to_owned();
    }
    format!("the credential in {file} needs {permission}")
}

/// GitHub's sentence, with what is wrong about each field.
pub(super) fn message(body: &Value) -> String {
    let mut text = body["message"].as_str().unwrap_or("no message").to_owned();
    for error in body["errors"].as_array().into_iter().flatten().take(3) {
        let detail = error["message"].as_str().or(error.as_str()).map(str::to_owned);
        let detail = detail.unwrap_or_else(|| format!("{} {}", error["field"], error["code"]));
        text.push_str(&format!("; {detail}"));
    }
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_QUOTED).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_403_is_not_always_about_a_permission() {
        for (message, what) in [
            ("Resource not accessible by integration", "needs the permission"),
            ("Resource protected by organization SAML enforcement.", "single sign-on"),
            ("The organization has an IP allow list enabled, and your IP address is not permitted", "IP allow list"),
            ("This installation has been suspended", "suspension"),
        ] {
            let advice = advice(message, "/github/token", "the permission `x`");
            assert!(advice.contains(what), "{message}: {advice}");
        }
    }

    #[test]
    fn quotes_githubs_sentence_and_fields() {
        let body = json!({"message": "Validation Failed", "errors": [{"field": "state", "code": "invalid"}, {"message": "No\ncommit"}]});
        assert_eq!(message(&body), "Validation Failed; \"state\" \"invalid\"; No commit");
        assert_eq!(message(&Value::Null), "no message");
    }
}
