//! `token`: a short-lived token for one repository, for `git` or another program; or a deploy key, for `git`.

mod deploy_key;
mod git_home;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use secrecy::ExposeSecret;
use serde_json::json;

use super::args::{LogArgs, OutputArgs};
use super::github::{GitHubArgs, GitHubArgsError, MaybeRepository, parse_repository};
use super::process::{print, runtime};
use crate::github::api::{ApiError, InstallationToken, PermissionError, Permissions, RepositoryName};
use crate::telemetry::log;
use git_home::{GitHomeError, write_token};

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
    Permission(#[from] PermissionError),
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Args(#[from] GitHubArgsError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Git(#[from] GitHomeError),
    #[error("cannot write standard output: {0}")]
    Print(#[source] io::Error),
}

/// Gets a token, and prints it or writes it for git.
pub(super) fn run(args: &TokenArgs) -> ExitCode {
    let _log = log::init(args.log.log_format, &args.log.log_level);
    // A deploy key is of one repository, whose name it does not need.
    if let (Some(folder), Some(key)) = (&args.git_credentials, args.github.deploy_key()) {
        return match deploy_key::write_key(folder, &args.github.git_address(), &key) {
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
        Err(TokenError::Api(error))
            if args.optional
                && (error.is_temporary()
                    || error.is_of_one_object()
                    || matches!(error, ApiError::NotInstalled { .. })) =>
        {
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
    let permissions = Permissions::parse(args.permission.iter().map(String::as_str))?;
    let InstallationToken { token, expires_at } = runtime().map_err(TokenError::Start)?.block_on(async {
        let mut api = args.github.api()?;
        Ok::<_, TokenError>(api.installation_token(&repository.into(), &permissions).await?)
    })?;
    let repository = repository.as_str();
    if let Some(folder) = &args.git_credentials {
        write_token(folder, &args.github.git_address(), args.github.ca_file(), &token)?;
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
    written.map_err(TokenError::Print)
}
