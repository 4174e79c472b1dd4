//! A folder that is updated like a mounted ConfigMap, Secret or projected volume: atomically, by exchanging a link.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A folder with the kubelet's layout: files are links into `..data`.
pub struct Mount {
    folder: PathBuf,
    version: usize,
}

impl Mount {
    /// Replaces the content of a folder with `files` (name, content).
    pub fn over(folder: &Path, files: &[(&str, &str)]) -> Self {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                fs::remove_dir_all(path).expect("removed");
            } else {
                fs::remove_file(path).expect("removed");
            }
        }
        let mut mount = Self { folder: folder.to_owned(), version: 0 };
        mount.replace(files);
        mount
    }

    /// Replaces all files (name, content) in one step.
    pub fn replace(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let new = format!("..{}", self.version);
        fs::create_dir(self.folder.join(&new)).expect("a folder");
        for (name, content) in files {
            let file = self.folder.join(&new).join(name);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, content).expect("a file");
        }
        let old = fs::read_link(self.folder.join("..data")).ok();
        symlink(&new, self.folder.join("..data_tmp")).expect("a link");
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).expect("a rename");
        self.link(files);
        if let Some(old) = old {
            fs::remove_dir_all(self.folder.join(old)).expect("removed");
        }
    }

    /// Adds links for new files and removes those of removed files. Only the first part of a path is linked.
    fn link(&self, files: &[(&str, &str)]) {
        let names: Vec<&str> = files.iter().filter_map(|(name, _)| name.split('/').next()).collect();
        for name in &names {
            let link = self.folder.join(name);
            if fs::symlink_metadata(&link).is_err() {
                symlink(Path::new("..data").join(name), link).expect("a link");
            }
        }
        for entry in fs::read_dir(&self.folder).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            let name = name.to_string_lossy();
            if !name.starts_with("..") && !names.contains(&&*name) {
                fs::remove_file(self.folder.join(&*name)).expect("removed");
            }
        }
    }
}
