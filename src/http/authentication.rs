//! The authentication of a delivery: which proof it needs, and whether it has it.

use http::HeaderMap;
use tokio::time::Instant;

use super::App;
use super::answer::Answer;
use super::outcome::Reason;
use crate::delivery::token::{BearerToken, TokenError, TokenPolicy};
use crate::delivery::{Credential, Envelope, NetworkTrust, SignatureError, Unverified, Verified, precheck};
use crate::kube::TokenIssuer;

/// The proof that a CloudEvent needs. A webhook needs its signature in every case.
pub(crate) enum CloudEventsAuth {
    /// A signature over its body, like a webhook's.
    Hmac,
    /// A token of the cluster.
    Oidc {
        /// Accepted audience and subjects.
        policy: TokenPolicy,
        /// The issuer's keys.
        issuer: Box<TokenIssuer>,
    },
    /// None: the network is trusted.
    None(NetworkTrust),
}

/// Checks the headers before the body is read: a body without the form of a proof takes no memory, and a token needs no
/// body.
///
/// Returns the credential of the delivery; `None` if its proof is the signature over its body.
pub(super) async fn check_headers(
    app: &App,
    headers: &HeaderMap,
    envelope: Envelope,
    until: Instant,
) -> Result<Option<Credential>, Answer> {
    match &app.config.cloud_events {
        CloudEventsAuth::Oidc { policy, issuer } if envelope.is_cloud_event() => {
            let rejected = |error: TokenError| {
                app.metrics.token(error.code());
                let reason = match error {
                    TokenError::Subject(_) => Reason::Subject,
                    _ => Reason::Token,
                };
                Answer::new(reason).with_detail(error)
            };
            let token = BearerToken::from_headers(headers).map_err(rejected)?;
            let keys = issuer.keys_for(&token, until).await;
            let keys = keys.map_err(|error| Answer::new(Reason::Keys).with_detail(error))?;
            let proof = token.verify(policy, &keys).map_err(rejected)?;
            app.metrics.token("ok");
            Ok(Some(Credential::Token(proof)))
        }
        CloudEventsAuth::None(trust) if envelope.is_cloud_event() => Ok(Some(Credential::Network(*trust))),
        _ if app.lacks_secret() => Err(Answer::new(Reason::NoSecret)),
        _ => precheck(headers, app.config.signatures).map(|()| None).map_err(|error| rejected(app, error)),
    }
}

/// Authenticates a delivery by its credential, or by the mounted secrets. A rotated secret is read at the first delivery
/// that needs it.
pub(super) fn verify(app: &App, unverified: Unverified, credential: Option<Credential>) -> Result<Verified, Answer> {
    // A signature that is there must be right, whatever else proves the event.
    if let Some(credential) = &credential
        && !unverified.has_signature()
    {
        return unverified.accept(credential).map_err(|failed| rejected(app, failed.error));
    }
    let (secrets, policy) = (&app.config.secrets, app.config.signatures);
    let mut outcome = unverified.verify(secrets.current().iter(), policy);
    if let Err(failed) = outcome {
        outcome = match failed.error {
            SignatureError::Mismatch(_) if secrets.refresh() => {
                failed.unverified.verify(secrets.current().iter(), policy)
            }
            _ => Err(failed),
        };
    }
    match outcome {
        Ok((verified, proof)) => {
            app.metrics.signature_verified(proof);
            Ok(match &credential {
                Some(credential) => verified.with_subject(credential),
                None => verified,
            })
        }
        Err(failed) => Err(rejected(app, failed.error)),
    }
}

fn rejected(app: &App, error: SignatureError) -> Answer {
    app.metrics.signature_rejected(error);
    Answer::new(Reason::Signature).with_detail(error)
}
