//! The templates of each team: which files they are read from, and what a team's folder says besides.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;

use super::{Finding, LoadError, Severity, is_template_file, parse, yaml};
use crate::delivery::token::Subjects;
use crate::mounted::reload::{ConfigKind, Loaded, Source};
use crate::mounted::{self, File, Files, ReadError, Tree};
use crate::names::check_dns_label;
use crate::team::{NAMESPACE_FILE, SUBJECTS_FILE, Team};
use crate::template::TemplateSet;

/// The templates of one team, or of the top level.
#[derive(Debug, Default)]
pub(crate) struct TeamTemplates {
    /// The templates.
    pub(crate) set: TemplateSet,
    /// The one namespace that the team's runs may be created in, if its folder names one.
    namespace: Option<String>,
    /// Subjects of tokens that are the team's own.
    pub(crate) subjects: Option<Subjects>,
}

/// The result of checking the folder of one team.
#[derive(Debug)]
pub(crate) struct LintedTeam {
    /// The team.
    pub(crate) team: Team,
    /// Its valid templates, and all findings; an error if the files cannot be read.
    pub(crate) result: Result<(TeamTemplates, Vec<Finding>), LoadError>,
}

/// Reads and checks a template file, or every `*.yaml` and `*.yml` file of a folder and of each team's folder in it. The
/// top level is left out where it has no file and there are teams.
/// Fails when the path cannot be read.
pub(crate) fn lint(path: &Path) -> Result<Vec<LintedTeam>, LoadError> {
    let tree = read(path)?;
    let has_teams = tree.len() > 1;
    let present = |(team, files): &(Team, Files)| *team != Team::TOP || !has_teams || !files.is_empty();
    let teams = tree.into_iter().filter(present);
    Ok(teams.map(|(team, files)| LintedTeam { result: check(&team, files), team }).collect())
}

fn read(path: &Path) -> Result<Tree, ReadError> {
    mounted::read(path, |name| is_template_file(name) || matches!(name, NAMESPACE_FILE | SUBJECTS_FILE))
}

/// Checks the files of one team.
fn check(team: &Team, files: Files) -> Result<(TeamTemplates, Vec<Finding>), LoadError> {
    let folder = files.folders.first().cloned().unwrap_or_default();
    team.check().map_err(|source| LoadError::Team { folder: folder.clone(), source })?;
    let mut findings: Vec<Finding> = files.others.iter().filter_map(|path| skipped(path)).collect();
    let is_setting = |file: &File| {
        file.path != folder && file.path.file_name().is_some_and(|name| name == NAMESPACE_FILE || name == SUBJECTS_FILE)
    };
    let (settings, templates): (Vec<File>, Vec<File>) = files.complete()?.into_iter().partition(is_setting);
    if templates.is_empty() {
        return Err(LoadError::NoFile(folder));
    }
    let (set, faults) = parse(templates);
    let mut templates = TeamTemplates { set, ..TeamTemplates::default() };
    let warnings = std::mem::replace(&mut findings, faults);
    for file in settings {
        if team.name().is_none() {
            let message = "the file has an effect only in a team's folder".to_owned();
            findings.push(whole_file(&file.path, Severity::Warning, message));
        } else if let Err(message) = templates.set(&file) {
            findings.push(whole_file(&file.path, Severity::Error, message));
        }
    }
    findings.extend(templates.foreign_namespaces());
    findings.extend(warnings);
    Ok((templates, findings))
}

impl TeamTemplates {
    /// The namespace of runs whose template names none: the team's, else `default`.
    pub(crate) fn namespace<'a>(&'a self, default: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(default)
    }

    /// Takes a team's setting. The error says what to write.
    fn set(&mut self, file: &File) -> Result<(), String> {
        if file.path.file_name().is_some_and(|name| name == SUBJECTS_FILE) {
            self.subjects = Some(Subjects::parse(&file.content)?);
            return Ok(());
        }
        let name = String::from_utf8_lossy(&file.content).trim().to_owned();
        check_dns_label("the namespace", &name).map_err(|error| error.to_string())?;
        self.namespace = Some(name);
        Ok(())
    }

    /// An error for each template that puts its runs elsewhere than into the team's namespace.
    fn foreign_namespaces(&self) -> Vec<Finding> {
        let Some(own) = &self.namespace else { return Vec::new() };
        let foreign = self.set.iter().filter_map(|template| Some((template, template.namespace()?)));
        let foreign = foreign.filter(|(_, namespace)| namespace != own);
        let finding = |(template, namespace): (&crate::template::Template, &str)| {
            template.finding(format!(
                "the runs of this team are created in the namespace `{own}` (the file `{NAMESPACE_FILE}`), not in \
                 `{namespace}`; remove `metadata.namespace`"
            ))
        };
        foreign.map(finding).collect()
    }
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

/// The last good templates of each team that is mounted.
pub(crate) type Templates = BTreeMap<Team, Loaded<TeamTemplates>>;

impl Source for TemplateSource {
    type Value = TeamTemplates;
    type View = Templates;
    const KIND: ConfigKind = ConfigKind::Templates;

    fn paths(&self) -> &[PathBuf] {
        match self {
            Self::Mounted(path) => slice::from_ref(path),
            Self::Shipped(_) => &[],
        }
    }

    fn read(&self) -> Result<Tree, ReadError> {
        match self {
            Self::Mounted(path) => read(path),
            Self::Shipped(file) => {
                Ok(Tree::from([(Team::TOP, Files { entries: vec![Ok(file.clone())], ..Files::default() })]))
            }
        }
    }

    fn load(&self, team: &Team, files: Files) -> Result<TeamTemplates, String> {
        let (templates, findings) = check(team, files).map_err(|error| error.to_string())?;
        if findings.iter().any(|finding| finding.severity == Severity::Error) {
            return Err(LoadError::Findings(findings).to_string());
        }
        findings.iter().for_each(|finding| tracing::warn!(team = team.name(), "{finding}"));
        Ok(templates)
    }

    fn view(&self, teams: &Templates) -> Templates {
        teams.clone()
    }
}
