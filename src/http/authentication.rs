//! The authentication of a delivery: which proof it needs, and whether it has it.

use std::sync::Arc;

use http::HeaderMap;
use tokio::time::Instant;

use super::answer::Answer;
use super::app::App;
use super::blocking::step;
use super::config::CloudEventsAuth;
use super::outcome::Reason;
use super::secret_search::FEW;
use super::teams::team_of_subject;
use crate::delivery::token::{BearerToken, TokenError};
use crate::delivery::{
    Claims, Credential, Envelope, SignatureError, TeamKey, Unverified, VerificationFailed, Verified, precheck,
};
use crate::team::Team;

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
                    TokenError::Subject(_) | TokenError::Ambiguous(..) => Reason::Subject,
                    _ => Reason::Token,
                };
                Answer::new(reason).with_detail(error)
            };
            let token = BearerToken::from_headers(headers).map_err(rejected)?;
            let keys = issuer.keys_for(&token, until).await;
            let keys = keys.map_err(|error| Answer::new(Reason::Keys).with_detail(error))?;
            let proof = token.verify(policy, &keys).map_err(rejected)?;
            let team = team_of_subject(&app.config, proof.subject(), policy).map_err(rejected)?;
            app.metrics.token("ok");
            Ok(Some(Credential::Token(proof, team)))
        }
        CloudEventsAuth::None(trust) if envelope.is_cloud_event() => Ok(Some(Credential::Network(*trust))),
        _ if app.lacks_secret() => Err(Answer::new(Reason::NoSecret)),
        _ => precheck(headers, app.config.signatures).map(|()| None).map_err(|error| rejected(app, error)),
    }
}

/// Authenticates a delivery by its credential, or by the mounted secrets. A rotated secret is read at the first delivery
/// that needs it.
pub(super) async fn verify(
    app: &Arc<App>,
    unverified: Unverified,
    credential: Option<Credential>,
    until: Instant,
) -> Result<Verified, Answer> {
    // A signature that is there must be right, whatever else proves the event.
    if let Some(credential) = &credential
        && !unverified.has_signature()
    {
        return unverified.accept(credential).map_err(|failed| rejected(app, failed.error));
    }
    let mut outcome = try_secrets(app, unverified, until).await?;
    if let Err(failed) = outcome {
        outcome = match failed.error {
            SignatureError::Mismatch(_) if app.config.secrets.refresh_on_demand() => {
                try_secrets(app, failed.unverified, until).await?
            }
            _ => Err(failed),
        };
    }
    let verified = outcome.map_err(|failed| rejected(app, failed.error))??;
    match &credential {
        Some(Credential::Token(proof, team)) if *team != Team::TOP && team != verified.team() => {
            let (subject, other) = (proof.subject(), verified.team());
            let detail = format!("the token's subject {subject} belongs to {team}, but the signature is of {other}");
            Err(Answer::new(Reason::Subject).with_detail(detail))
        }
        Some(credential) => Ok(verified.with_subject(credential)),
        None => Ok(verified),
    }
}

/// What the secrets say: the delivery, or the answer if its secret proves no team; or that none matches.
type Tried = Result<Result<Verified, Answer>, Box<VerificationFailed>>;

/// Tries the secrets, the likely ones first if there are many.
/// Fails when too much time goes into wrong signatures.
async fn try_secrets(app: &Arc<App>, unverified: Unverified, until: Instant) -> Result<Tried, Answer> {
    let bytes = unverified.len();
    let secrets = app.config.secrets.current();
    let count = secrets.keyring.len();
    let this = Arc::clone(app);
    if count <= FEW {
        return step(bytes, move || check(&this, unverified, secrets.keyring.iter())).await;
    }
    let keys = Arc::clone(&secrets);
    let first = step(bytes, move || {
        let templates = this.config.templates.current();
        let claims = unverified.claims();
        check_and_learn(&this, unverified, &claims, this.search.likely(&claims, &keys.keyring, &templates))
    });
    let failed = match first.await? {
        Err(failed) if matches!(failed.error, SignatureError::Mismatch(_)) => failed,
        decided => return Ok(decided),
    };
    let hashed = bytes.saturating_mul(count);
    if !app.search.allows(bytes as u64, hashed as u64, std::time::Instant::now()) {
        let detail = "too many deliveries whose signatures match none of the likely secrets; is it an attack?";
        return Err(Answer::new(Reason::Busy).with_detail(detail));
    }
    let this = Arc::clone(app);
    step(hashed, move || {
        let claims = failed.unverified.claims();
        let in_time = secrets.keyring.iter().take_while(|_| Instant::now() < until);
        let tried = check_and_learn(&this, failed.unverified, &claims, in_time);
        if tried.is_err() && Instant::now() >= until {
            let detail = "the deadline passed before the signature was compared with the secrets of all teams";
            return Err(Answer::new(Reason::Deadline).with_detail(detail));
        }
        Ok(tried)
    })
    .await?
}

/// Tries these secrets, and remembers which claims were right.
fn check_and_learn<'k>(
    app: &App,
    unverified: Unverified,
    claims: &Claims,
    keys: impl IntoIterator<Item = &'k TeamKey>,
) -> Tried {
    let tried = check(app, unverified, keys);
    if let Ok(Ok(verified)) = &tried {
        app.search.learn(claims, verified.team());
    }
    tried
}

/// Tries these secrets.
fn check<'k>(app: &App, unverified: Unverified, keys: impl IntoIterator<Item = &'k TeamKey>) -> Tried {
    let (verified, proof) = unverified.verify(keys, app.config.signatures)?;
    app.metrics.signature_verified(proof);
    Ok(match proof.key.same_as() {
        None => Ok(verified),
        Some((other, _)) => {
            let detail = format!("the secret is one of {} and of {other}, so that it proves neither", proof.key.team());
            Err(Answer::new(Reason::Team).with_detail(detail))
        }
    })
}

fn rejected(app: &App, error: SignatureError) -> Answer {
    app.metrics.signature_rejected(error);
    Answer::new(Reason::Signature).with_detail(error)
}
