//! A webhook secret as the key of GitHub's two signatures.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderName, HeaderValue};
use sha1::Sha1;
use sha2::Sha256;

/// The header with the SHA-256 signature.
pub(super) const SHA256_HEADER: HeaderName = HeaderName::from_static("x-hub-signature-256");
/// The header with the SHA-1 signature.
pub(super) const SHA1_HEADER: HeaderName = HeaderName::from_static("x-hub-signature");

/// A webhook secret, prepared for verification. Its `Debug` output hides the secret.
#[derive(Clone)]
pub(crate) struct Key {
    sha256: Hmac<Sha256>,
    sha1: Hmac<Sha1>,
}

/// Hash algorithm of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// HMAC-SHA-256, sent by GitHub today.
    Sha256,
    /// HMAC-SHA-1, for old senders and Knative's GitHubSource.
    Sha1,
}

impl Key {
    /// Prepares a secret.
    pub(crate) fn new(secret: &[u8]) -> Self {
        // HMAC accepts keys of any length, so that neither call can fail.
        let (Ok(sha256), Ok(sha1)) = (Hmac::new_from_slice(secret), Hmac::new_from_slice(secret)) else {
            unreachable!("HMAC accepts keys of any length")
        };
        Self { sha256, sha1 }
    }

    /// The signature headers that GitHub sends with a body.
    pub(crate) fn sign(&self, body: &[u8]) -> [(HeaderName, HeaderValue); 2] {
        let header = |name: HeaderName, algorithm: Algorithm, digest: &[u8]| {
            let value = [algorithm.prefix(), hex::encode(digest).as_bytes()].concat();
            // A prefix and hex digits are a valid value.
            (name, HeaderValue::from_bytes(&value).unwrap_or_else(|_| HeaderValue::from_static("")))
        };
        let sha256 = self.sha256.clone().chain_update(body).finalize().into_bytes();
        let sha1 = self.sha1.clone().chain_update(body).finalize().into_bytes();
        [header(SHA256_HEADER, Algorithm::Sha256, &sha256), header(SHA1_HEADER, Algorithm::Sha1, &sha1)]
    }

    /// A value for each algorithm; equal for two secrets exactly if they verify the same signatures.
    pub(super) fn fingerprints(&self) -> [Vec<u8>; 2] {
        let message = b"github-trigger: are two secrets the same?";
        let sha256 = self.sha256.clone().chain_update(message).finalize().into_bytes();
        let sha1 = self.sha1.clone().chain_update(message).finalize().into_bytes();
        [sha256.to_vec(), sha1.to_vec()]
    }

    /// Whether `digest` is that of the body.
    pub(super) fn matches(&self, algorithm: Algorithm, body: &[u8], digest: &[u8]) -> bool {
        // `verify_slice` compares in constant time.
        match algorithm {
            Algorithm::Sha256 => self.sha256.clone().chain_update(body).verify_slice(digest).is_ok(),
            Algorithm::Sha1 => self.sha1.clone().chain_update(body).verify_slice(digest).is_ok(),
        }
    }
}

impl Algorithm {
    /// The label value in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
        }
    }

    /// What stands before the digest in a header.
    pub(super) fn prefix(self) -> &'static [u8] {
        match self {
            Self::Sha256 => b"sha256=",
            Self::Sha1 => b"sha1=",
        }
    }

    /// Bytes of a digest.
    pub(super) fn digest_length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha1 => 20,
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(***)")
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "SHA-256",
            Self::Sha1 => "SHA-1",
        })
    }
}
