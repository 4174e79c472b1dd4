//! A home folder for `git`, with what it needs to clone a private repository.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};

/// Characters of a token that are encoded in an address; GitHub's have none of the others.
const IN_AN_ADDRESS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');
/// The first line of a `.gitconfig` that this command has written.
pub(super) const MARK: &str = "# Written by github-trigger token.\n";

/// Why git's files are not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitHomeError {
    /// The folder is a person's own home.
    #[error("{} has files of git that this command has not written; choose another folder", .0.display())]
    Foreign(PathBuf),
    /// A name that a shell would read.
    #[error("{}: git cannot be told of a folder with quotes, white space or other characters of a shell in its name; choose another", .0.display())]
    Name(PathBuf),
    /// A file of the deploy key cannot be read.
    #[error("cannot read {}: {source}; a deploy key needs `deploy-key` and `known_hosts` in its Secret", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A folder for git's files, as an absolute path. A person's own home stays as it is.
/// Fails when it has other files of git, or a name that git's shell would read.
pub(super) fn home(folder: &Path) -> Result<PathBuf, GitHomeError> {
    let failed = |source| GitHomeError::Write { path: folder.to_owned(), source };
    let folder = std::path::absolute(folder).map_err(failed)?;
    fs::create_dir_all(&folder).map_err(failed)?;
    let config = folder.join(".gitconfig");
    let is_ours = fs::read_to_string(&config).is_ok_and(|text| text.starts_with(MARK));
    if !is_ours && (config.exists() || folder.join(".git-credentials").exists()) {
        return Err(GitHomeError::Foreign(folder));
    }
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+@,:=%".contains(c);
    if folder.display().to_string().chars().all(is_plain) { Ok(folder) } else { Err(GitHomeError::Name(folder)) }
}

/// Writes a file that only its owner can read.
pub(super) fn write_private(path: &Path, content: &str) -> Result<(), GitHomeError> {
    let failed = |source| GitHomeError::Write { path: path.to_owned(), source };
    // A file that was there keeps its mode when it is opened.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)
}

/// Writes a token into the files that git reads from its home folder, readable by the owner only.
pub(super) fn write_token(
    folder: &Path,
    address: &str,
    ca: Option<&Path>,
    token: &SecretString,
) -> Result<(), GitHomeError> {
    let folder = home(folder)?;
    let credentials = folder.join(".git-credentials");
    let name = credentials.display();
    let (scheme, host) = address.split_once("://").unwrap_or(("https", address));
    // Without the port, which an address of ssh does not have.
    let ssh = host.split(':').next().unwrap_or_default();
    // Only asked: git would have it forget the token after one answer of 401.
    let mut text = format!(
        "{MARK}[credential \"{address}\"]\n\thelper = \"!f() {{ test $1 = get && git credential-store --file={name} get; }}; f\"\n\
         [url \"{address}/\"]\n\tinsteadOf = git@{ssh}:\n\tinsteadOf = ssh://git@{ssh}/\n"
    );
    if let Some(ca) = ca {
        let ca = std::path::absolute(ca).map_err(|source| GitHomeError::Write { path: ca.to_owned(), source })?;
        text.push_str(&format!("[http \"{address}/\"]\n\tsslCAInfo = \"{}\"\n", ca.display()));
    }
    write_private(&folder.join(".gitconfig"), &text)?;
    let token = utf8_percent_encode(token.expose_secret(), IN_AN_ADDRESS);
    write_private(&credentials, &format!("{scheme}://x-access-token:{token}@{host}\n"))
}
