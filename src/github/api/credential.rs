//! Credentials of GitHub's API: a token, or an App with its private key. Each is a file, which is read anew for each use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use ring::error::KeyRejected;
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

/// A JWT is valid for nine minutes; GitHub accepts ten.
const VALIDITY_SECONDS: i64 = 540;
/// It begins a minute ago, because clocks differ.
const BACKDATED_SECONDS: i64 = 60;

/// Who we are at GitHub.
#[derive(Debug, Clone)]
pub(crate) enum Credential {
    /// A file with a personal or installation token.
    TokenFile(PathBuf),
    /// An App: its id (or client id), and the file with its private key.
    App {
        /// The App's id.
        id: String,
        /// PEM, PKCS#1 as GitHub gives it, or PKCS#8.
        key_file: PathBuf,
    },
}

/// Why a credential cannot be used. The text never contains it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is empty, or its text can be no token.
    #[error("{} holds no token; write the token there, and nothing else", .0.display())]
    Token(PathBuf),
    /// A file is no RSA key.
    #[error("{} is not an App's private key ({why}); download it from the App's page on GitHub, as a .pem file", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        why: KeyError,
    },
}

/// Why an App's private key is invalid.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// Not PEM.
    #[error("it is not PEM")]
    NotPem,
    /// Truncated PEM.
    #[error("its end is missing")]
    NoEnd,
    /// PEM with another label.
    #[error("it is a `{0}`")]
    Other(String),
    /// An invalid RSA key.
    #[error("{0}")]
    Rejected(KeyRejected),
    /// Signing failed.
    #[error("it cannot sign")]
    CannotSign,
}

impl Credential {
    /// The file that the credential is read from.
    pub(crate) fn file(&self) -> &Path {
        match self {
            Self::TokenFile(path) => path,
            Self::App { key_file, .. } => key_file,
        }
    }
}

/// Reads a token. White space around it is not part of it.
/// Fails when the file cannot be read or holds no token.
pub(super) fn read_token(path: &Path) -> Result<SecretString, CredentialError> {
    let text = read(path)?;
    let token = text.trim();
    // GitHub's tokens are letters, digits, `_`, `-` and `.`; a line break inside would be another header.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CredentialError::Token(path.to_owned()));
    }
    Ok(token.to_owned().into())
}

fn read(path: &Path) -> Result<String, CredentialError> {
    fs::read_to_string(path).map_err(|source| CredentialError::Read { path: path.to_owned(), source })
}

/// A JWT that authenticates an App; `now` is in seconds since 1970.
/// Fails when the key cannot be read or used.
pub(super) fn app_jwt(id: &str, key_file: &Path, now: i64) -> Result<SecretString, CredentialError> {
    let key = private_key(&read(key_file)?).map_err(|why| CredentialError::Key { path: key_file.to_owned(), why })?;
    let claims = json!({"iss": id, "iat": now - BACKDATED_SECONDS, "exp": now + VALIDITY_SECONDS});
    let encode = |value: &serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(&json!({"alg": "RS256", "typ": "JWT"})), encode(&claims));
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
        .map_err(|_| CredentialError::Key { path: key_file.to_owned(), why: KeyError::CannotSign })?;
    Ok(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)).into())
}

/// Parses the PEM text of an RSA key.
/// Fails when it is something else.
fn private_key(pem: &str) -> Result<RsaKeyPair, KeyError> {
    const BEGIN: &str = "-----BEGIN ";
    let begin = pem.find(BEGIN).ok_or(KeyError::NotPem)?;
    let (label, rest) = pem[begin + BEGIN.len()..].split_once("-----").ok_or(KeyError::NotPem)?;
    let body = rest.split_once("-----END").ok_or(KeyError::NoEnd)?.0;
    let base64: String = body.split_whitespace().collect();
    let der = BASE64_STANDARD.decode(base64).map_err(|_| KeyError::NotPem)?;
    match label {
        "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der).map_err(KeyError::Rejected),
        "PRIVATE KEY" => RsaKeyPair::from_pkcs8(&der).map_err(KeyError::Rejected),
        other => Err(KeyError::Other(other.to_owned())),
    }
}

/// Whether two credentials are the same; for a file that was replaced meanwhile.
pub(super) fn is_same(one: &SecretString, two: &SecretString) -> bool {
    one.expose_secret() == two.expose_secret()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let read = |text: &str| {
            fs::write(&file, text).expect("a file");
            read_token(&file).map(|token| token.expose_secret().to_owned())
        };
        assert_eq!(read(" ghp_abc\r\n").expect("a token"), "ghp_abc");
        for bad in ["", "\n", "two words", "a\nb", "ä"] {
            let error = read(bad).expect_err("no token").to_string();
            assert!(error.contains("holds no token") && !error.contains("words"), "{error}");
        }
        assert!(read_token(&folder.path().join("gone")).is_err());
    }

    #[test]
    fn says_what_is_not_a_private_key() {
        for (text, what) in [
            ("", "not PEM"),
            ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n", "its end is missing"),
            ("-----BEGIN RSA PRIVATE KEY-----\n!\n-----END RSA PRIVATE KEY-----", "not PEM"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "OPENSSH PRIVATE KEY"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "CERTIFICATE"),
        ] {
            let error = private_key(text).map(drop).expect_err(what).to_string();
            assert!(error.contains(what), "{error}");
        }
    }
}
