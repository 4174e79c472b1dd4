//! Finds, parses and checks template files; each finding has its position.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

mod team;

use super::finding::{Finding, Severity};
use super::model::{Template, TemplateSet};
use super::{compile, yaml};
use crate::mounted;
use crate::names::InvalidName;
pub(crate) use team::{LintedTeam, TeamTemplates, TemplateSource, Templates, lint};

/// Why templates are not loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The files cannot be read.
    #[error("{0}")]
    Read(#[from] mounted::ReadError),
    /// The name of a team's folder is invalid.
    #[error("{}: {source}", folder.display())]
    Team {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with its name.
        source: InvalidName,
    },
    /// A folder without a template file.
    #[error("{}: the folder contains no *.yaml file; mount the ConfigMap with the templates there", .0.display())]
    NoFile(PathBuf),
    /// The findings of all files, with at least one error.
    #[error("{}", lines(.0))]
    Findings(Vec<Finding>),
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}

/// Whether a file name in a template folder is that of a template: `*.yaml` or `*.yml`.
fn is_template_file(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// Checks the content of template files. Returns the valid templates, and all findings.
pub(crate) fn parse(files: Vec<mounted::File>) -> (TemplateSet, Vec<Finding>) {
    let mut reader = Reader::default();
    files.iter().for_each(|file| reader.file(&file.path, &file.content));
    (TemplateSet::from(reader.templates), reader.findings)
}

fn not_text(before: &[u8]) -> yaml::Fault {
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let column = before.iter().rev().take_while(|&&byte| byte != b'\n').count() + 1;
    yaml::Fault { at: yaml::Position { line, column }, message: "not UTF-8 text; save the file as UTF-8".into() }
}

#[derive(Default)]
struct Reader {
    templates: Vec<Template>,
    findings: Vec<Finding>,
    names: HashMap<(Option<String>, String), (PathBuf, yaml::Position)>,
}

impl Reader {
    fn file(&mut self, path: &Path, content: &[u8]) {
        let text = match std::str::from_utf8(content) {
            Ok(text) => text,
            Err(error) => return self.errors(path, vec![not_text(&content[..error.valid_up_to()])]),
        };
        let (documents, faults) = yaml::parse(text);
        if documents.is_empty() && faults.is_empty() {
            let message = "the file contains no template; write a tekton.dev/v1 PipelineRun".to_owned();
            let at = yaml::Position { line: 1, column: 1 };
            self.errors(path, vec![yaml::Fault { at, message }]);
        }
        let begins = self.findings.len();
        self.errors(path, faults);
        documents.iter().for_each(|document| self.document(path, document));
        self.findings[begins..].sort_by_key(|finding| finding.at);
    }

    fn document(&mut self, path: &Path, document: &yaml::Node) {
        let compiled = match compile::compile(document) {
            Ok(compiled) => compiled,
            Err(faults) => return self.errors(path, faults),
        };
        self.add(path, Severity::Warning, compiled.warnings);
        let (namespace, name) = compiled.template.identity();
        let key = (namespace.map(str::to_owned), name.to_owned());
        if let Some((file, first)) = self.names.get(&key) {
            let message = format!(
                "another template is named `{name}` ({}:{}); runs of both would have the same name, choose another",
                file.display(),
                first.line
            );
            return self.errors(path, vec![yaml::Fault { at: compiled.at, message }]);
        }
        self.names.insert(key, (path.to_owned(), compiled.at));
        let origin = (path.to_owned(), compiled.at);
        self.templates.push(Template { origin, ..compiled.template });
    }

    fn errors(&mut self, path: &Path, faults: Vec<yaml::Fault>) {
        self.add(path, Severity::Error, faults);
    }

    fn add(&mut self, path: &Path, severity: Severity, faults: Vec<yaml::Fault>) {
        self.findings.extend(faults.into_iter().map(|fault| Finding {
            file: path.to_owned(),
            at: fault.at,
            severity,
            message: fault.message,
        }));
    }
}

#[cfg(test)]
mod tests;
