//! Webhook secrets from mounted files, folders of files, and `WEBHOOK_SECRET`.

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::{ReadError, read_each};
use crate::delivery::Key;

/// Secrets of fewer bytes are guessed in no time.
const SHORT: usize = 8;

/// Sources of webhook secrets.
#[derive(Debug, Clone, Default)]
pub(crate) struct SecretSources {
    /// Files with one secret each, or folders of such files.
    pub(crate) paths: Vec<PathBuf>,
    /// The value of `WEBHOOK_SECRET`, if set.
    pub(crate) value: Option<SecretString>,
}

/// Why a secret, or all of them, cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsError {
    /// There is no source.
    #[error(
        "no webhook secret: give --webhook-secret-file with the mounted Secret (or WEBHOOK_SECRET for local use); \
         deliveries cannot be verified without it (to accept only CloudEvents without a secret: --cloudevents-auth)"
    )]
    NoSource,
    /// A secret is empty or only white space or NUL bytes; the text names its file or variable.
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
    /// None of several secrets is usable; one line for each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    NoneUsable(Vec<SecretsError>),
}

/// The secrets that are mounted now.
#[derive(Debug, Default)]
pub(crate) struct MountedSecrets {
    /// The usable ones.
    pub(crate) keys: Vec<Key>,
    /// Why others are not usable.
    pub(crate) unusable: Vec<SecretsError>,
    /// What is odd about usable ones: each names a file, and never the content.
    pub(crate) odd: Vec<String>,
}

impl MountedSecrets {
    /// Logs what is unusable or odd, and returns the usable secrets.
    pub(crate) fn log(self) -> Vec<Key> {
        self.unusable.iter().for_each(|error| tracing::error!("{error}; it is skipped"));
        self.odd.iter().for_each(|finding| tracing::warn!("{finding}"));
        if self.keys.is_empty() {
            tracing::error!("no usable webhook secret is left; every webhook is answered 503 until one is mounted");
        }
        self.keys
    }

    fn add(&mut self, secret: &[u8], place: &str) {
        if is_blank(secret) {
            self.unusable.push(SecretsError::Empty(place.to_owned()));
            return;
        }
        if let Some(oddity) = oddity(secret) {
            self.odd.push(format!(
                "the webhook secret in {place} {oddity}; signatures match only if GitHub's secret is the same"
            ));
        }
        self.keys.push(Key::new(secret));
    }
}

impl SecretSources {
    /// Whether there is no source.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.value.is_none()
    }

    /// Reads all secrets: the files in the order of paths and names, then the value. Unusable ones are left out.
    /// Fails only when there is no source, or a folder changes during each read.
    pub(crate) fn load(&self) -> Result<MountedSecrets, SecretsError> {
        if self.is_empty() {
            return Err(SecretsError::NoSource);
        }
        let mut secrets = MountedSecrets::default();
        for path in &self.paths {
            match read_each(path, |_| true) {
                Ok(files) if files.is_empty() => secrets.unusable.push(SecretsError::EmptyFolder(path.clone())),
                Ok(files) => {
                    for file in files {
                        match file {
                            Ok(file) => secrets.add(without_newline(&file.content), &file.path.display().to_string()),
                            Err(error) => secrets.unusable.push(error.into()),
                        }
                    }
                }
                Err(error @ ReadError::Unstable { .. }) => return Err(error.into()),
                Err(error) => secrets.unusable.push(error.into()),
            }
        }
        if let Some(value) = &self.value {
            secrets.add(value.expose_secret().as_bytes(), "WEBHOOK_SECRET");
        }
        Ok(secrets)
    }

    /// Fails like [`Self::load`], and when no secret is usable.
    pub(crate) fn check(&self) -> Result<(), SecretsError> {
        let mut secrets = self.load()?;
        match (secrets.keys.is_empty(), secrets.unusable.len()) {
            (false, _) => Ok(()),
            (true, 1) => Err(secrets.unusable.remove(0)),
            (true, _) => Err(SecretsError::NoneUsable(secrets.unusable)),
        }
    }
}

/// Whether a key is as good as none: HMAC fills a key with NUL bytes, so that one of only NUL bytes is the empty key; and
/// everybody guesses a byte order mark or quotes around nothing.
fn is_blank(secret: &[u8]) -> bool {
    let is_nothing = |c: char| c.is_whitespace() || matches!(c, '\0' | '\u{feff}' | '"' | '\'');
    secret.iter().all(|byte| *byte == 0) || str::from_utf8(secret).is_ok_and(|text| text.chars().all(is_nothing))
}

/// What looks like a mistake of the one who wrote the secret.
fn oddity(secret: &[u8]) -> Option<&'static str> {
    const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
    let quoted = |quote: u8| secret.len() > 1 && secret.starts_with(&[quote]) && secret.ends_with(&[quote]);
    if secret.starts_with(BYTE_ORDER_MARK) {
        Some("begins with a byte order mark")
    } else if secret.trim_ascii().len() < secret.len() {
        Some("begins or ends with white space")
    } else if quoted(b'"') || quoted(b'\'') {
        Some("is in quotes")
    } else if secret.contains(&0) {
        Some("contains NUL bytes")
    } else if secret.len() < SHORT {
        Some("is very short, and easily guessed")
    } else {
        None
    }
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

    fn value(value: &str) -> SecretSources {
        SecretSources { paths: Vec::new(), value: Some(value.to_owned().into()) }
    }

    #[test]
    fn rejects_blank_secret_and_names_source() {
        for blank in ["", " ", "\t\n ", "\u{a0}", "\0", "\0\0\0", " \0", "\u{feff}", "\"\"", "''"] {
            let error = value(blank).check().expect_err("a blank secret").to_string();
            assert!(error.contains("WEBHOOK_SECRET is empty"), "{error}");
        }
    }

    #[test]
    fn names_what_is_odd_about_a_secret_without_its_content() {
        for (secret, oddity) in [
            ("\u{feff}correct horse", "byte order mark"),
            ("correct horse ", "white space"),
            ("\tcorrect horse", "white space"),
            ("\"correct horse\"", "quotes"),
            ("'correct horse'", "quotes"),
            ("correct\0horse", "NUL"),
            ("x", "short"),
        ] {
            let secrets = value(secret).load().expect("secrets");
            assert_eq!((secrets.keys.len(), secrets.odd.len()), (1, 1), "{secret:?}");
            assert!(secrets.odd[0].contains(oddity) && !secrets.odd[0].contains("horse"), "{}", secrets.odd[0]);
        }
        assert!(value("correct \"horse").load().expect("secrets").odd.is_empty());
    }

    #[test]
    fn unusable_files_do_not_hide_usable_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let gone = folder.path().join("gone");
        let sources = SecretSources {
            paths: vec![folder.path().to_owned(), gone.clone()],
            value: Some("third secret".to_owned().into()),
        };
        assert_eq!(sources.load().expect("secrets").unusable.len(), 2, "an empty folder and a missing file");
        std::fs::write(folder.path().join("a"), "first secret\n").expect("a file");
        std::fs::write(folder.path().join("b"), "\n").expect("a file");
        std::fs::write(folder.path().join(".hidden"), "").expect("a file");
        std::os::unix::fs::symlink("nowhere", folder.path().join("c")).expect("a link");
        let secrets = sources.load().expect("secrets");
        let unusable: Vec<String> = secrets.unusable.iter().map(ToString::to_string).collect();
        assert_eq!((secrets.keys.len(), unusable.len()), (2, 3), "{unusable:?}");
        assert!(unusable[0].contains("/b is empty") && unusable[1].contains("/c"), "{unusable:?}");
        assert!(sources.check().is_ok());
    }

    #[test]
    fn debug_hides_secret() {
        let sources = value("hunter2 hunter2");
        let secrets = sources.load().expect("secrets");
        assert!(!format!("{sources:?} {secrets:?}").contains("hunter2"));
    }
}
