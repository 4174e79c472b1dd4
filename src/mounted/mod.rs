//! Reads mounted ConfigMaps and Secrets, files or folders, in a consistent state.
//!
//! The kubelet writes a new folder beside the old one and then switches the link `..data` to it. A reader that resolves
//! the link once sees only old files or only new ones. A [`Fingerprint`] detects changes.

pub(crate) mod reload;
pub(crate) mod secrets;

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Maximum file size in bytes. A ConfigMap or Secret has at most 1 MiB (Kubernetes' documentation).
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Maximum number of reads of a folder that changes during each of them.
const MAX_READ_ATTEMPTS: usize = 5;

/// A file that was read. Its `Debug` output hides the content, which may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct File {
    /// The path as the operator knows it, without `..data`.
    pub(crate) path: PathBuf,
    /// The file's bytes, unchanged.
    pub(crate) content: Vec<u8>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("path", &self.path).field("bytes", &self.content.len()).finish()
    }
}

/// The metadata of a path and its files; differs after a file is written, replaced, added or removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint(Vec<(PathBuf, u64, u64, i64, i64, u64)>);

/// Why a mounted path cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The operating system reported an error.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The unreadable path.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file is larger than [`MAX_FILE_BYTES`].
    #[error("{} is larger than {MAX_FILE_BYTES} bytes; is it from a ConfigMap or Secret?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The path changed during each read.
    #[error("{} keeps changing while it is read; write it less often", path.display())]
    Unstable {
        /// The path.
        path: PathBuf,
    },
}

/// Reads a file, or those files of a folder whose names `wanted` accepts, sorted by name.
/// Fails when a file cannot be read or is too large, or the path changes during each read.
pub(crate) fn read(path: &Path, wanted: fn(&str) -> bool) -> Result<Vec<File>, ReadError> {
    read_each(path, wanted)?.into_iter().collect()
}

/// Reads like [`read`], but a file that cannot be read does not hide the others.
/// Fails when the path itself cannot be read, or changes during each read.
pub(crate) fn read_each(path: &Path, wanted: fn(&str) -> bool) -> Result<Vec<Result<File, ReadError>>, ReadError> {
    for _ in 0..MAX_READ_ATTEMPTS {
        let before = Fingerprint::from_path(path);
        let outcome = read_once(path, wanted);
        if Fingerprint::from_path(path) == before {
            return outcome;
        }
    }
    Err(ReadError::Unstable { path: path.to_owned() })
}

/// Names of the files in a folder, sorted; none for a file, and what cannot be read is left out.
pub(crate) fn file_names(path: &Path) -> Vec<String> {
    let folder = current_folder(path);
    let names = names(&folder).unwrap_or_default().into_iter();
    names.filter(|name| fs::metadata(folder.join(name)).is_ok_and(|meta| meta.is_file())).collect()
}

fn read_once(path: &Path, wanted: fn(&str) -> bool) -> Result<Vec<Result<File, ReadError>>, ReadError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| ReadError::Io { path, source }
    };
    if !fs::metadata(path).map_err(at(path))?.is_dir() {
        return Ok(vec![read_file(path).map(|content| File { path: path.to_owned(), content })]);
    }
    let folder = current_folder(path);
    let mut files = Vec::new();
    for name in names(&folder).map_err(at(path))? {
        let real = folder.join(&name);
        if !wanted(&name) {
            continue;
        }
        match fs::metadata(&real).map_err(at(&real)) {
            Ok(meta) if meta.is_dir() => {}
            // Reading a pipe would wait for its writer.
            Ok(meta) if !meta.is_file() => {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
                files.push(Err(ReadError::Io { path: path.join(&name), source }));
            }
            Ok(_) => files.push(read_file(&real).map(|content| File { path: path.join(&name), content })),
            Err(error) => files.push(Err(error)),
        }
    }
    Ok(files)
}

fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut content = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content))
        .map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

/// The current target of the kubelet's link `..data`; without such a link, the folder itself.
fn current_folder(path: &Path) -> PathBuf {
    match fs::read_link(path.join("..data")) {
        Ok(target) => path.join(target),
        Err(_) => path.to_owned(),
    }
}

/// Sorted names in a folder, without hidden files (the kubelet's own names begin with `..`).
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
    /// Takes the fingerprint of a path; unreadable files are left out.
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

/// Whether the kubelet manages this path; then it changes atomically, and a change can be read at once.
pub(crate) fn is_atomic(path: &Path) -> bool {
    let linked = |folder: &Path| fs::symlink_metadata(folder.join("..data")).is_ok_and(|meta| meta.is_symlink());
    linked(path) || path.parent().is_some_and(linked)
}

#[cfg(test)]
pub(crate) mod tests;
