//! Which proof a delivery needs, and whether it has it.

use http::HeaderMap;
use tokio::time::Instant;

use super::App;
use super::answer::Answer;
use super::reason::Reason;
use crate::cluster::Issuer;
use crate::delivery::token::{BearerToken, TokenError, TokenPolicy};
use crate::delivery::{Credential, Envelope, NetworkTrust, Proof, Unproven, Unverified, Verified, precheck};

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
            let refused = |error: TokenError| {
                app.metrics.token(error.as_str());
                Answer::rejected((&error).into(), error.to_string())
            };
            let token = BearerToken::of(headers).map_err(refused)?;
            let keys = issuer.keys_for(&token, until).await;
            let keys = keys.map_err(|error| {
                Answer::unavailable(Reason::Keys, "tokens cannot be verified now", error.to_string(), Vec::new())
            })?;
            let proof = token.verify(policy, &keys).map_err(refused)?;
            app.metrics.token("ok");
            Ok(Some(Credential::Token(proof)))
        }
        CloudEventsAuth::None(trust) if envelope.is_cloud_event() => Ok(Some(Credential::Network(*trust))),
        _ => precheck(headers, app.signatures).map(|()| None).map_err(|unproven| refused(app, &unproven)),
    }
}

/// Proves a delivery by its credential, or by the secrets that are mounted now: a rotation is noticed at the first
/// delivery that needs it.
pub(super) fn verify(app: &App, unverified: Unverified, credential: Option<Credential>) -> Result<Verified, Answer> {
    if let Some(credential) = credential {
        return unverified.accept(&credential).map_err(|failed| refused(app, &failed.why));
    }
    let failed = match unverified.verify(app.secrets.current().iter(), app.signatures) {
        Ok((verified, proof)) => return Ok(counted(app, verified, proof)),
        Err(failed) => failed,
    };
    if !matches!(failed.why, Unproven::Mismatch(_)) || !app.secrets.refresh() {
        return Err(refused(app, &failed.why));
    }
    let again = failed.unverified.verify(app.secrets.current().iter(), app.signatures);
    match again {
        Ok((verified, proof)) => Ok(counted(app, verified, proof)),
        Err(failed) => Err(refused(app, &failed.why)),
    }
}

fn counted(app: &App, verified: Verified, proof: Proof) -> Verified {
    app.metrics.signature(proof.algorithm.as_str(), "ok", Some(proof.key));
    verified
}

fn refused(app: &App, unproven: &Unproven) -> Answer {
    let (algorithm, result) = match unproven {
        Unproven::Missing => ("none", "missing"),
        Unproven::Sha1Only => ("sha1", "refused"),
        Unproven::Malformed(algorithm) => (algorithm.as_str(), "malformed"),
        Unproven::Mismatch(algorithm) => (algorithm.as_str(), "mismatch"),
    };
    app.metrics.signature(algorithm, result, None);
    Answer::rejected(unproven.into(), unproven.to_string())
}
