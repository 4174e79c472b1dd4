//! GitHub's signature: an HMAC over the raw body, `sha256=<hex>` or, from old senders, `sha1=<hex>`.
//!
//! Source: GitHub's documentation, "Validating webhook deliveries".

use http::{HeaderMap, HeaderName};

use super::key::{Algorithm, SHA1_HEADER, SHA256_HEADER};
use super::keyring::TeamKey;

/// Accepted signatures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignaturePolicy {
    /// SHA-256 if present, else SHA-1.
    AcceptSha1,
    /// SHA-256 only.
    RequireSha256,
}

/// Result of a successful verification.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proof<'k> {
    /// Algorithm of the verified signature.
    pub(crate) algorithm: Algorithm,
    /// The matching secret.
    pub(crate) key: &'k TeamKey,
}

/// Why a signature is rejected. For the log only; the sender does not see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    /// There is no signature header.
    #[error("no signature; set a secret in the webhook's settings")]
    Missing,
    /// Only a SHA-1 signature, which [`SignaturePolicy::RequireSha256`] rejects.
    #[error("only a SHA-1 signature, but --require-sha256 is set; send X-Hub-Signature-256")]
    Sha1Only,
    /// The header is repeated, has no prefix, or is not a digest in hexadecimal.
    #[error("the {0} signature header is malformed")]
    Malformed(Algorithm),
    /// Well-formed, but made with another secret or for another body.
    #[error(
        "the {0} signature matches none of the secrets; compare the webhook's secret with the mounted one, and look for a \
         relay in between that changes the body, for example writes the JSON anew"
    )]
    Mismatch(Algorithm),
}

/// A well-formed signature from a request, not yet verified.
struct Claim {
    algorithm: Algorithm,
    digest: [u8; 32],
}

impl Claim {
    fn read(headers: &HeaderMap, policy: SignaturePolicy) -> Result<Self, SignatureError> {
        if headers.contains_key(&SHA256_HEADER) {
            return Self::parse(headers, &SHA256_HEADER, Algorithm::Sha256);
        }
        if !headers.contains_key(&SHA1_HEADER) {
            return Err(SignatureError::Missing);
        }
        match policy {
            SignaturePolicy::RequireSha256 => Err(SignatureError::Sha1Only),
            SignaturePolicy::AcceptSha1 => Self::parse(headers, &SHA1_HEADER, Algorithm::Sha1),
        }
    }

    fn parse(headers: &HeaderMap, name: &HeaderName, algorithm: Algorithm) -> Result<Self, SignatureError> {
        let malformed = SignatureError::Malformed(algorithm);
        let mut values = headers.get_all(name).iter();
        // GitHub sends one value; a second one may be an attempt to bypass the check.
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(malformed);
        };
        let mut claim = Self { algorithm, digest: [0; 32] };
        let hex = value.as_bytes().strip_prefix(algorithm.prefix()).ok_or(malformed)?;
        hex::decode_to_slice(hex, claim.digest_mut()).map_err(|_| malformed)?;
        Ok(claim)
    }

    fn digest(&self) -> &[u8] {
        &self.digest[..self.algorithm.digest_length()]
    }

    fn digest_mut(&mut self) -> &mut [u8] {
        &mut self.digest[..self.algorithm.digest_length()]
    }
}

/// Verifies the signature with each key and returns the algorithm and the first matching key.
pub(super) fn verify<'k>(
    headers: &HeaderMap,
    body: &[u8],
    keys: impl IntoIterator<Item = &'k TeamKey>,
    policy: SignaturePolicy,
) -> Result<Proof<'k>, SignatureError> {
    let claim = Claim::read(headers, policy)?;
    keys.into_iter()
        .find(|key| key.key.matches(claim.algorithm, body, claim.digest()))
        .map(|key| Proof { algorithm: claim.algorithm, key })
        .ok_or(SignatureError::Mismatch(claim.algorithm))
}

/// Checks that the headers have a well-formed, accepted signature, before the body is read.
/// Fails with the error that [`verify`] would return for any body.
pub(crate) fn precheck(headers: &HeaderMap, policy: SignaturePolicy) -> Result<(), SignatureError> {
    Claim::read(headers, policy).map(drop)
}

/// Whether a signature header is present, of either algorithm.
pub(super) fn is_present(headers: &HeaderMap) -> bool {
    headers.contains_key(&SHA256_HEADER) || headers.contains_key(&SHA1_HEADER)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::delivery::Key;

    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SHA256: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    const SHA1: &str = "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59";

    /// The algorithm and the secret that match: 0 for another one, 1 for [`SECRET`].
    fn check(headers: &[(HeaderName, &str)], policy: SignaturePolicy) -> Result<(Algorithm, usize), SignatureError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.clone(), HeaderValue::from_str(value).expect("a header value"));
        }
        let keys = [TeamKey::of_top(b"another"), TeamKey::of_top(SECRET)];
        let proof = verify(&map, BODY, &keys, policy)?;
        Ok((proof.algorithm, keys.iter().position(|key| std::ptr::eq(key, proof.key)).expect("a key")))
    }

    fn accept(headers: &[(HeaderName, &str)]) -> Result<(Algorithm, usize), SignatureError> {
        check(headers, SignaturePolicy::AcceptSha1)
    }

    #[test]
    fn accepts_github_test_vector() {
        assert_eq!(accept(&[(SHA256_HEADER, SHA256)]), Ok((Algorithm::Sha256, 1)));
    }

    #[test]
    fn signs_as_github_does() {
        let headers = Key::new(SECRET).sign(BODY);
        assert_eq!(headers.map(|(_, value)| value.to_str().expect("text").to_owned()), [SHA256, SHA1]);
    }

    #[test]
    fn accepts_upper_case_hex() {
        let upper = format!("sha256={}", SHA256[7..].to_uppercase());
        assert!(accept(&[(SHA256_HEADER, &upper)]).is_ok());
    }

    #[test]
    fn accepts_sha1_alone() {
        assert_eq!(accept(&[(SHA1_HEADER, SHA1)]), Ok((Algorithm::Sha1, 1)));
    }

    #[test]
    fn rejects_sha1_alone_when_sha256_is_required() {
        assert_eq!(check(&[(SHA1_HEADER, SHA1)], SignaturePolicy::RequireSha256), Err(SignatureError::Sha1Only));
        assert!(check(&[(SHA256_HEADER, SHA256)], SignaturePolicy::RequireSha256).is_ok());
    }

    #[test]
    fn sha256_decides_when_both_are_present() {
        let wrong = format!("sha256={}", "0".repeat(64));
        assert_eq!(
            accept(&[(SHA1_HEADER, SHA1), (SHA256_HEADER, &wrong)]),
            Err(SignatureError::Mismatch(Algorithm::Sha256))
        );
        assert!(accept(&[(SHA1_HEADER, "sha1=00"), (SHA256_HEADER, SHA256)]).is_ok());
    }

    #[test]
    fn rejects_empty_sha256_header_despite_valid_sha1() {
        assert_eq!(
            accept(&[(SHA1_HEADER, SHA1), (SHA256_HEADER, "")]),
            Err(SignatureError::Malformed(Algorithm::Sha256))
        );
    }

    #[test]
    fn rejects_missing_header() {
        assert_eq!(accept(&[]), Err(SignatureError::Missing));
    }

    #[test]
    fn rejects_repeated_headers() {
        assert_eq!(
            accept(&[(SHA256_HEADER, SHA256), (SHA256_HEADER, SHA256)]),
            Err(SignatureError::Malformed(Algorithm::Sha256))
        );
    }

    #[test]
    fn rejects_malformed_values() {
        let cut = &SHA256[..SHA256.len() - 1];
        let long = format!("{SHA256}00");
        let joined = format!("{SHA256},{SHA256}");
        for value in [
            "",
            "sha256=",
            "sha256",
            &SHA256[7..],
            cut,
            &long,
            &joined,
            SHA1,
            "sha512=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            "SHA256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1z",
            "sha256= 757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        ] {
            assert_eq!(
                accept(&[(SHA256_HEADER, value)]),
                Err(SignatureError::Malformed(Algorithm::Sha256)),
                "{value:?}"
            );
        }
    }

    #[test]
    fn rejects_non_ascii_bytes() {
        let mut headers = HeaderMap::new();
        headers.insert(SHA256_HEADER, HeaderValue::from_bytes(b"sha256=\xff\xfe").expect("a header value"));
        let keys = [TeamKey::of_top(SECRET)];
        let verdict = verify(&headers, BODY, &keys, SignaturePolicy::AcceptSha1).map(|_| ());
        assert_eq!(verdict, Err(SignatureError::Malformed(Algorithm::Sha256)));
    }

    #[test]
    fn rejects_other_body_and_other_secret() {
        let mut headers = HeaderMap::new();
        headers.insert(SHA256_HEADER, HeaderValue::from_static(SHA256));
        let policy = SignaturePolicy::AcceptSha1;
        let verdict = |body: &[u8], keys: &[TeamKey]| verify(&headers, body, keys, policy).map(|_| ());
        let mismatch = Err(SignatureError::Mismatch(Algorithm::Sha256));
        assert_eq!(verdict(b"Hello, World", &[TeamKey::of_top(SECRET)]), mismatch);
        assert_eq!(verdict(BODY, &[TeamKey::of_top(b"")]), mismatch);
        assert_eq!(verdict(BODY, &[]), mismatch);
    }

    #[test]
    fn debug_hides_secret() {
        assert_eq!(format!("{:?}", Key::new(SECRET)), "Key(***)");
    }
}
