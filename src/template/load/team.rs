//! The templates of each team, bound to the namespace that its folder names.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;
use std::sync::Arc;

use super::{LoadError, is_template_file, parse};
use crate::delivery::token::Subjects;
use crate::mounted::reload::{ConfigKind, Loaded, Reading, Source};
use crate::mounted::settings::{NAMESPACE_FILE, Settings, is_setting};
use crate::mounted::{self, File, Files, Fingerprint, ReadError, Tree};
use crate::team::Team;
use crate::template::finding::{Finding, Severity};
use crate::template::{Template, TemplateSet, yaml};

/// The templates of one team, or of the top level.
#[derive(Debug, Default)]
pub(crate) struct TeamTemplates {
    /// The templates.
    pub(crate) set: Arc<TemplateSet>,
    /// The one namespace that the team's runs may be created in, if its folder names one.
    namespace: Option<String>,
}

/// The result of checking the folder of one team.
#[derive(Debug)]
pub(crate) struct LintedTeam {
    /// The team.
    pub(crate) team: Team,
    /// Its valid templates, and all findings; an error if the files of the top level cannot be read.
    pub(crate) result: Result<(TeamTemplates, Vec<Finding>), LoadError>,
}

/// Reads and checks a template file, or every `*.yaml` and `*.yml` file of a folder and of each team's folder in it.
/// Fails when the path cannot be read.
pub(crate) fn lint(path: &Path) -> Result<Vec<LintedTeam>, LoadError> {
    Ok(read(path).1?.into_iter().map(|(team, files)| lint_team(team, files)).collect())
}

fn lint_team(team: Team, mut files: Files) -> LintedTeam {
    let folder = files.folders.first().cloned().unwrap_or_default();
    let settings = if team.name().is_some() { Settings::take(&mut files) } else { Settings::default() };
    let invalid = settings.faults.iter().map(|(path, why)| whole_file(path, Severity::Error, why.clone()));
    let mut findings: Vec<Finding> = invalid.collect();
    let result = match check(&team, files) {
        Ok((set, others)) => {
            findings.extend(
                foreign(&set, settings.namespace.as_deref()).map(|(template, message)| template.finding(message)),
            );
            findings.extend(others);
            Ok((TeamTemplates { set: Arc::new(set), namespace: settings.namespace }, findings))
        }
        // What is wrong with a team's folder is a finding like any other.
        Err(error) if team.name().is_some() => {
            findings.push(whole_file(&folder, Severity::Error, error.to_string()));
            Ok((TeamTemplates::default(), findings))
        }
        Err(error) => Err(error),
    };
    LintedTeam { team, result }
}

fn read(path: &Path) -> (Fingerprint, Result<Tree, ReadError>) {
    mounted::read(path, |name| is_template_file(name) || is_setting(Path::new(name)))
}

/// Checks the template files of one team.
fn check(team: &Team, files: Files) -> Result<(TemplateSet, Vec<Finding>), LoadError> {
    let folder = files.folders.first().cloned().unwrap_or_default();
    team.check().map_err(|source| LoadError::Team { folder: folder.clone(), source })?;
    let mut warnings: Vec<Finding> = files.others.iter().filter_map(|path| skipped(path)).collect();
    let is_template = |file: &File| file.path == folder || !is_setting(&file.path);
    let (templates, misplaced): (Vec<File>, Vec<File>) = files.complete()?.into_iter().partition(is_template);
    for file in misplaced {
        let message = "the file has an effect only in a team's folder".to_owned();
        warnings.push(whole_file(&file.path, Severity::Warning, message));
    }
    if templates.is_empty() {
        return Err(LoadError::NoFile(folder));
    }
    let (set, mut findings) = parse(templates);
    findings.extend(warnings);
    Ok((set, findings))
}

impl TeamTemplates {
    /// The namespace of runs whose template names none: the team's, else `default`.
    pub(crate) fn namespace<'a>(&'a self, default: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(default)
    }
}

/// The templates that put their runs elsewhere than into the team's `own` namespace, and what is wrong.
fn foreign<'t>(set: &'t TemplateSet, own: Option<&'t str>) -> impl Iterator<Item = (&'t Template, String)> {
    let named = set.iter().filter_map(|template| Some((template, template.namespace()?)));
    named.filter_map(move |(template, namespace)| {
        let own = own.filter(|own| *own != namespace)?;
        let message = format!(
            "the runs of this team are created in the namespace `{own}` (the file `{NAMESPACE_FILE}`), not in \
             `{namespace}`; remove `metadata.namespace`"
        );
        Some((template, message))
    })
}

fn whole_file(path: &Path, severity: Severity, message: String) -> Finding {
    Finding { file: path.to_owned(), at: yaml::Position { line: 1, column: 1 }, severity, message }
}

/// A warning for what is not read, pages for people apart.
fn skipped(path: &Path) -> Option<Finding> {
    let is_page = path.extension().is_some_and(|extension| extension == "md" || extension == "txt");
    let message = if path.is_dir() {
        "the folder is skipped; a team's files are in its own folder, not below it"
    } else if is_page {
        return None;
    } else {
        "the file is skipped; a template's file name ends in .yaml or .yml"
    };
    Some(whole_file(path, Severity::Warning, message.to_owned()))
}

/// The mounted templates of all teams.
#[derive(Debug)]
pub(crate) enum TemplateSource {
    /// A file, or a folder of files and of teams' folders.
    Mounted(PathBuf),
    /// A file that is part of the program.
    Shipped(File),
}

/// What is in force for each team that has a folder.
pub(crate) type Templates = BTreeMap<Team, TeamInForce>;

/// What is in force for one team: its last good templates with the settings of now.
#[derive(Debug, Default)]
pub(crate) struct TeamInForce {
    /// The templates; `None` if none may be used.
    pub(crate) templates: Option<Arc<TeamTemplates>>,
    /// Subjects of tokens that are the team's own.
    pub(crate) subjects: Option<Subjects>,
    /// Why no templates may be used.
    pub(crate) faults: Vec<String>,
    /// Whether the templates are older than the files.
    pub(crate) is_stale: bool,
}

/// Valid templates of one team.
pub(crate) struct CheckedSet {
    set: Arc<TemplateSet>,
    warnings: Vec<Finding>,
}

impl TeamInForce {
    fn new(loaded: &Loaded<CheckedSet>) -> Self {
        let Settings { namespace, subjects, .. } = loaded.settings.clone();
        let mut faults: Vec<String> = loaded.settings.sentences().collect();
        let is_stale = loaded.error.is_some() || !faults.is_empty();
        let Some(set) = loaded.value.as_ref().map(|checked| Arc::clone(&checked.set)) else {
            faults.extend(loaded.error.clone());
            return Self { templates: None, subjects, faults, is_stale };
        };
        let misplaced = foreign(&set, namespace.as_deref());
        faults.extend(
            misplaced.map(|(template, message)| format!("template {} (the last good one): {message}", template.name())),
        );
        let templates = faults.is_empty().then(|| Arc::new(TeamTemplates { set, namespace }));
        Self { templates, subjects, faults, is_stale }
    }
}

impl Source for TemplateSource {
    type Value = CheckedSet;
    type Error = LoadError;
    type View = Templates;
    const KIND: ConfigKind = ConfigKind::Templates;

    fn paths(&self) -> &[PathBuf] {
        match self {
            Self::Mounted(path) => slice::from_ref(path),
            Self::Shipped(_) => &[],
        }
    }

    fn read(&self) -> Result<Reading, ReadError> {
        match self {
            Self::Mounted(path) => {
                let (fingerprint, tree) = read(path);
                Ok(Reading { tree: tree?, fingerprints: vec![fingerprint] })
            }
            Self::Shipped(file) => {
                let files = Files { entries: vec![Ok(file.clone())], ..Files::default() };
                Ok(Reading { tree: Tree::from([(Team::TOP, files)]), fingerprints: Vec::new() })
            }
        }
    }

    fn load(&self, team: &Team, files: Files, settings: &Settings) -> Result<CheckedSet, LoadError> {
        let (set, mut findings) = check(team, files)?;
        findings
            .extend(foreign(&set, settings.namespace.as_deref()).map(|(template, message)| template.finding(message)));
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(LoadError::Findings(findings));
        }
        Ok(CheckedSet { set: Arc::new(set), warnings: findings })
    }

    fn report(&self, team: &Team, checked: &CheckedSet) {
        checked.warnings.iter().for_each(|finding| tracing::warn!(team = team.name(), "{finding}"));
    }

    fn view(&self, teams: &BTreeMap<Team, Loaded<CheckedSet>>) -> Templates {
        teams.iter().map(|(team, loaded)| (team.clone(), TeamInForce::new(loaded))).collect()
    }
}
