//! Authentication of CloudEvents from Knative: a token that the cluster issued to the sender, in the header
//! `Authorization: Bearer`. No I/O; the caller provides the keys.
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

/// Accepted signature algorithms. Excludes `none`, which has no signature, and HMAC, which needs a shared secret key.
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
/// Allowed clock difference between issuer and receiver, in seconds.
const CLOCK_SKEW_SECONDS: u64 = 10;
/// Maximum length of a token in bytes; tokens of a cluster are shorter.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// Accepted audience of tokens, and the subjects that the top level accepts.
#[derive(Debug, Clone)]
pub(crate) struct TokenPolicy {
    audience: String,
    subjects: Subjects,
    /// The subjects as they were given.
    given: Vec<String>,
}

/// Globs of the subjects whose tokens are accepted.
#[derive(Debug, Clone)]
pub(crate) struct Subjects(GlobSet);

/// An issuer's name (the claim `iss`) and its public keys.
#[derive(Clone)]
pub(crate) struct KeySet {
    issuer: String,
    by_id: HashMap<String, DecodingKey>,
    nameless: Vec<DecodingKey>,
}

/// A verified token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenProof {
    subject: String,
}

/// Why a token is rejected. For the log only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The request has no bearer token.
    #[error("no bearer token; send one with each CloudEvent (--cloudevents-auth=oidc)")]
    Missing,
    /// The text is not a token, or its algorithm is not accepted.
    #[error("the token is malformed: {0}")]
    Malformed(String),
    /// The issuer does not publish the token's key, or no longer.
    #[error("the token is signed with an unknown key; is it from this cluster's issuer?")]
    UnknownKey,
    /// The signature, issuer, audience or time is wrong.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// A valid token of another subject. The sender gets 403.
    #[error("the token's subject {0} is not one of --oidc-subject, nor of a team's file `subjects`")]
    Subject(String),
    /// A valid token of a subject that several teams call their own. The sender gets 403.
    #[error("the token's subject {0} belongs to {1}; remove it from the file `subjects` of all teams but one")]
    Ambiguous(String, String),
}

impl TokenError {
    /// All codes, for the metrics.
    pub(crate) const CODES: &[&str] = &["missing", "malformed", "unknown_key", "invalid", "subject", "ambiguous"];

    /// The label value in metrics.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed(_) => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::Invalid(_) => "invalid",
            Self::Subject(_) => "subject",
            Self::Ambiguous(..) => "ambiguous",
        }
    }
}

/// A parsed bearer token, not yet verified.
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
    /// Accepts tokens for `audience` with a subject that matches one of the globs.
    /// Fails when a glob is invalid.
    pub(crate) fn new(audience: &str, subjects: &[String]) -> Result<Self, globset::Error> {
        Ok(Self { audience: audience.to_owned(), subjects: Subjects::new(subjects)?, given: subjects.to_vec() })
    }

    /// Whether the top level accepts this subject by its full name, not by a glob.
    pub(crate) fn names(&self, subject: &str) -> bool {
        self.given.iter().any(|given| given == subject)
    }

    /// The top level's subjects.
    pub(crate) fn subjects(&self) -> &Subjects {
        &self.subjects
    }
}

/// Why a file of subjects is invalid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubjectsError {
    /// Not UTF-8.
    #[error("not UTF-8 text; save the file as UTF-8")]
    Encoding,
    /// Empty, or only comments.
    #[error(
        "the file names no subject; write one a line, such as system:serviceaccount:NAMESPACE:NAME, or remove the file"
    )]
    Empty,
    /// A glob is invalid.
    #[error(transparent)]
    Glob(#[from] globset::Error),
}

impl Subjects {
    /// Compiles globs. Fails when one is invalid.
    pub(crate) fn new(globs: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, globset::Error> {
        let mut builder = GlobSetBuilder::new();
        for glob in globs {
            builder.add(GlobBuilder::new(glob.as_ref()).literal_separator(true).backslash_escape(true).build()?);
        }
        Ok(Self(builder.build()?))
    }

    /// Parses the file `subjects` of a team: a glob a line; lines that begin with `#` are comments.
    /// Fails when the file is not UTF-8, names no subject, or a glob is invalid.
    pub(crate) fn parse(content: &[u8]) -> Result<Self, SubjectsError> {
        let text = str::from_utf8(content).map_err(|_| SubjectsError::Encoding)?;
        let lines: Vec<&str> =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        if lines.is_empty() {
            return Err(SubjectsError::Empty);
        }
        Ok(Self::new(lines)?)
    }

    /// Whether a subject is one of them.
    pub(crate) fn contain(&self, subject: &str) -> bool {
        self.0.is_match(subject)
    }
}

impl KeySet {
    /// Parses a JSON Web Key Set; skips keys of unknown types.
    /// Fails when `jwks` is not a JSON Web Key Set.
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

    /// Whether the set has the key that the token names, or any key if the token names none.
    pub(crate) fn has_key_of(&self, token: &BearerToken<'_>) -> bool {
        match &token.key_id {
            Some(id) => self.by_id.contains_key(id),
            None => !(self.by_id.is_empty() && self.nameless.is_empty()),
        }
    }

    /// The keys to try: the one that the token names, or all keys if it names none.
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
    /// The claim `sub`, e.g. `system:serviceaccount:<namespace>:<name>`.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }
}

impl<'h> BearerToken<'h> {
    /// Parses the token of a request without verifying it.
    /// Fails when there is no token, or it is malformed, too long or of a forbidden algorithm.
    pub(crate) fn from_headers(headers: &'h HeaderMap) -> Result<Self, TokenError> {
        let malformed = |why: &str| TokenError::Malformed(why.to_owned());
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Err(TokenError::Missing),
            (Some(value), None) => HeaderValue::to_str(value).map_err(|_| malformed("the header is not ASCII"))?,
            (Some(_), Some(_)) => return Err(malformed("the request has several Authorization headers")),
        };
        let (scheme, text) = value.split_once(' ').ok_or(TokenError::Missing)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(TokenError::Missing);
        }
        let text = text.trim();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(malformed("it is too long"));
        }
        let header = decode_header(text).map_err(|error| TokenError::Malformed(error.to_string()))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(malformed("its algorithm is not allowed"));
        }
        Ok(Self { text, algorithm: header.alg, key_id: header.kid })
    }

    /// Verifies the signature and the claims `iss`, `aud`, `exp` and `nbf`. Whose subject it is, the caller decides.
    /// Fails with the reason, of the last key tried if there are several.
    pub(crate) fn verify(&self, policy: &TokenPolicy, keys: &KeySet) -> Result<TokenProof, TokenError> {
        ring_provider::install();
        let mut validation = Validation::new(self.algorithm);
        validation.set_issuer(&[&keys.issuer]);
        validation.set_audience(&[&policy.audience]);
        validation.set_required_spec_claims(&["iss", "aud", "exp", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = CLOCK_SKEW_SECONDS;
        let mut error = TokenError::UnknownKey;
        for key in keys.candidates(self) {
            match decode::<Claims>(self.text, key, &validation) {
                Ok(token) => return Ok(TokenProof { subject: token.claims.sub }),
                Err(why) => error = TokenError::Invalid(why.to_string()),
            }
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests;
