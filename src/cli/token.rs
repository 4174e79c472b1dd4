//! `token`: a short-lived token for one repository, for `git` or another program.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
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
    #[error("{}: git cannot be told of a folder with quotes or white space in its name; choose another", .0.display())]
    Name(PathBuf),
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
    let runtime = super::runtime().map_err(TokenError::Start)?;
    let InstallationToken { token, expires_at } = runtime.block_on(async {
        let mut api = args.github.api()?;
        Ok::<_, TokenError>(api.installation_token(&repository.into(), &permissions).await?)
    })?;
    let repository = repository.as_str();
    if let Some(folder) = &args.git_credentials {
        write_for_git(folder, &args.github.git_address(), &token)?;
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

/// The first line of a `.gitconfig` that this command has written.
const MARK: &str = "# Written by github-trigger token.\n";

/// Writes the files that git reads from its home folder, readable by the owner only.
fn write_for_git(folder: &Path, address: &str, token: &SecretString) -> Result<(), TokenError> {
    let failed = |source| TokenError::Write { path: folder.to_owned(), source };
    let folder = std::path::absolute(folder).map_err(failed)?;
    fs::create_dir_all(&folder).map_err(failed)?;
    let (credentials, config) = (folder.join(".git-credentials"), folder.join(".gitconfig"));
    // A person's own home stays as it is.
    let is_ours = fs::read_to_string(&config).is_ok_and(|text| text.starts_with(MARK));
    if !is_ours && (config.exists() || credentials.exists()) {
        return Err(TokenError::Foreign(folder));
    }
    let name = credentials.display().to_string();
    if name.contains(['"', '\\', '\n', '\'']) || name.contains(char::is_whitespace) {
        return Err(TokenError::Name(folder));
    }
    let (scheme, host) = address.split_once("://").unwrap_or(("https", address));
    let text = format!(
        "{MARK}[credential \"{address}\"]\n\thelper = \"store --file={name}\"\n\
         [url \"{address}/\"]\n\tinsteadOf = git@{host}:\n\tinsteadOf = ssh://git@{host}/\n"
    );
    write_private(&config, &text)?;
    write_private(&credentials, &format!("{scheme}://x-access-token:{}@{host}\n", token.expose_secret()))
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
