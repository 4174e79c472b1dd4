//! Template files: found, parsed and checked, with every finding at its place.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::thread;

use super::model::{Template, TemplateSet};
use super::{compile, yaml};
use crate::mounted;

/// The longest expression that passes the length check takes less than a quarter of this, even unoptimised.
const STACK: usize = 32 << 20;

/// Something about a template file that its author should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file.
    pub(crate) file: PathBuf,
    /// The place in it; line 1, column 1 where the whole file is meant.
    pub(crate) at: yaml::Position,
    /// Whether the template can be used all the same.
    pub(crate) severity: Severity,
    /// What is wrong and what to write instead.
    pub(crate) message: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The templates are not used.
    Error,
    /// Legal, and probably not meant.
    Warning,
}

/// Templates that passed, and what is still worth saying about them.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The templates.
    pub(crate) templates: TemplateSet,
    /// Warnings only.
    pub(crate) findings: Vec<Finding>,
}

/// Why templates are not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The files cannot be read.
    #[error("{0}")]
    Read(#[from] mounted::ReadError),
    /// A folder without a template file.
    #[error("{}: the folder holds no *.yaml file; mount the ConfigMap with the templates there", .0.display())]
    NoFile(PathBuf),
    /// The files do not pass.
    #[error("{}", lines(.0))]
    Findings(Vec<Finding>),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        let yaml::Position { line, column } = self.at;
        write!(f, "{}:{line}:{column}: {severity}{}", self.file.display(), self.message)
    }
}

fn lines(findings: &[Finding]) -> String {
    findings.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n")
}

/// Whether a file of this name in a template folder is a template file.
pub(crate) fn is_template_file(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// Reads and checks a template file, or every `*.yaml` of a folder.
///
/// # Errors
/// When the files cannot be read, or one of them does not pass: then with every finding of all files.
pub(crate) fn load(path: &Path) -> Result<Loaded, LoadError> {
    let (templates, findings) = lint(path)?;
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(LoadError::Findings(findings));
    }
    Ok(Loaded { templates, findings })
}

/// Like [`load`], but errors are findings among the others.
///
/// # Errors
/// When the files cannot be read.
pub(crate) fn lint(path: &Path) -> Result<(TemplateSet, Vec<Finding>), LoadError> {
    let files = mounted::read(path, is_template_file)?;
    if files.is_empty() {
        return Err(LoadError::NoFile(path.to_owned()));
    }
    Ok(parse(files))
}

/// Checks the contents of template files.
///
/// On a thread with a stack of its own: the CEL parser needs more than a serving thread has.
pub(crate) fn parse(files: Vec<mounted::File>) -> (TemplateSet, Vec<Finding>) {
    let check = || {
        let mut reader = Reader::default();
        for file in &files {
            reader.file(&file.path, &file.content);
        }
        (TemplateSet::from(reader.templates), reader.findings)
    };
    let checked = thread::scope(|scope| {
        let thread = thread::Builder::new().name("templates".into()).stack_size(STACK).spawn_scoped(scope, check);
        thread.map(|thread| thread.join())
    });
    let problem = match checked {
        Ok(Ok(checked)) => return checked,
        Ok(Err(_)) => "a defect ended the check of the templates; please report it".to_owned(),
        Err(error) => format!("no thread to check the templates on: {error}"),
    };
    let file = files.into_iter().next().map(|file| file.path).unwrap_or_default();
    let at = yaml::Position { line: 1, column: 1 };
    (TemplateSet::default(), vec![Finding { file, at, severity: Severity::Error, message: problem }])
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
            let message = "the file holds no template; write a tekton.dev/v1 PipelineRun".to_owned();
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
                "another template is named `{name}` ({}:{}); two runs of one merge would share a name, choose another",
                file.display(),
                first.line
            );
            return self.errors(path, vec![yaml::Fault { at: compiled.at, message }]);
        }
        self.names.insert(key, (path.to_owned(), compiled.at));
        self.templates.push(compiled.template);
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
