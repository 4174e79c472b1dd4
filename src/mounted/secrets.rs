//! The webhook secrets: mounted files, folders of files, and one by value.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::{ReadError, read};
use crate::delivery::Key;

/// Where secrets come from.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecretSources {
    /// Files, or folders whose files are each one secret.
    pub(crate) paths: Vec<PathBuf>,
    /// `WEBHOOK_SECRET`.
    pub(crate) value: Option<SecretString>,
}

/// Why the secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    /// Nothing says where the secret is.
    #[error(
        "no webhook secret: give --webhook-secret-file with the mounted Secret (or WEBHOOK_SECRET for local use); \
         without one nobody's delivery could be verified (events of Knative can prove themselves otherwise: \
         --cloudevents-auth)"
    )]
    None,
    /// A secret that anybody can guess.
    #[error(
        "the webhook secret in {0} is empty or only white space; write the secret of GitHub's webhook settings there"
    )]
    Empty(String),
    /// A folder without files.
    #[error("{}: the folder holds no secret; mount a Secret with at least one key there", .0.display())]
    NoFile(PathBuf),
    /// The operating system said no.
    #[error("webhook secret: {0}")]
    Read(#[from] ReadError),
}

impl SecretSources {
    /// Whether there is any source at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.value.is_none()
    }

    /// Reads every secret, the files in the order of paths and names, the value last.
    /// Fails when there is none, one cannot be read, or one is empty: an empty key would let everybody in.
    pub(crate) fn load(&self) -> Result<Vec<Key>, SecretsError> {
        if self.is_empty() {
            return Err(SecretsError::None);
        }
        let mut keys = Vec::new();
        for path in &self.paths {
            let files = read(path, |_| true)?;
            if files.is_empty() {
                return Err(SecretsError::NoFile(path.clone()));
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

/// Editors and `echo` end a file with a line break that nobody means as part of the secret; one is dropped.
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
    fn one_trailing_newline_is_dropped() {
        assert_eq!(without_newline(b"s3cret\n"), b"s3cret");
        assert_eq!(without_newline(b"s3cret\r\n"), b"s3cret");
        assert_eq!(without_newline(b"s3cret\n\n"), b"s3cret\n");
        assert_eq!(without_newline(b"s3cret"), b"s3cret");
        assert_eq!(without_newline(b"s3cret\r"), b"s3cret\r");
    }

    #[test]
    fn a_blank_secret_is_refused_and_named() {
        for value in ["", " ", "\t\n ", "\u{a0}"] {
            let sources = SecretSources { paths: Vec::new(), value: Some(value.to_owned().into()) };
            let error = sources.load().expect_err("a blank secret").to_string();
            assert!(error.contains("WEBHOOK_SECRET is empty"), "{error}");
        }
    }

    #[test]
    fn a_folder_is_one_secret_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let sources = SecretSources { paths: vec![folder.path().to_owned()], value: Some("third".to_owned().into()) };
        assert!(matches!(sources.load(), Err(SecretsError::NoFile(_))));
        std::fs::write(folder.path().join("a"), "first\n").expect("a file");
        std::fs::write(folder.path().join("b"), "second").expect("a file");
        std::fs::write(folder.path().join(".hidden"), "").expect("a file");
        assert_eq!(sources.load().expect("secrets").len(), 3);
        std::fs::write(folder.path().join("c"), "\n").expect("a file");
        let error = sources.load().expect_err("a blank secret").to_string();
        assert!(error.contains("/c is empty"), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let sources = SecretSources { paths: Vec::new(), value: Some("hunter2".to_owned().into()) };
        let keys = sources.load().expect("secrets");
        assert!(!format!("{sources:?} {keys:?}").contains("hunter2"));
    }
}
