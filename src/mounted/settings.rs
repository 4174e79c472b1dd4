//! A team's settings: files of its folders that say what the team is, and are in force at once, whatever else is wrong with
//! the folder. A broken template must not keep an operator's word from being obeyed.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use super::{File, Files, ReadError};
use crate::delivery::token::Subjects;
use crate::names::check_dns_label;

/// The file with the one namespace that a team's runs may be created in, in its folder of templates.
pub(crate) const NAMESPACE_FILE: &str = "namespace";
/// The file with the subjects of tokens that are a team's own, in either folder.
const SUBJECTS_FILE: &str = "subjects";

/// What the files of one folder say.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The one namespace that the team's runs may be created in, if a file names one.
    pub(crate) namespace: Option<String>,
    /// Subjects of tokens that are the team's own.
    pub(crate) subjects: Option<Subjects>,
    /// What is wrong, by file. Then nothing may be done for the team.
    pub(crate) faults: Vec<(PathBuf, String)>,
}

impl Settings {
    /// Takes the settings out of a team's files.
    pub(crate) fn take(files: &mut Files) -> Self {
        let mut settings = Self::default();
        for entry in std::mem::take(&mut files.entries) {
            match entry {
                Ok(file) if is_setting(&file.path) => settings.read(&file),
                Err(error) if is_setting(error.path()) => settings.unreadable(error),
                entry => files.entries.push(entry),
            }
        }
        for path in std::mem::take(&mut files.others) {
            if is_setting(&path) {
                settings.faults.push((path, "a folder; mount the file itself there".to_owned()));
            } else {
                files.others.push(path);
            }
        }
        settings
    }

    fn read(&mut self, file: &File) {
        let mut fault = |error: &dyn Error| self.faults.push((file.path.clone(), error.to_string()));
        if is_named(&file.path, SUBJECTS_FILE) {
            match Subjects::parse(&file.content) {
                Ok(subjects) => self.subjects = Some(subjects),
                Err(error) => fault(&error),
            }
        } else {
            let name = String::from_utf8_lossy(&file.content).trim().to_owned();
            match check_dns_label("the namespace", &name) {
                Ok(()) => self.namespace = Some(name),
                Err(error) => fault(&error),
            }
        }
    }

    fn unreadable(&mut self, error: ReadError) {
        self.faults.push((error.path().to_owned(), error.to_string()));
    }

    /// What is wrong, a sentence for each file.
    pub(crate) fn sentences(&self) -> impl Iterator<Item = String> {
        self.faults.iter().map(|(path, why)| format!("{}: {why}", path.display()))
    }
}

/// Whether a team's folder in `mount` has a file of subjects, valid or not.
pub(crate) fn names_subjects(mount: &Path) -> bool {
    let folders = fs::read_dir(mount).into_iter().flatten().flatten();
    folders.map(|folder| folder.path().join(SUBJECTS_FILE)).any(|file| file.is_file())
}

/// Whether a file has a meaning of its own in a team's folder.
pub(crate) fn is_setting(path: &Path) -> bool {
    is_named(path, NAMESPACE_FILE) || is_named(path, SUBJECTS_FILE)
}

fn is_named(path: &Path, name: &str) -> bool {
    path.file_name().is_some_and(|file| file == name)
}
