//! What the kubelet makes of a volume's folder: hidden versions, and a link `..data` to the current one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The current target of the kubelet's link `..data`; without such a link, the folder itself.
pub(super) fn current_folder(path: &Path) -> PathBuf {
    match fs::read_link(path.join("..data")) {
        Ok(target) => path.join(target),
        Err(_) => path.to_owned(),
    }
}

/// Sorted names in a folder, without hidden files (the kubelet's own names begin with `..`).
pub(super) fn names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if let Ok(name) = entry?.file_name().into_string()
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Names of the folders beside the kubelet's links. Empty if `path` is itself the current folder.
pub(super) fn mounted_folders(path: &Path, current: &Path) -> BTreeSet<String> {
    if path == current {
        return BTreeSet::new();
    }
    let folders = fs::read_dir(path).into_iter().flatten().flatten();
    let folders = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let names = folders.filter_map(|folder| folder.file_name().into_string().ok());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Whether the kubelet manages this path; then it changes atomically, and a change can be read at once.
pub(super) fn is_atomic(path: &Path) -> bool {
    let linked = |folder: &Path| fs::symlink_metadata(folder.join("..data")).is_ok_and(|meta| meta.is_symlink());
    if linked(path) || path.parent().is_some_and(linked) {
        return true;
    }
    // A folder with nothing but a volume for each team.
    let entries: Vec<PathBuf> = names(path).unwrap_or_default().iter().map(|name| path.join(name)).collect();
    !entries.is_empty() && entries.iter().all(|entry| linked(entry))
}
