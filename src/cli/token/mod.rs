//! `token`: a short-lived token for one repository, for `git` or another program; or a deploy key, for `git`.

mod deploy_key;

pub(super) use deploy_key::DeployKey;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::github::{GitHubArgs, GitHubArgsError, MaybeRepository, parse_repository};
use super::{LogArgs, OutputArgs, print};
use crate::github::api::{ApiError, InstallationToken, Permissions, RepositoryName};
use crate::telemetry::log;

/// The flags of `token`.
#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// The repository.
    #[arg(long, env = "GITHUB_TRIGGER_REPOSITORY", value_name = "OWNER/NAME", value_parser = parse_repository, hide_env_values = true)]
    repository: MaybeRepository,
    /// A permission of the token, for example contents:read; can be repeated.
    #[arg(long, value_name = "NAME:LEVEL", value_delimiter = ',', default_value = "contents:read")]
    permission: Vec<String>,
    /// Write .git-credentials and .gitconfig for git (HOME=DIR) there, instead of printing the token.
    #[arg(long, value_name = "DIR")]
    git_credentials: Option<PathBuf>,
    /// Do nothing, and succeed, if the credential's file or the repository is not there.
    #[arg(long)]
    optional: bool,
    #[command(flatten)]
    github: GitHubArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    log: LogArgs,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("--permission: {0}")]
    Permission(String),
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Args(#[from] GitHubArgsError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error("{} has files of git that this command has not written; choose another folder", .0.display())]
    Foreign(PathBuf),
    #[error("{}: git cannot be told of a folder with quotes, white space or other characters of a shell in its name; choose another", .0.display())]
    Name(PathBuf),
    #[error("cannot read {}: {source}; a deploy key needs `deploy-key` and `known_hosts` in its Secret", path.display())]
    Key { path: PathBuf, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Gets a token, and prints it or writes it for git.
pub(super) fn run(args: &TokenArgs) -> ExitCode {
    let _log = log::init(args.log.log_format, &args.log.log_level);
    // A deploy key is of one repository, whose name it does not need.
    if let (Some(folder), Some(key)) = (&args.git_credentials, args.github.deploy_key()) {
        return match deploy_key::write_for_git(folder, &args.github.git_address(), &key) {
            Ok(()) => {
                tracing::info!("git has the deploy key with HOME={}", folder.display());
                ExitCode::SUCCESS
            }
            Err(error) => {
                tracing::error!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    if args.optional && (args.repository.is_none() || !args.github.has_credential()) {
        tracing::info!("no credential for GitHub is mounted, or no repository is given; there is no token");
        return ExitCode::SUCCESS;
    }
    let Some(repository) = &args.repository else {
        tracing::error!("--repository must not be empty");
        return ExitCode::FAILURE;
    };
    match token(args, repository) {
        Ok(()) => ExitCode::SUCCESS,
        // A public repository needs no token; the clone says it if this one does.
        Err(TokenError::Api(error)) if args.optional && (error.is_temporary() || error.is_of_one_object()) => {
            tracing::warn!("{error}; going on without a token");
            ExitCode::SUCCESS
        }
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn token(args: &TokenArgs, repository: &RepositoryName) -> Result<(), TokenError> {
    let permissions = Permissions::parse(args.permission.iter().map(String::as_str)).map_err(TokenError::Permission)?;
    let runtime = crate::cli::runtime().map_err(TokenError::Start)?;
    let InstallationToken { token, expires_at } = runtime.block_on(async {
        let mut api = args.github.api()?;
        Ok::<_, TokenError>(api.installation_token(&repository.into(), &permissions).await?)
    })?;
    let repository = repository.as_str();
    if let Some(folder) = &args.git_credentials {
        write_for_git(folder, &args.github.git_address(), args.github.ca_file(), &token)?;
        if args.output.is_json() {
            print(json!({"repository": repository, "expiresAt": expires_at, "gitCredentials": folder}));
        } else {
            tracing::info!("git is authenticated for {repository} with HOME={}", folder.display());
        }
        return Ok(());
    }
    let line = if args.output.is_json() {
        json!({"repository": repository, "expiresAt": expires_at, "token": token.expose_secret()}).to_string()
    } else {
        token.expose_secret().to_owned()
    };
    // A token that was not printed is an error.
    let written = writeln!(io::stdout().lock(), "{line}").and_then(|()| io::stdout().flush());
    written.map_err(|source| TokenError::Write { path: "standard output".into(), source })
}

/// Characters of a token that are encoded in an address; GitHub's have none of the others.
const IN_AN_ADDRESS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');
/// The first line of a `.gitconfig` that this command has written.
const MARK: &str = "# Written by github-trigger token.\n";

/// A folder for git's files, as an absolute path. A person's own home stays as it is.
/// Fails when it has other files of git, or a name that git's shell would read.
fn home(folder: &Path) -> Result<PathBuf, TokenError> {
    let failed = |source| TokenError::Write { path: folder.to_owned(), source };
    let folder = std::path::absolute(folder).map_err(failed)?;
    fs::create_dir_all(&folder).map_err(failed)?;
    let config = folder.join(".gitconfig");
    let is_ours = fs::read_to_string(&config).is_ok_and(|text| text.starts_with(MARK));
    if !is_ours && (config.exists() || folder.join(".git-credentials").exists()) {
        return Err(TokenError::Foreign(folder));
    }
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@,:=%".contains(c);
    if folder.display().to_string().chars().all(is_plain) { Ok(folder) } else { Err(TokenError::Name(folder)) }
}

/// Writes the files that git reads from its home folder, readable by the owner only.
fn write_for_git(folder: &Path, address: &str, ca: Option<&Path>, token: &SecretString) -> Result<(), TokenError> {
    let folder = home(folder)?;
    let credentials = folder.join(".git-credentials");
    let name = credentials.display();
    let (scheme, host) = address.split_once("://").unwrap_or(("https", address));
    // Without the port, which an address of ssh does not have.
    let ssh = host.split(':').next().unwrap_or_default();
    let mut text = format!(
        "{MARK}[credential \"{address}\"]\n\thelper = \"store --file={name}\"\n\
         [url \"{address}/\"]\n\tinsteadOf = git@{ssh}:\n\tinsteadOf = ssh://git@{ssh}/\n"
    );
    if let Some(ca) = ca {
        let ca = std::path::absolute(ca).map_err(|source| TokenError::Write { path: ca.to_owned(), source })?;
        text.push_str(&format!("[http \"{address}/\"]\n\tsslCAInfo = \"{}\"\n", ca.display()));
    }
    write_private(&folder.join(".gitconfig"), &text)?;
    let token = utf8_percent_encode(token.expose_secret(), IN_AN_ADDRESS);
    write_private(&credentials, &format!("{scheme}://x-access-token:{token}@{host}\n"))
}

fn write_private(path: &Path, content: &str) -> Result<(), TokenError> {
    let failed = |source| TokenError::Write { path: path.to_owned(), source };
    // A file that was there keeps its mode when it is opened.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)
}
