//! Tokens that an API server would not issue: expired, foreign and unsigned ones.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

/// An ES256 key, the algorithm of the control plane's tokens.
pub struct SigningKey(EcdsaKeyPair);

impl SigningKey {
    /// Reads a PKCS#8 key from PEM text.
    pub fn of_pem(pem: &str) -> Self {
        let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
        Self::of_pkcs8(&BASE64_STANDARD.decode(base64).expect("Base64"))
    }

    /// A new key, which the API server does not know.
    pub fn generate() -> Self {
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        Self::of_pkcs8(key.expect("a key").as_ref())
    }

    fn of_pkcs8(der: &[u8]) -> Self {
        let random = SystemRandom::new();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random).expect("a key"))
    }

    /// Signs a copy of `token`, with the same header and with claims changed by `change`.
    pub fn sign_again(&self, token: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut parts = token.split('.');
        let header = parts.next().expect("a header");
        let mut claims = decode(parts.next().expect("claims"));
        change(&mut claims);
        let message = format!("{header}.{}", encode(&claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).expect("a signature");
        format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The same claims with the algorithm `none` and no signature.
pub fn unsigned(token: &str) -> String {
    let claims = token.split('.').nth(1).expect("claims");
    format!("{}.{claims}.", encode(&json!({"alg": "none", "typ": "JWT"})))
}

fn decode(part: &str) -> Value {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).expect("Base64");
    serde_json::from_slice(&bytes).expect("JSON")
}

fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}
