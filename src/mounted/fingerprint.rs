//! Detects changes of mounted files without reading them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::folder::{current_folder, mounted_folders, names};

/// The metadata of a path, of its files and of those in its folders; differs after one is written, replaced, added or
/// removed, or its rights are changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint(Vec<(PathBuf, [u64; 3], [i64; 4])>);

impl Fingerprint {
    /// Takes the fingerprint of a path; unreadable files are left out.
    pub(super) fn from_path(path: &Path) -> Self {
        let mut fingerprint = Self::default();
        if fingerprint.look(path.to_owned()) {
            fingerprint.look_into(path, true);
        }
        fingerprint
    }

    /// Adds a file or folder. Returns whether it is a folder.
    fn look(&mut self, path: PathBuf) -> bool {
        let Ok(meta) = fs::metadata(&path) else { return false };
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        self.0.push((path, [meta.dev(), meta.ino(), meta.len()], times));
        meta.is_dir()
    }

    fn look_into(&mut self, folder: &Path, deeper: bool) {
        let current = current_folder(folder);
        let files = names(&current).unwrap_or_default().into_iter().map(|name| current.join(name));
        let volumes = mounted_folders(folder, &current).into_iter().map(|name| folder.join(name));
        for path in files.chain(volumes) {
            if self.look(path.clone()) && deeper {
                self.look_into(&path, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn differs_after_rights_are_changed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a");
        fs::write(&file, "x").expect("a file");
        let before = Fingerprint::from_path(folder.path());
        assert_eq!(before, Fingerprint::from_path(folder.path()));
        // The clock of files may be slower than this test.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("rights");
        assert_ne!(before, Fingerprint::from_path(folder.path()));
    }
}
