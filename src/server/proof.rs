//! Which proof a delivery needs, and whether it has it.

use http::HeaderMap;
use tokio::time::Instant;

use super::App;
use super::answer::Answer;
use crate::cluster::Issuer;
use crate::delivery::token::{BearerToken, TokenError, TokenPolicy};
use crate::delivery::{Credential, Envelope, NetworkTrust, Unproven, Unverified, Verified, precheck};

/// How a CloudEvent proves itself. A webhook needs its signature in every case.
pub enum CloudEventsAuth {
    /// By a signature over its body, as a webhook does.
    Hmac,
    /// By a token of the cluster.
    Oidc {
        /// Whose tokens are enough.
        policy: TokenPolicy,
        /// Who has the keys to check them.
        issuer: Box<Issuer>,
    },
    /// By being able to reach this service.
    None(NetworkTrust),
}

/// Looks at the headers alone: nobody's body is taken into memory who does not even claim to be proven, and what needs
/// no body is checked without it.
///
/// Returns what stands for the delivery; nothing if that is the signature over its body.
pub(super) async fn before_body(
    app: &App,
    headers: &HeaderMap,
    envelope: Envelope,
    until: Instant,
) -> Result<Option<Credential>, Answer> {
    match &app.cloud_events {
        CloudEventsAuth::Oidc { policy, issuer } if envelope.is_cloud_event() => {
            let token = BearerToken::of(headers).map_err(|error| refused_token(&error))?;
            let keys = issuer.keys_for(&token, until).await;
            let keys = keys
                .map_err(|error| Answer::unavailable("tokens cannot be verified now", error.to_string(), Vec::new()))?;
            let proof = token.verify(policy, &keys).map_err(|error| refused_token(&error))?;
            Ok(Some(Credential::Token(proof)))
        }
        CloudEventsAuth::None(trust) if envelope.is_cloud_event() => Ok(Some(Credential::Network(*trust))),
        _ => precheck(headers, app.signatures).map(|()| None).map_err(|unproven| refused_signature(&unproven)),
    }
}

/// Proves a delivery by its credential, or by the secrets that are mounted now: a rotation is noticed at the first
/// delivery that needs it.
pub(super) fn verify(app: &App, unverified: Unverified, credential: Option<Credential>) -> Result<Verified, Answer> {
    if let Some(credential) = credential {
        return unverified.accept(&credential).map_err(|failed| refused_signature(&failed.why));
    }
    let failed = match unverified.verify(app.secrets.current().iter(), app.signatures) {
        Ok((verified, _proof)) => return Ok(verified),
        Err(failed) => failed,
    };
    if !matches!(failed.why, Unproven::Mismatch(_)) || !app.secrets.refresh() {
        return Err(refused_signature(&failed.why));
    }
    let again = failed.unverified.verify(app.secrets.current().iter(), app.signatures);
    again.map(|(verified, _proof)| verified).map_err(|failed| refused_signature(&failed.why))
}

fn refused_signature(unproven: &Unproven) -> Answer {
    Answer::rejected("signature", unproven.to_string())
}

/// As Knative's own receivers answer: 401 for no good token, 403 for a good one of somebody else.
fn refused_token(error: &TokenError) -> Answer {
    match error {
        TokenError::Subject(_) => Answer::forbidden(error.to_string()),
        _ => Answer::rejected("token", error.to_string()),
    }
}
