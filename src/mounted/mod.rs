//! Reads mounted ConfigMaps and Secrets, files or folders, in a consistent state.
//!
//! The kubelet writes a new folder beside the old one and then switches the link `..data` to it. A reader that resolves
//! the link once sees only old files or only new ones. A [`Fingerprint`] detects changes.

mod fingerprint;
mod folder;
pub(crate) mod reload;
pub(crate) mod secrets;
pub(crate) mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::team::Team;
pub(crate) use fingerprint::Fingerprint;
use folder::{current_folder, mounted_folders, names};

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

/// The files of each team, and those of the top level. Where all files belong to teams, there is no top level.
pub(crate) type Tree = BTreeMap<Team, Files>;

/// The mounted files of one team.
#[derive(Debug, Default)]
pub(crate) struct Files {
    /// The folders (or the file) that they are read from.
    pub(crate) folders: Vec<PathBuf>,
    /// Each file, or why it cannot be read, sorted by name.
    pub(crate) entries: Vec<Result<File, ReadError>>,
    /// What else is in the folders: files that were not asked for, and folders inside a team's.
    pub(crate) others: Vec<PathBuf>,
}

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
    /// A link in a team's folder, or the folder itself, leads to what is not the team's.
    #[error("{} is a link that leads out of the team's folder; mount the file itself there", path.display())]
    Outside {
        /// The link.
        path: PathBuf,
    },
}

impl ReadError {
    /// The path that cannot be read.
    fn path(&self) -> &Path {
        match self {
            Self::Io { path, .. } | Self::TooLarge { path } | Self::Unstable { path } | Self::Outside { path } => path,
        }
    }
}

/// Reads a file, or those files of a folder and of each folder in it whose names `wanted` accepts. A file that cannot be
/// read does not hide the others. Also returns the path's fingerprint, which was the same before and after the read; after
/// [`ReadError::Unstable`] it is the last one.
/// Fails when the path itself cannot be read, or changes during each read.
pub(crate) fn read(path: &Path, wanted: fn(&str) -> bool) -> (Fingerprint, Result<Tree, ReadError>) {
    let mut before = Fingerprint::from_path(path);
    for _ in 0..MAX_READ_ATTEMPTS {
        let tree = read_once(path, wanted);
        let after = Fingerprint::from_path(path);
        if after == before {
            return (after, tree);
        }
        before = after;
    }
    (before, Err(ReadError::Unstable { path: path.to_owned() }))
}

fn read_once(path: &Path, wanted: fn(&str) -> bool) -> Result<Tree, ReadError> {
    let mut top = Files { folders: vec![path.to_owned()], ..Files::default() };
    if !fs::metadata(path).map_err(at(path))?.is_dir() {
        top.entries.push(read_file(path).map(|content| File { path: path.to_owned(), content }));
        return Ok(Tree::from([(Team::TOP, top)]));
    }
    let mut tree = Tree::new();
    let current = current_folder(path);
    for name in names(&current).map_err(at(path))? {
        let place = Place { real: current.join(&name), shown: path.join(&name), within: None };
        if !place.real.is_dir() {
            top.add(&place, &name, wanted);
        } else if name != LOST_AND_FOUND {
            tree.insert(Team::of_folder(&name), team_files(&place, wanted));
        }
    }
    // Volumes that are mounted inside of a ConfigMap's or Secret's.
    for name in mounted_folders(path, &current) {
        let place = Place { real: path.join(&name), shown: path.join(&name), within: None };
        tree.entry(Team::of_folder(&name)).or_insert_with(|| team_files(&place, wanted));
    }
    if tree.is_empty() || !top.is_empty() {
        tree.insert(Team::TOP, top);
    }
    Ok(tree)
}

/// In the top folder of every new volume of the usual file systems.
const LOST_AND_FOUND: &str = "lost+found";

/// Reads a team's folder. Nothing in it may be a link to somewhere else, such as another team's folder.
fn team_files(folder: &Place, wanted: fn(&str) -> bool) -> Files {
    let mut files = Files { folders: vec![folder.shown.clone()], ..Files::default() };
    let here = match folder.real_path() {
        Ok(real) => real,
        Err(error) => {
            files.entries.push(Err(error));
            return files;
        }
    };
    let current = current_folder(&folder.real);
    match names(&current).map_err(at(&folder.shown)) {
        Ok(names) => {
            for name in names {
                let (real, shown) = (current.join(&name), folder.shown.join(&name));
                files.add(&Place { real, shown, within: Some(here.clone()) }, &name, wanted);
            }
        }
        Err(error) => files.entries.push(Err(error)),
    }
    files
}

/// A file or folder: where it is now, and as the operator knows it.
struct Place {
    real: PathBuf,
    shown: PathBuf,
    /// The folder, without links, that it may not lead out of.
    within: Option<PathBuf>,
}

impl Place {
    /// The path without links. Fails when it leads somewhere else.
    fn real_path(&self) -> Result<PathBuf, ReadError> {
        let real = fs::canonicalize(&self.real).map_err(at(&self.shown))?;
        let is_inside = match &self.within {
            Some(folder) => real.starts_with(folder),
            None => {
                let parent = self.real.parent().and_then(|parent| fs::canonicalize(parent).ok());
                parent.zip(self.real.file_name()).is_some_and(|(parent, name)| real == parent.join(name))
            }
        };
        if is_inside { Ok(real) } else { Err(ReadError::Outside { path: self.shown.clone() }) }
    }

    fn read(&self) -> Result<File, ReadError> {
        if self.within.is_some() {
            self.real_path()?;
        }
        // Reading a pipe would wait for its writer.
        if !fs::metadata(&self.real).map_err(at(&self.shown))?.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(ReadError::Io { path: self.shown.clone(), source });
        }
        read_file(&self.real).map(|content| File { path: self.shown.clone(), content })
    }
}

impl Files {
    fn add(&mut self, place: &Place, name: &str, wanted: fn(&str) -> bool) {
        if wanted(name) && !place.real.is_dir() {
            self.entries.push(place.read());
        } else {
            self.others.push(place.shown.clone());
        }
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All files. Fails with the first one that cannot be read.
    pub(crate) fn complete(self) -> Result<Vec<File>, ReadError> {
        self.entries.into_iter().collect()
    }

    /// Adds the files of another mounted folder.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.folders.append(&mut other.folders);
        self.entries.append(&mut other.entries);
        self.others.append(&mut other.others);
    }

    /// Differs if anything else was read.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        for entry in &self.entries {
            match entry {
                Ok(file) => {
                    add(file.path.as_os_str().as_encoded_bytes());
                    add(&file.content);
                }
                Err(error) => add(error.to_string().as_bytes()),
            }
        }
        self.others.iter().chain(&self.folders).for_each(|path| add(path.as_os_str().as_encoded_bytes()));
        hash.finalize().into()
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_owned();
    move |source| ReadError::Io { path, source }
}

fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut content = Vec::new();
    fs::File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)).map_err(at(path))?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}

#[cfg(test)]
pub(crate) mod tests;
