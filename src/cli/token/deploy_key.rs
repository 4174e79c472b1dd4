//! A deploy key of one repository, for `git`: an SSH key in a mounted Secret, and the keys of GitHub's hosts.

use std::fs;
use std::path::{Path, PathBuf};

use super::git_home::{GitHomeError, MARK, home, write_private};
use crate::cli::github::DeployKey;

/// Writes the key and the files that git reads from its home folder, readable by the owner only. Addresses of `https` are
/// fetched by SSH.
pub(super) fn write_key(folder: &Path, address: &str, key: &DeployKey) -> Result<(), GitHomeError> {
    let folder = home(folder)?;
    let read =
        |path: &PathBuf| fs::read_to_string(path).map_err(|source| GitHomeError::Key { path: path.clone(), source });
    let (own_key, own_hosts) = (folder.join(".deploy-key"), folder.join(".known_hosts"));
    // ssh wants a line break at the end, and a key that nobody else can read.
    write_private(&own_key, &format!("{}\n", read(&key.key)?.replace('\r', "").trim_end()))?;
    write_private(&own_hosts, &read(&key.known_hosts)?)?;
    let host = address.split_once("://").map_or(address, |(_, host)| host);
    let host = host.split(':').next().unwrap_or_default();
    let (own_key, own_hosts) = (own_key.display(), own_hosts.display());
    let text = format!(
        "{MARK}[core]\n\tsshCommand = ssh -i {own_key} -o IdentitiesOnly=yes -o UserKnownHostsFile={own_hosts} \
         -o StrictHostKeyChecking=yes -o BatchMode=yes\n\
         [url \"ssh://git@{host}/\"]\n\tinsteadOf = {address}/\n"
    );
    write_private(&folder.join(".gitconfig"), &text)
}
