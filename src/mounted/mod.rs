//! Reading of mounted ConfigMaps and Secrets: a file or a folder, never half of one.
//!
//! The kubelet writes a new folder beside the old one and then moves the link `..data` to it, so that a reader that
//! resolves the link once sees either all of the old or all of the new. A [`Fingerprint`] tells whether to read again.

pub(crate) mod reload;
pub(crate) mod secrets;

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A ConfigMap or Secret holds at most 1 MiB (Kubernetes' documentation); a file far larger is a mistake.
const MAX_FILE: u64 = 4 << 20;
/// How often a folder that changes while it is read is read again.
const ATTEMPTS: usize = 5;

/// A file's name as its owner knows it, and its content, which may be a secret and is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// The path below what was asked for, without the detour over `..data`.
    pub(crate) path: PathBuf,
    /// The content.
    pub(crate) content: Vec<u8>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).field("bytes", &self.content.len()).finish()
    }
}

/// What a path looked like: changes when a file is written, replaced, added or removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint(Vec<(PathBuf, u64, u64, i64, i64, u64)>);

/// Why a mounted path cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The operating system said no.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// What was to be read.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// No ConfigMap or Secret can hold it.
    #[error("{} is larger than {MAX_FILE} bytes; no ConfigMap or Secret holds such a file", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// It never stood still.
    #[error("{} keeps changing while it is read", path.display())]
    Restless {
        /// Which path.
        path: PathBuf,
    },
}

/// Reads a file, or the files of a folder whose names `wanted` accepts, in the order of their names.
/// Fails when something cannot be read, or changes each time that it is read.
pub(crate) fn read(path: &Path, wanted: fn(&str) -> bool) -> Result<Vec<File>, ReadError> {
    for _ in 0..ATTEMPTS {
        let before = Fingerprint::from_path(path);
        let outcome = read_once(path, wanted);
        if Fingerprint::from_path(path) == before {
            return outcome;
        }
    }
    Err(ReadError::Restless { path: path.to_owned() })
}

fn read_once(path: &Path, wanted: fn(&str) -> bool) -> Result<Vec<File>, ReadError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ReadError::Io { path, source }
    };
    if !fs::metadata(path).map_err(at(path))?.is_dir() {
        return Ok(vec![File { path: path.to_owned(), content: read_file(path)? }]);
    }
    let folder = current_folder(path);
    let mut files = Vec::new();
    for name in names(&folder).map_err(at(path))? {
        let real = folder.join(&name);
        if wanted(&name) && fs::metadata(&real).map_err(at(&real))?.is_file() {
            files.push(File { path: path.join(&name), content: read_file(&real)? });
        }
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut content = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content))
        .map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    if content.len() as u64 > MAX_FILE {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

/// The folder that the kubelet's link points to now; without such a link the folder itself.
fn current_folder(path: &Path) -> PathBuf {
    match fs::read_link(path.join("..data")) {
        Ok(target) => path.join(target),
        Err(_) => path.to_owned(),
    }
}

/// The names in a folder, sorted, without hidden ones (the kubelet's own begin with `..`).
fn names(folder: &Path) -> io::Result<Vec<String>> {
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

impl Fingerprint {
    /// Looks at a path; what cannot be looked at is part of the picture by its absence.
    pub(crate) fn from_path(path: &Path) -> Self {
        let mut seen = Vec::new();
        let mut look = |path: PathBuf| {
            if let Ok(meta) = fs::metadata(&path) {
                seen.push((path, meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()));
            }
        };
        look(path.to_owned());
        if path.is_dir() {
            let folder = current_folder(path);
            names(&folder).unwrap_or_default().into_iter().for_each(|name| look(folder.join(name)));
        }
        Self(seen)
    }
}

/// Whether the kubelet keeps this path: then it changes in one step and may be read at once.
pub(crate) fn is_atomic(path: &Path) -> bool {
    let linked = |folder: &Path| fs::symlink_metadata(folder.join("..data")).is_ok_and(|meta| meta.is_symlink());
    linked(path) || path.parent().is_some_and(linked)
}

#[cfg(test)]
pub(crate) mod tests;
