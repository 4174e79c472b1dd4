//! The templates of one team, or of all, for a command.

use std::path::{Path, PathBuf};

use clap::Args;

use super::args::TemplateArgs;
use crate::template::{self, LintedTeam, LoadError, Severity, TeamTemplates};

/// Flags of the templates of one team, or of all.
#[derive(Debug, Clone, Args)]
pub(super) struct TeamTemplateArgs {
    #[command(flatten)]
    templates: TemplateArgs,
    /// Look at one team's folder alone [default: the top level and every team].
    #[arg(long, value_name = "NAME")]
    team: Option<String>,
}

/// A team that has no folder.
#[derive(Debug, thiserror::Error)]
#[error("{} has no {what}; {known}", path.display())]
struct UnknownTeam {
    path: PathBuf,
    what: String,
    known: String,
}

impl TeamTemplateArgs {
    /// The template file, or the folder.
    pub(super) fn path(&self) -> &Path {
        &self.templates.trigger_config
    }

    /// Checks the templates.
    /// Fails when they cannot be read, or the team has no folder.
    pub(super) fn lint(&self) -> Result<Vec<LintedTeam>, Box<dyn std::error::Error>> {
        let teams = template::lint(self.path())?;
        match &self.team {
            Some(name) => Ok(vec![find_team(teams, self.path(), Some(name))?]),
            None => Ok(teams),
        }
    }
}

/// The templates of a team, or those of the top level.
/// Fails when there is no such team.
fn find_team(mut teams: Vec<LintedTeam>, path: &Path, name: Option<&str>) -> Result<LintedTeam, UnknownTeam> {
    if let Some(index) = teams.iter().position(|linted| linted.team.name() == name) {
        return Ok(teams.swap_remove(index));
    }
    let names: Vec<&str> = teams.iter().filter_map(|linted| linted.team.name()).collect();
    let known = if names.is_empty() { "it has no teams".into() } else { format!("its teams: {}", names.join(", ")) };
    let what = name.map_or_else(|| "template outside the teams' folders".to_owned(), |name| format!("folder {name:?}"));
    Err(UnknownTeam { path: path.to_owned(), what, known })
}

/// Reads and checks the templates of a team, or those of the top level.
/// Fails when there is no such team, or they are not valid.
pub(super) fn valid_templates(path: &Path, team: Option<&str>) -> Result<TeamTemplates, Box<dyn std::error::Error>> {
    let (templates, findings) = find_team(template::lint(path)?, path, team)?.result?;
    match findings.iter().any(|finding| finding.severity == Severity::Error) {
        true => Err(LoadError::Findings(findings).into()),
        false => Ok(templates),
    }
}
