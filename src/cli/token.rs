//! `token`: a short-lived token for one repository, for `git` or another program.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::github::{GitHubArgs, GitHubArgsError, parse_repository};
use super::{LogArgs, OutputArgs, print};
use crate::github::api::{ApiError, Permissions, RepositoryName, RepositoryToken};
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

/// Empty if it came from an annotation that a run does not have. (Clap must not see an `Option` here.)
type MaybeRepository = std::option::Option<RepositoryName>;

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
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Gets a token, and prints it or writes it for git.
pub(super) fn run(args: &TokenArgs) -> ExitCode {
    let _log = log::init(args.log.log_format, &args.log.log_level);
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
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn token(args: &TokenArgs, repository: &RepositoryName) -> Result<(), TokenError> {
    let permissions = Permissions::parse(args.permission.iter().map(String::as_str)).map_err(TokenError::Permission)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TokenError::Start)?;
    let RepositoryToken { token, expires_at } = runtime.block_on(async {
        let mut api = args.github.api()?;
        Ok::<_, TokenError>(api.repository_token(repository, &permissions).await?)
    })?;
    let repository = repository.as_str();
    if let Some(folder) = &args.git_credentials {
        write_for_git(folder, &args.github.git_address(), &token)?;
        if args.output.is_json() {
            print(json!({"repository": repository, "expiresAt": expires_at, "gitCredentials": folder}));
        } else {
            tracing::info!("git is authenticated for {repository} with HOME={}", folder.display());
        }
    } else if args.output.is_json() {
        print(json!({"repository": repository, "expiresAt": expires_at, "token": token.expose_secret()}));
    } else {
        print(token.expose_secret());
    }
    Ok(())
}

/// Writes the files that git reads from its home folder, readable by the owner only.
fn write_for_git(folder: &Path, address: &str, token: &SecretString) -> Result<(), TokenError> {
    fs::create_dir_all(folder).map_err(|source| TokenError::Write { path: folder.to_owned(), source })?;
    let (scheme, host) = address.split_once("://").unwrap_or(("https", address));
    let credentials = folder.join(".git-credentials");
    let line = format!("{scheme}://x-access-token:{}@{host}\n", token.expose_secret());
    write_private(&credentials, &line)?;
    let config = format!(
        "[credential \"{address}\"]\n\thelper = \"store --file={}\"\n\
         [url \"{address}/\"]\n\tinsteadOf = git@{host}:\n\tinsteadOf = ssh://git@{host}/\n",
        credentials.display()
    );
    write_private(&folder.join(".gitconfig"), &config)
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
