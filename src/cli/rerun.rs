//! `rerun`: repeats a run with the caller's own rights. The first one is kept.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value, json};

use super::args::OutputArgs;
use super::process::{NOTHING_TO_DO, print, print_error, runtime};
use crate::kube::{ApiError, ApiErrorKind, Cluster, ConfigError, Creation};
use crate::names::is_subdomain;
use crate::telemetry::metrics::Registry;
use crate::template::PipelineRun;

/// Annotation of a repeated run: the run that it repeats.
const RERUN_OF: &str = "github-trigger.dev/rerun-of";
/// Longest name of a PipelineRun: Tekton puts it into a label.
const MAX_NAME: usize = 63;
/// Maximum number of repetitions of one run.
const MAX_RERUNS: u32 = 99;
/// So many missing repetitions in a row are the end of them.
const MAX_GAP: u32 = 10;
/// Characters after the last `-` of our names: the hash, which stays.
const HASH_DIGITS: usize = 12;
/// Prefixes of labels and annotations that Tekton's controllers set on a run, and kubectl.
const FOREIGN: &[&str] =
    &["tekton.dev/", "chains.tekton.dev/", "results.tekton.dev/", "pipeline.tekton.dev/", "kubectl.kubernetes.io/"];

/// The flags of `rerun`.
#[derive(Debug, Args)]
pub(super) struct RerunArgs {
    /// The run to repeat.
    #[arg(value_name = "NAMESPACE/NAME", value_parser = parse_reference)]
    run: Reference,
    #[command(flatten)]
    output: OutputArgs,
}

/// Namespace and name of a run.
#[derive(Debug, Clone)]
struct Reference {
    namespace: String,
    name: String,
}

fn parse_reference(text: &str) -> Result<Reference, &'static str> {
    let (namespace, name) = text.split_once('/').unwrap_or_default();
    if !is_subdomain(namespace) || !is_subdomain(name) {
        return Err("write NAMESPACE/NAME, as the log line of the delivery has it in runs=");
    }
    Ok(Reference { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// What became of it.
enum Rerun {
    /// This call made the run.
    Created(String),
    /// It exists, and has not ended.
    UnderWay(String),
}

/// Why nothing was repeated.
#[derive(Debug, thiserror::Error)]
enum RerunError {
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("there is no run {0}; it may have been pruned: deliver its merge again on GitHub, which makes it anew")]
    Missing(String),
    #[error("no right to {verb} pipelineruns.tekton.dev in the namespace {namespace}: {source}")]
    Forbidden { verb: &'static str, namespace: String, source: ApiError },
    #[error("{0} has been repeated {MAX_RERUNS} times; remove some of its runs")]
    TooMany(String),
    #[error("{advice}: {source}")]
    Api { advice: &'static str, source: ApiError },
}

/// What to do about a failure.
fn advice(kind: ApiErrorKind) -> &'static str {
    match kind {
        ApiErrorKind::Transport | ApiErrorKind::Timeout => {
            "the API server does not answer; is KUBECONFIG right, and the cluster up?"
        }
        ApiErrorKind::Unauthorized => "the API server does not accept the credentials of KUBECONFIG; log in again",
        ApiErrorKind::NotInstalled | ApiErrorKind::NotFound => {
            "the API server has no Tekton; is KUBECONFIG of another cluster?"
        }
        ApiErrorKind::QuotaExceeded => "the namespace's quota is used up; remove finished runs",
        kind if kind.is_temporary() => "try again in a moment",
        _ => "the API server refuses the run",
    }
}

/// Repeats a run. Exit code 3 if it, or its repetition, is under way.
pub(super) fn run(args: &RerunArgs) -> ExitCode {
    let Reference { namespace, name } = &args.run;
    let (outcome, made, code) = match repeat(&args.run) {
        Ok(Rerun::Created(made)) => ("created", made, ExitCode::SUCCESS),
        Ok(Rerun::UnderWay(made)) => ("under-way", made, ExitCode::from(NOTHING_TO_DO)),
        Err(error) => {
            // A kubeconfig's errors have several lines.
            let line = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
            print_error(format_args!("github-trigger: {line}"));
            return ExitCode::FAILURE;
        }
    };
    if args.output.is_json() {
        print(json!({"outcome": outcome, "namespace": namespace, "name": made, "rerunOf": name}));
    } else if outcome == "created" {
        print(format_args!("{namespace}/{made} repeats {namespace}/{name}"));
    } else {
        print(format_args!("{namespace}/{made} has not ended yet; nothing was repeated"));
    }
    code
}

fn repeat(reference: &Reference) -> Result<Rerun, RerunError> {
    runtime()?.block_on(async {
        let (cluster, _) = Cluster::connect(&Registry::default()).await?;
        let Reference { namespace, name } = reference;
        let failed = |verb, error: ApiError| match error.kind() {
            ApiErrorKind::Forbidden => RerunError::Forbidden { verb, namespace: namespace.clone(), source: error },
            kind => RerunError::Api { advice: advice(kind), source: error },
        };
        let read = async |name: &str| cluster.pipeline_run(namespace, name).await.map_err(|error| failed("get", error));
        let run = read(name).await?.ok_or_else(|| RerunError::Missing(format!("{namespace}/{name}")))?;
        if !has_ended(&run) {
            return Ok(Rerun::UnderWay(name.clone()));
        }
        let first = first_name(&run, name);
        // After the last one that there is: earlier ones may have been pruned.
        let (mut free, mut gap) = (2, 0);
        for number in 2..=MAX_RERUNS {
            let next = name_of(first, number);
            match read(&next).await? {
                Some(other) if !has_ended(&other) => return Ok(Rerun::UnderWay(next)),
                Some(_) => (free, gap) = (number + 1, 0),
                None => gap += 1,
            }
            if gap > MAX_GAP {
                break;
            }
        }
        if free > MAX_RERUNS {
            return Err(RerunError::TooMany(format!("{namespace}/{name}")));
        }
        let next = name_of(first, free);
        let repeated = repetition(&run, namespace, name, &next);
        // A concurrent call gets the same name.
        match cluster.create_once(&repeated).await.map_err(|error| failed("create", error))? {
            Creation::Created => Ok(Rerun::Created(next)),
            Creation::Existed => Ok(Rerun::UnderWay(next)),
        }
    })
}

/// Whether the condition `Succeeded` is decided.
fn has_ended(run: &Value) -> bool {
    let conditions = run["status"]["conditions"].as_array().into_iter().flatten();
    let mut decided = conditions.filter(|condition| condition["type"] == "Succeeded");
    decided.any(|condition| condition["status"] == "True" || condition["status"] == "False")
}

/// The name of the run that was not a repetition.
fn first_name<'n>(run: &Value, name: &'n str) -> &'n str {
    if run["metadata"]["annotations"][RERUN_OF].is_null() {
        return name;
    }
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    name.rsplit_once("-r").filter(|(_, number)| is_number(number)).map_or(name, |(first, _)| first)
}

/// `<first>-r<number>`, whose base is cut where it would be too long; the hash at its end is kept.
fn name_of(first: &str, number: u32) -> String {
    let suffix = format!("-r{number}");
    // Three characters are always kept free, so that all repetitions have one beginning.
    let room = MAX_NAME - "-r99".len();
    if first.len() <= room {
        return format!("{first}{suffix}");
    }
    let (base, hash) = first.split_at(first.len() - HASH_DIGITS - 1);
    let base = base.get(..room - hash.len()).unwrap_or(base).trim_end_matches(['-', '.']);
    format!("{base}{hash}{suffix}")
}

/// The same run under another name: what was asked for, without what the cluster has added.
fn repetition(run: &Value, namespace: &str, name: &str, next: &str) -> PipelineRun {
    let own = |field: &str| -> Map<String, Value> {
        let entries = run["metadata"][field].as_object().cloned().unwrap_or_default();
        entries.into_iter().filter(|(key, _)| !FOREIGN.iter().any(|prefix| key.starts_with(prefix))).collect()
    };
    let mut annotations = own("annotations");
    annotations.insert(RERUN_OF.to_owned(), name.into());
    let mut spec = run["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        // A run that was cancelled says so there.
        spec.remove("status");
    }
    let object = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "metadata": {"name": next, "namespace": namespace, "labels": own("labels"), "annotations": annotations},
        "spec": spec,
    });
    PipelineRun { namespace: namespace.to_owned(), name: next.to_owned(), object }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_a_label_and_keep_their_hash() {
        assert_eq!(name_of("web-0123456789ab", 2), "web-0123456789ab-r2");
        let long = format!("{}-0123456789ab", "x".repeat(50));
        for number in [2, 10, 99] {
            let name = name_of(&long, number);
            assert!(name.len() <= MAX_NAME && name.ends_with(&format!("-0123456789ab-r{number}")), "{name}");
        }
        let dotted = format!("{}.yz-0123456789ab", "x".repeat(45));
        assert!(is_subdomain(&name_of(&dotted, 2)), "{}", name_of(&dotted, 2));
    }

    #[test]
    fn repeats_what_was_asked_for() {
        let run = json!({
            "metadata": {"name": "web-0-r2", "uid": "u", "resourceVersion": "7", "finalizers": ["f"],
                "labels": {"tekton.dev/pipeline": "p", "github-trigger.dev/commit": "c", "app": "a"},
                "annotations": {RERUN_OF: "web-0", "github-trigger.dev/merged-at": "t", "chains.tekton.dev/signed": "true",
                    "tekton.dev/pipelinerunSpanContext": "{}"}},
            "spec": {"status": "Cancelled", "pipelineRef": {"name": "p"}},
            "status": {"conditions": [{"type": "Succeeded", "status": "False"}]}
        });
        assert!(has_ended(&run) && !has_ended(&json!({})));
        assert_eq!(first_name(&run, "web-0-r2"), "web-0");
        assert_eq!(first_name(&json!({}), "web-r2"), "web-r2", "a name that happens to end so");
        let PipelineRun { name, object, .. } = repetition(&run, "ci", "web-0-r2", "web-0-r3");
        assert_eq!(name, "web-0-r3");
        let expected = json!({"name": "web-0-r3", "namespace": "ci",
            "labels": {"github-trigger.dev/commit": "c", "app": "a"},
            "annotations": {RERUN_OF: "web-0-r2", "github-trigger.dev/merged-at": "t"}});
        assert_eq!(object["metadata"], expected);
        assert_eq!(object["spec"], json!({"pipelineRef": {"name": "p"}}));
        assert!(object["status"].is_null());
    }
}
