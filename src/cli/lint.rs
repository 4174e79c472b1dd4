//! `lint`: checks templates before an event arrives.

use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::process::{print, print_error, runtime};
use super::team_templates::TeamTemplateArgs;
use crate::kube::{Cluster, ConfigError, advice};
use crate::names::{InvalidName, check_dns_label};
use crate::telemetry::metrics::Registry;
use crate::template::{Finding, LintedTeam, Severity, TeamTemplates};

/// The flags of `lint`.
#[derive(Debug, Args)]
pub(super) struct LintArgs {
    #[command(flatten)]
    templates: TeamTemplateArgs,
    /// Format of findings.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Also ask the kubeconfig's API server, by a dry run with a sample value for every placeholder.
    #[arg(long)]
    server: bool,
    /// With --server: namespace of runs whose template names none [default: the kubeconfig's].
    #[arg(long, env = "NAMESPACE", value_name = "NS", hide_env_values = true)]
    namespace: Option<String>,
}

/// Format of findings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// `file:line:column: message`.
    #[default]
    Text,
    /// One JSON object a line: file, line, column, severity, message.
    Json,
    /// GitHub's workflow commands, which annotate a pull request.
    Github,
}

impl Format {
    fn write(self, finding: &Finding) -> String {
        let Finding { file, at, severity, message } = finding;
        let severity = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        match self {
            Self::Text => finding.to_string(),
            Self::Json => json!({
                "file": file.display().to_string(), "line": at.line, "column": at.column,
                "severity": severity, "message": message,
            })
            .to_string(),
            Self::Github => {
                let file = file.display().to_string();
                let (line, column) = (at.line, at.column);
                format!("::{severity} file={},line={line},col={column}::{}", property(&file), data(message))
            }
        }
    }
}

/// A workflow command's data, escaped as GitHub's runner unescapes it.
fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A workflow command's property, in which `:` and `,` are escaped, too.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

/// Prints every finding; exit code 1 if one is an error.
pub(super) fn run(args: &LintArgs) -> ExitCode {
    let path = args.templates.path();
    let teams = match args.templates.lint() {
        Ok(teams) => teams,
        Err(error) => {
            print_error(format_args!("github-trigger: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let mut checked = Vec::new();
    let mut failed = false;
    for LintedTeam { result, .. } in teams {
        match result {
            Ok((templates, findings)) => {
                findings.iter().for_each(|finding| print(args.format.write(finding)));
                failed |= findings.iter().any(|finding| finding.severity == Severity::Error);
                checked.push(templates);
            }
            Err(error) => {
                print_error(format_args!("github-trigger: {error}"));
                failed = true;
            }
        }
    }
    if failed {
        return ExitCode::FAILURE;
    }
    if args.server {
        match ask_server(&checked, args.namespace.as_deref()) {
            Ok(refused) if refused.is_empty() => {}
            Ok(refused) => {
                refused.iter().for_each(|finding| print(args.format.write(finding)));
                return ExitCode::FAILURE;
            }
            Err(error) => {
                print_error(format_args!("github-trigger: {error}"));
                return ExitCode::FAILURE;
            }
        }
    }
    let count: usize = checked.iter().map(|templates| templates.set.len()).sum();
    print_error(format_args!("{}: {count} template(s) pass", path.display()));
    ExitCode::SUCCESS
}

/// Why the API server could not be asked.
#[derive(Debug, thiserror::Error)]
enum ServerError {
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error("{0}; or leave --server out")]
    Config(#[from] ConfigError),
}

/// Asks the API server about each template by a dry run. Returns a finding for each refusal.
fn ask_server(teams: &[TeamTemplates], namespace: Option<&str>) -> Result<Vec<Finding>, ServerError> {
    runtime()?.block_on(async {
        namespace.iter().try_for_each(|namespace| check_dns_label("--namespace", namespace))?;
        let (cluster, configured) = Cluster::connect(&Registry::default()).await?;
        let mut refused = Vec::new();
        let default = namespace.unwrap_or(&configured);
        let runs = teams.iter().flat_map(|team| team.set.iter().map(|template| (template, team.namespace(default))));
        for (template, namespace) in runs {
            let run = template.sample(namespace);
            if let Err(error) = cluster.dry_run(&run).await {
                let advice = advice(error.kind());
                let message = format!("template {}: the API server says: {error}{advice}", template.name());
                refused.push(template.finding(message));
            }
        }
        Ok(refused)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Position;

    #[test]
    fn writes_findings_as_text_json_and_workflow_commands() {
        let finding = Finding {
            file: "a,b.yaml".into(),
            at: Position { line: 3, column: 5 },
            severity: Severity::Error,
            message: "100% wrong\nwrite: x".into(),
        };
        assert_eq!(Format::Text.write(&finding), "a,b.yaml:3:5: 100% wrong\nwrite: x");
        assert_eq!(
            Format::Json.write(&finding),
            r#"{"column":5,"file":"a,b.yaml","line":3,"message":"100% wrong\nwrite: x","severity":"error"}"#
        );
        assert_eq!(Format::Github.write(&finding), "::error file=a%2Cb.yaml,line=3,col=5::100%25 wrong%0Awrite: x");
    }
}
