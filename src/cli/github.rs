//! The flags of GitHub's API: where it is, and who we are.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::github::api::{Api, Credential, RepositoryName};
use crate::remote::{RemoteError, Server};

/// Address of the public GitHub's API.
const PUBLIC_API: &str = "https://api.github.com";

/// Address and credential of GitHub's API.
#[derive(Debug, Clone, Args)]
pub(super) struct GitHubArgs {
    /// Address of GitHub's API; of a GitHub Enterprise Server <https://HOST/api/v3>.
    #[arg(
        long,
        env = "GITHUB_API_URL",
        default_value = PUBLIC_API,
        value_name = "URL",
        hide_env_values = true
    )]
    github_api_url: String,
    /// File with a token.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["github_app_id", "github_app_key_file", "github_credential_dir"])]
    github_token_file: Option<PathBuf>,
    /// Id of a GitHub App, with --github-app-key-file.
    #[arg(long, value_name = "N", requires = "github_app_key_file", value_parser = parse_app)]
    github_app_id: Option<String>,
    /// File with the App's private key.
    #[arg(long, value_name = "FILE", requires = "github_app_id")]
    github_app_key_file: Option<PathBuf>,
    /// Folder of a mounted Secret with `token`, or with `app-id` and `private-key`, instead of the three flags above.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["github_app_id", "github_app_key_file"])]
    github_credential_dir: Option<PathBuf>,
    /// File with the CA certificates to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    github_ca_file: Option<PathBuf>,
    /// Seconds in which failures of GitHub that may pass are tried again.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    github_patience: u64,
}

/// A mounted deploy key.
pub(super) struct DeployKey {
    /// The private key.
    pub(super) key: PathBuf,
    /// The keys of the hosts, as `ssh-keyscan` prints them.
    pub(super) known_hosts: PathBuf,
}

/// Why GitHub's API cannot be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitHubArgsError {
    #[error(
        "no credential for GitHub: give --github-token-file, or --github-app-id with --github-app-key-file, or \
         --github-credential-dir"
    )]
    NoCredential,
    #[error("{} has no credential for GitHub: it needs the file `token`, or `app-id` and `private-key`", .0.display())]
    Folder(PathBuf),
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

/// The credential in a mounted Secret.
fn from_folder(folder: &Path) -> Result<Credential, GitHubArgsError> {
    let [token, id, key_file] = ["token", "app-id", "private-key"].map(|name| folder.join(name));
    if token.is_file() {
        return Ok(Credential::TokenFile(token));
    }
    let invalid = || GitHubArgsError::Folder(folder.to_owned());
    let id = fs::read_to_string(&id).map_err(|_| invalid())?;
    if !key_file.is_file() {
        return Err(invalid());
    }
    Ok(Credential::App { id: parse_app(id.trim()).map_err(|_| invalid())?, key_file })
}

/// An App's id, or its client id.
fn parse_app(text: &str) -> Result<String, &'static str> {
    let legal =
        !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    if legal { Ok(text.to_owned()) } else { Err("an App's id is a number, on the App's page on GitHub") }
}

/// The repository of a command. The flag is required, and its value empty in a pipeline whose run has no such annotation; a
/// plain `Option` would make the flag optional to clap.
pub(super) type MaybeRepository = Option<RepositoryName>;

/// A repository's name on the command line; empty if it came from an annotation that a run does not have.
pub(super) fn parse_repository(text: &str) -> Result<MaybeRepository, &'static str> {
    match text {
        "" => Ok(None),
        text => parse_name(text).map(Some),
    }
}

/// A repository's name on the command line.
pub(super) fn parse_name(text: &str) -> Result<RepositoryName, &'static str> {
    RepositoryName::parse(text).ok_or("write OWNER/NAME")
}

/// An organisation's name on the command line.
pub(super) fn parse_organization(text: &str) -> Result<String, &'static str> {
    let legal = (1..=100).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if legal { Ok(text.to_owned()) } else { Err("write an organisation's name, without `/`") }
}

impl GitHubArgs {
    /// Whether it is the public GitHub.
    pub(super) fn is_public(&self) -> bool {
        self.github_api_url == PUBLIC_API
    }

    /// The credential. Fails when no flag names one, or a folder has none.
    fn credential(&self) -> Result<Credential, GitHubArgsError> {
        if let Some(folder) = &self.github_credential_dir {
            return from_folder(folder);
        }
        match (&self.github_token_file, &self.github_app_id, &self.github_app_key_file) {
            (Some(file), ..) => Ok(Credential::TokenFile(file.clone())),
            (None, Some(id), Some(key_file)) => Ok(Credential::App { id: id.clone(), key_file: key_file.clone() }),
            _ => Err(GitHubArgsError::NoCredential),
        }
    }

    /// Whether a flag names a credential.
    pub(super) fn is_given(&self) -> bool {
        self.github_credential_dir.is_some() || self.github_token_file.is_some() || self.github_app_id.is_some()
    }

    /// The deploy key of a mounted Secret that has no other credential.
    pub(super) fn deploy_key(&self) -> Option<DeployKey> {
        let folder = self.github_credential_dir.as_ref().filter(|_| !self.has_credential())?;
        let [key, known_hosts] = ["deploy-key", "known_hosts"].map(|name| folder.join(name));
        key.is_file().then_some(DeployKey { key, known_hosts })
    }

    /// The file with the CA certificates of GitHub.
    pub(super) fn ca_file(&self) -> Option<&Path> {
        self.github_ca_file.as_deref()
    }

    /// Whether a credential is named, and its file is there.
    pub(super) fn has_credential(&self) -> bool {
        match &self.github_credential_dir {
            // Half a credential is a mistake, and none is not.
            Some(folder) => ["token", "app-id", "private-key"].iter().any(|name| folder.join(name).is_file()),
            None => self.credential().is_ok_and(|credential| credential.file().is_file()),
        }
    }

    /// The API. Call it inside a runtime.
    /// Fails when a flag is missing or invalid.
    pub(super) fn api(&self) -> Result<Api, GitHubArgsError> {
        let credential = self.credential()?;
        let server = Server::new(&self.github_api_url, self.github_ca_file.as_deref())?;
        Ok(Api::new(server, credential, Duration::from_secs(self.github_patience)))
    }

    /// Address of the host that `git` clones from: the API's own, without `api.`.
    pub(super) fn git_address(&self) -> String {
        let (scheme, rest) = self.github_api_url.split_once("://").unwrap_or(("https", &self.github_api_url));
        let host = rest.split('/').next().unwrap_or_default();
        format!("{scheme}://{}", host.strip_prefix("api.").unwrap_or(host))
    }
}
