//! Flags and variables that several commands have.

use std::fs;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::telemetry::log::{LogFilter, LogFormat};

/// File with the name of a pod's namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Mount path of the templates in `config/base/service.yaml`.
pub(super) const DEFAULT_TRIGGER_CONFIG: &str = "/app/config/deployer-trigger.yaml";

/// Flags of the log.
#[derive(Debug, Clone, Args)]
pub(super) struct LogArgs {
    /// Format of log lines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t, hide_env_values = true)]
    pub(super) log_format: LogFormat,
    /// Log lines to write: a level, or directives such as info,kube=debug.
    #[arg(long, env = "RUST_LOG", default_value = "info", value_name = "LEVEL", hide_env_values = true)]
    pub(super) log_level: LogFilter,
}

/// Flags of the templates.
#[derive(Debug, Clone, Args)]
pub(super) struct TemplateArgs {
    /// A template file, or a folder of *.yaml files and of folders of teams.
    #[arg(long, env = "TRIGGER_CONFIG", default_value = DEFAULT_TRIGGER_CONFIG, value_name = "PATH", hide_env_values = true)]
    pub(super) trigger_config: PathBuf,
}

/// Flags of what a command prints.
#[derive(Debug, Clone, Args)]
pub(super) struct OutputArgs {
    /// Format of the result.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Format of a command's result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for a person.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl OutputArgs {
    /// Whether the result is for programs.
    pub(super) fn is_json(&self) -> bool {
        self.output == Output::Json
    }
}

/// The namespace of the pod that this process runs in; `None` outside a pod.
pub(super) fn pod_namespace() -> Option<String> {
    non_empty(fs::read_to_string(POD_NAMESPACE).ok().map(|namespace| namespace.trim().to_owned()))
}

/// A flag or variable that is set to nothing counts as not set.
pub(super) fn non_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}
