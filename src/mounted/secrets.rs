//! Webhook secrets from mounted files, folders of files, and `WEBHOOK_SECRET`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::reload::{ConfigKind, Faults, Loaded, Reading, Source};
use super::settings::{NAMESPACE_FILE, Settings};
use super::{File, Files, ReadError, Tree, read};
use crate::delivery::token::Subjects;
use crate::delivery::{Key, Keyring};
use crate::team::Team;

/// The variable with a secret.
const VARIABLE: &str = "WEBHOOK_SECRET";
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

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
enum SecretError {
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
}

/// The secrets of one team that are mounted now.
#[derive(Debug, Default)]
pub(crate) struct TeamSecrets {
    /// The usable ones.
    keys: Vec<Key>,
    /// The file of each.
    places: Vec<PathBuf>,
    /// Why others are not usable.
    unusable: Vec<SecretError>,
    /// What is odd about usable ones: each names a file, and never the content.
    odd: Vec<String>,
}

/// The secrets of all teams.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    /// The secrets.
    pub(crate) keyring: Keyring,
    /// The teams that are mounted, with what proves them besides secrets, and what is wrong.
    pub(crate) teams: BTreeMap<Team, TeamStatus>,
}

impl Secrets {
    /// Whether a setting beside the team's secrets is not valid. Then nothing may be done for the team.
    pub(crate) fn has_invalid_settings(&self, team: &Team) -> bool {
        self.teams.get(team).is_some_and(|status| status.settings_are_invalid)
    }
}

/// What a team has besides its secrets.
#[derive(Debug, Default)]
pub(crate) struct TeamStatus {
    /// Subjects of tokens that are the team's own.
    pub(crate) subjects: Option<Subjects>,
    settings_are_invalid: bool,
    /// What an operator must mend: each names files, and never the content.
    pub(crate) faults: Vec<String>,
}

impl TeamSecrets {
    fn add(&mut self, file: &File) {
        let (secret, place) = (without_newline(&file.content), file.path.display());
        if is_blank(secret) {
            self.unusable.push(SecretError::Empty(place.to_string()));
            return;
        }
        if let Some(oddity) = oddity(secret) {
            self.odd.push(format!(
                "the webhook secret in {place} {oddity}; signatures match only if GitHub's secret is the same"
            ));
        }
        self.keys.push(Key::new(secret));
        self.places.push(file.path.clone());
    }

    fn read(files: Files) -> Self {
        let mut secrets = Self::default();
        for folder in &files.folders {
            let is_inside = |entry: &Result<File, ReadError>| match entry {
                Ok(file) => file.path.starts_with(folder),
                Err(error) => error.path().starts_with(folder),
            };
            if folder.is_dir() && !files.entries.iter().any(is_inside) {
                secrets.unusable.push(SecretError::EmptyFolder(folder.clone()));
            }
        }
        for entry in files.entries {
            match entry {
                Ok(file) => secrets.add(&file),
                Err(error) => secrets.unusable.push(error.into()),
            }
        }
        secrets
    }
}

impl SecretSources {
    /// Whether there is no source.
    pub(crate) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.value.is_none()
    }
}

impl Source for SecretSources {
    type Value = TeamSecrets;
    type Error = Infallible;
    type View = Secrets;
    const KIND: ConfigKind = ConfigKind::WebhookSecrets;

    fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// All files in the order of paths and names, then the value. A path that cannot be read hides no other one.
    fn read(&self) -> Result<Reading, ReadError> {
        let (mut tree, mut fingerprints) = (Tree::new(), Vec::new());
        for path in &self.paths {
            let (fingerprint, mounted) = read(path, |_| true);
            fingerprints.push(fingerprint);
            match mounted {
                Ok(mounted) => {
                    mounted.into_iter().for_each(|(team, files)| tree.entry(team).or_default().append(files))
                }
                Err(error @ ReadError::Unstable { .. }) => return Err(error),
                Err(error) => tree.entry(Team::TOP).or_default().entries.push(Err(error)),
            }
        }
        if let Some(value) = &self.value {
            let file = File { path: VARIABLE.into(), content: value.expose_secret().as_bytes().to_vec() };
            tree.entry(Team::TOP).or_default().entries.push(Ok(file));
        }
        if self.is_empty() {
            // Only CloudEvents are accepted.
            tree.insert(Team::TOP, Files::default());
        }
        Ok(Reading { tree, fingerprints })
    }

    fn load(&self, _team: &Team, files: Files, _settings: &Settings) -> Result<TeamSecrets, Infallible> {
        Ok(TeamSecrets::read(files))
    }

    /// With a source, at least one secret must be usable.
    fn accept(&self, teams: &BTreeMap<Team, Loaded<TeamSecrets>>) -> Result<(), Faults> {
        let has_keys = |team: &Loaded<TeamSecrets>| team.value.as_ref().is_some_and(|secrets| !secrets.keys.is_empty());
        if self.is_empty() || teams.values().any(has_keys) {
            return Ok(());
        }
        let unusable = teams.values().flat_map(|team| {
            let of_files = team.value.iter().flat_map(|secrets| &secrets.unusable).map(ToString::to_string);
            team.error.iter().cloned().chain(of_files)
        });
        Err(Faults(unusable.collect()))
    }

    /// Says what is unusable or odd. What is unusable of a team is reported as long as it is.
    fn report(&self, team: &Team, secrets: &TeamSecrets) {
        if team.name().is_none() {
            secrets.unusable.iter().for_each(|error| tracing::error!("{error}; it is skipped"));
        }
        secrets.odd.iter().for_each(|finding| tracing::warn!(team = team.name(), "{finding}"));
    }

    fn report_all(&self, secrets: &Secrets) {
        if secrets.keyring.is_empty() && !self.is_empty() {
            tracing::error!("no usable webhook secret is left; every webhook is answered 503 until one is mounted");
        }
    }

    fn view(&self, teams: &BTreeMap<Team, Loaded<TeamSecrets>>) -> Secrets {
        let loaded = || teams.iter().filter_map(|(team, loaded)| Some((team, loaded.value.as_deref()?)));
        let keyring = Keyring::new(loaded().map(|(team, secrets)| (team, secrets.keys.as_slice())));
        let place = |team: &Team, number: usize| {
            let places = teams.get(team).and_then(|loaded| loaded.value.as_deref()).map(|own| &own.places);
            places.and_then(|places| places.get(number)).map(|place| place.display().to_string()).unwrap_or_default()
        };
        let mut status: BTreeMap<Team, TeamStatus> = BTreeMap::new();
        for (team, loaded) in teams {
            let mut faults: Vec<String> = loaded.error.iter().cloned().collect();
            faults.extend(loaded.settings.sentences());
            if let Some(namespace) = &loaded.settings.namespace {
                faults.push(format!(
                    "the file `{NAMESPACE_FILE}` ({namespace}) is among its secrets; put it into its folder of templates"
                ));
            }
            faults.extend(loaded.value.iter().flat_map(|own| &own.unusable).map(ToString::to_string));
            for key in keyring.of_team(team) {
                if let Some((other, number)) = key.same_as() {
                    let (here, there) = (place(team, key.number()), place(other, *number));
                    faults.push(format!(
                        "the webhook secret in {here} is also one of {other} ({there}), so that it proves neither; make a \
                         new one for each"
                    ));
                }
            }
            let settings = &loaded.settings;
            let (subjects, settings_are_invalid) = (settings.subjects.clone(), !settings.faults.is_empty());
            status.insert(team.clone(), TeamStatus { subjects, settings_are_invalid, faults });
        }
        Secrets { keyring, teams: status }
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
    use crate::mounted::reload::{ReloadMetrics, Reloading};
    use crate::telemetry::metrics::Registry;

    #[test]
    fn removes_one_trailing_newline() {
        assert_eq!(without_newline(b"s3cret\n"), b"s3cret");
        assert_eq!(without_newline(b"s3cret\r\n"), b"s3cret");
        assert_eq!(without_newline(b"s3cret\n\n"), b"s3cret\n");
        assert_eq!(without_newline(b"s3cret"), b"s3cret");
        assert_eq!(without_newline(b"s3cret\r"), b"s3cret\r");
    }

    fn top(sources: &SecretSources) -> TeamSecrets {
        let files = sources.read().expect("a folder").tree.remove(&Team::TOP).expect("the top level");
        TeamSecrets::read(files)
    }

    fn start(sources: SecretSources) -> Result<Reloading<SecretSources>, Faults> {
        Reloading::start(sources, &ReloadMetrics::register(&Registry::default()))
    }

    fn value(value: &str) -> SecretSources {
        SecretSources { paths: Vec::new(), value: Some(value.to_owned().into()) }
    }

    #[test]
    fn rejects_blank_secret_and_names_source() {
        for blank in ["", " ", "\t\n ", "\u{a0}", "\0", "\0\0\0", " \0", "\u{feff}", "\"\"", "''"] {
            let error = start(value(blank)).map(drop).expect_err("a blank secret").to_string();
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
            let secrets = top(&value(secret));
            assert_eq!((secrets.keys.len(), secrets.odd.len()), (1, 1), "{secret:?}");
            assert!(secrets.odd[0].contains(oddity) && !secrets.odd[0].contains("horse"), "{}", secrets.odd[0]);
        }
        assert!(top(&value("correct \"horse")).odd.is_empty());
    }

    #[test]
    fn unusable_files_do_not_hide_usable_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let gone = PathBuf::from("/no/such/file");
        let sources = SecretSources {
            paths: vec![folder.path().to_owned(), gone.clone()],
            value: Some("third secret".to_owned().into()),
        };
        assert_eq!(top(&sources).unusable.len(), 2, "an empty folder and a missing file");
        std::fs::write(folder.path().join("a"), "first secret\n").expect("a file");
        std::fs::write(folder.path().join("b"), "\n").expect("a file");
        std::fs::write(folder.path().join(".hidden"), "").expect("a file");
        std::os::unix::fs::symlink("nowhere", folder.path().join("c")).expect("a link");
        let secrets = top(&sources);
        let unusable: Vec<String> = secrets.unusable.iter().map(ToString::to_string).collect();
        assert_eq!((secrets.keys.len(), unusable.len()), (2, 3), "{unusable:?}");
        assert!(unusable[0].contains("/b is empty") && unusable[1].contains("/c"), "{unusable:?}");
        assert!(start(sources).is_ok());
    }

    #[test]
    fn debug_hides_secret() {
        let sources = value("hunter2 hunter2");
        let secrets = top(&sources);
        assert!(!format!("{sources:?} {secrets:?}").contains("hunter2"));
    }
}
