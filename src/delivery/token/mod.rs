//! The proof of a CloudEvent from Knative: a token that the cluster has issued to its sender, shown as
//! `Authorization: Bearer`. Nothing is asked of anybody here; the keys are brought along.
//!
//! Source: "Sender Identity" in Knative Eventing's documentation; the claims of a projected ServiceAccount token.

mod ring_provider;

use std::collections::HashMap;
use std::fmt;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

/// What a signature may be made with. Never `none`, which is no algorithm here, and never HMAC, whose key a verifier
/// would have to share.
const ALGORITHMS: [Algorithm; 8] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
];
/// How far clocks may be apart, in seconds.
const LEEWAY: u64 = 10;
/// No token of a cluster is longer.
const MAX_TOKEN: usize = 16 << 10;

/// Whose tokens are enough.
#[derive(Debug, Clone)]
pub(crate) struct TokenPolicy {
    audience: String,
    subjects: GlobSet,
}

/// An issuer's name and its public keys.
#[derive(Clone)]
pub(crate) struct KeySet {
    issuer: String,
    by_id: HashMap<String, DecodingKey>,
    nameless: Vec<DecodingKey>,
}

/// A token that was checked: whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenProof {
    subject: String,
}

/// Why a token is not enough. For the log only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// There is none.
    #[error("no bearer token; a CloudEvent needs one here (--cloudevents-auth=oidc)")]
    Missing,
    /// It is not a token that could be right.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// Its key is not one of the issuer's, or not any more.
    #[error("the token is signed with a key that the issuer does not have")]
    UnknownKey,
    /// Signature, issuer, audience or time.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// A good token of somebody else. The sender is told with 403.
    #[error("the token's subject {0} is not one of --oidc-subject")]
    Subject(String),
}

impl TokenError {
    /// Every code.
    pub(crate) const CODES: &[&str] = &["missing", "malformed", "unknown_key", "invalid", "subject"];

    /// The code in metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Invalid(_) => "invalid",
            Self::Subject(_) => "subject",
        }
    }
}

/// A bearer token as it came, and the key that it claims to be signed with.
pub(crate) struct BearerToken<'h> {
    text: &'h str,
    algorithm: Algorithm,
    key_id: Option<String>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl TokenPolicy {
    /// Wants tokens for `audience` of a subject that one of the globs matches.
    /// Fails when a glob is none.
    pub(crate) fn new(audience: &str, subjects: &[String]) -> Result<Self, globset::Error> {
        let mut globs = GlobSetBuilder::new();
        for subject in subjects {
            globs.add(GlobBuilder::new(subject).literal_separator(true).backslash_escape(true).build()?);
        }
        Ok(Self { audience: audience.to_owned(), subjects: globs.build()? })
    }
}

impl KeySet {
    /// Reads a JSON Web Key Set; keys of kinds that are not known here are left out.
    /// Fails when it is not one.
    pub(crate) fn parse(issuer: String, jwks: &[u8]) -> Result<Self, serde_json::Error> {
        let mut keys = Self { issuer, by_id: HashMap::new(), nameless: Vec::new() };
        for jwk in serde_json::from_slice::<JwkSet>(jwks)?.keys {
            let Ok(key) = DecodingKey::from_jwk(&jwk) else { continue };
            match jwk.common.key_id {
                Some(id) => {
                    keys.by_id.insert(id, key);
                }
                None => keys.nameless.push(key),
            }
        }
        Ok(keys)
    }

    /// Whether the key is here that a token claims to be signed with.
    pub(crate) fn has_key_of(&self, token: &BearerToken<'_>) -> bool {
        match &token.key_id {
            Some(id) => self.by_id.contains_key(id),
            None => !(self.by_id.is_empty() && self.nameless.is_empty()),
        }
    }

    /// The keys that a token may be signed with: the one it names, or all where it names none.
    fn candidates(&self, token: &BearerToken<'_>) -> Vec<&DecodingKey> {
        match &token.key_id {
            Some(id) => self.by_id.get(id).into_iter().collect(),
            None => self.nameless.iter().chain(self.by_id.values()).collect(),
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.by_id.len() + self.nameless.len();
        f.debug_struct("KeySet").field("issuer", &self.issuer).field("keys", &keys).finish()
    }
}

impl TokenProof {
    /// Whose token it was, e.g. `system:serviceaccount:<namespace>:<name>`.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }
}

impl<'h> BearerToken<'h> {
    /// Finds the token of a request; says nothing about whether it is right.
    /// Fails when there is none, or it cannot be one of ours whatever its key is.
    pub(crate) fn from_headers(headers: &'h HeaderMap) -> Result<Self, TokenError> {
        let malformed = |why: &str| TokenError::Malformed(why.to_owned());
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Err(TokenError::Missing),
            (Some(value), None) => HeaderValue::to_str(value).map_err(|_| malformed("it is not ASCII"))?,
            (Some(_), Some(_)) => return Err(malformed("there are several")),
        };
        let (scheme, text) = value.split_once(' ').ok_or(TokenError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(TokenError::Missing);
        }
        let text = text.trim();
        if text.len() > MAX_TOKEN {
            return Err(malformed("it is too long"));
        }
        let header = decode_header(text).map_err(|error| TokenError::Malformed(error.to_string()))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(malformed("its algorithm is not allowed"));
        }
        Ok(Self { text, algorithm: header.alg, key_id: header.kid })
    }

    /// Checks the signature, `iss`, `aud`, `exp`, `nbf` and the subject.
    /// Errors: what was wrong.
    pub(crate) fn verify(&self, policy: &TokenPolicy, keys: &KeySet) -> Result<TokenProof, TokenError> {
        ring_provider::install();
        let mut validation = Validation::new(self.algorithm);
        validation.set_issuer(&[&keys.issuer]);
        validation.set_audience(&[&policy.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY;
        let mut error = TokenError::UnknownKey;
        for key in keys.candidates(self) {
            match decode::<Claims>(self.text, key, &validation) {
                Ok(token) if policy.subjects.is_match(&token.claims.sub) => {
                    return Ok(TokenProof { subject: token.claims.sub });
                }
                Ok(token) => return Err(TokenError::Subject(token.claims.sub)),
                Err(why) => error = TokenError::Invalid(why.to_string()),
            }
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests;
