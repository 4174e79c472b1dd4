//! Webhook secrets from mounted files, folders of files, and `WEBHOOK_SECRET`.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::{ReadError, read};
use crate::delivery::Key;

/// Sources of webhook secrets.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecretSources {
    /// Files with one secret each, or folders of such files.
    pub(crate) paths: Vec<PathBuf>,
    /// The value of `WEBHOOK_SECRET`, if set.
    pub(crate) value: Option<SecretString>,
}

/// Why the secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    /// There is no source.
    #[error(
        "no webhook secret: give --webhook-secret-file with the mounted Secret (or WEBHOOK_SECRET for local use); \
         deliveries cannot be verified without it (to accept only CloudEvents without a secret: --cloudevents-auth)"
    )]
    NoSource,
    /// A secret is empty or only white space; the text names its file or variable.
    #[error(
        "the webhook secret in {0} is empty or only white space; write the secret from GitHub's webhook settings there"
    )]
    Empty(String),
    /// The folder has no files.
    #[error("{}: the folder holds no secret; mount a Secret with at least one key there", .0.display())]
    EmptyFolder(PathBuf),
    /// A file cannot be read.
    #[error("webhook secret: {0}")]
    Read(#[from] ReadError),
}

impl SecretSources {
    /// Whether there is no source.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.value.is_none()
    }

    /// Reads all secrets: the files in the order of paths and names, then the value.
    /// Fails when there is no secret, or one is unreadable or blank: a blank secret would accept forged deliveries.
    pub(crate) fn load(&self) -> Result<Vec<Key>, SecretsError> {
        if self.is_empty() {
            return Err(SecretsError::NoSource);
        }
        let mut keys = Vec::new();
        for path in &self.paths {
            let files = read(path, |_| true)?;
            if files.is_empty() {
                return Err(SecretsError::EmptyFolder(path.clone()));
            }
            for file in files {
                keys.push(key(without_newline(&file.content), || file.path.display().to_string())?);
            }
        }
        if let Some(value) = &self.value {
            keys.push(key(value.expose_secret().as_bytes(), || "WEBHOOK_SECRET".to_owned())?);
        }
        Ok(keys)
    }
}

fn key(secret: &[u8], place: impl Fn() -> String) -> Result<Key, SecretsError> {
    let blank = match std::str::from_utf8(secret) {
        Ok(text) => text.trim().is_empty(),
        Err(_) => false,
    };
    if blank { Err(SecretsError::Empty(place())) } else { Ok(Key::new(secret)) }
}

/// Removes one trailing line break, which editors and `echo` add and which is not part of the secret.
fn without_newline(content: &[u8]) -> &[u8] {
    match content.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_one_trailing_newline() {
        assert_eq!(without_newline(b"s3cret\n"), b"s3cret");
        assert_eq!(without_newline(b"s3cret\r\n"), b"s3cret");
        assert_eq!(without_newline(b"s3cret\n\n"), b"s3cret\n");
        assert_eq!(without_newline(b"s3cret"), b"s3cret");
        assert_eq!(without_newline(b"s3cret\r"), b"s3cret\r");
    }

    #[test]
    fn rejects_blank_secret_and_names_source() {
        for value in ["", " ", "\t\n ", "\u{a0}"] {
            let sources = SecretSources { paths: Vec::new(), value: Some(value.to_owned().into()) };
            let error = sources.load().expect_err("a blank secret").to_string();
            assert!(error.contains("WEBHOOK_SECRET is empty"), "{error}");
        }
    }

    #[test]
    fn reads_one_secret_per_file_of_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let sources = SecretSources { paths: vec![folder.path().to_owned()], value: Some("third".to_owned().into()) };
        assert!(matches!(sources.load(), Err(SecretsError::EmptyFolder(_))));
        std::fs::write(folder.path().join("a"), "first\n").expect("a file");
        std::fs::write(folder.path().join("b"), "second").expect("a file");
        std::fs::write(folder.path().join(".hidden"), "").expect("a file");
        assert_eq!(sources.load().expect("secrets").len(), 3);
        std::fs::write(folder.path().join("c"), "\n").expect("a file");
        let error = sources.load().expect_err("a blank secret").to_string();
        assert!(error.contains("/c is empty"), "{error}");
    }

    #[test]
    fn debug_hides_secret() {
        let sources = SecretSources { paths: Vec::new(), value: Some("hunter2".to_owned().into()) };
        let keys = sources.load().expect("secrets");
        assert!(!format!("{sources:?} {keys:?}").contains("hunter2"));
    }
}
