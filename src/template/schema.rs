//! The fields of a `tekton.dev/v1` PipelineRun, and the successors of fields from older APIs.
//!
//! Source: Tekton's CRD `pipelineruns.tekton.dev` (v1) and its guide "Migrating from v1beta1 to v1". Open fields (pod
//! templates, volumes, the inside of steps) are not checked here; the API server rejects unknown fields in them.

use super::nearest::nearest;
use super::yaml::{Fault, Node, Value};

/// Allowed value of a field.
enum Shape {
    /// Any value; not checked.
    Open,
    /// A map with these fields.
    Map(&'static [Field]),
    /// A list of maps with these fields.
    List(&'static [Field]),
}

struct Field {
    name: &'static str,
    shape: Shape,
}

const fn open(name: &'static str) -> Field {
    Field { name, shape: Shape::Open }
}

const fn map(name: &'static str, fields: &'static [Field]) -> Field {
    Field { name, shape: Shape::Map(fields) }
}

const fn list(name: &'static str, fields: &'static [Field]) -> Field {
    Field { name, shape: Shape::List(fields) }
}

const RUN: &[Field] = &[open("apiVersion"), open("kind"), map("metadata", METADATA), map("spec", SPEC), open("status")];

const METADATA: &[Field] = &[
    open("name"),
    open("generateName"),
    open("namespace"),
    open("labels"),
    open("annotations"),
    open("finalizers"),
    open("ownerReferences"),
    open("creationTimestamp"),
];

const SPEC: &[Field] = &[
    map("pipelineRef", REF),
    map("pipelineSpec", PIPELINE),
    list("params", PARAM),
    map("timeouts", TIMEOUTS),
    map("taskRunTemplate", &[open("podTemplate"), open("serviceAccountName")]),
    list("workspaces", WORKSPACE),
    list("taskRunSpecs", TASK_RUN_SPEC),
    open("status"),
    open("managedBy"),
];

const REF: &[Field] = &[open("name"), open("apiVersion"), open("resolver"), list("params", PARAM)];
const TASK_REF: &[Field] = &[open("name"), open("apiVersion"), open("kind"), open("resolver"), list("params", PARAM)];
const PARAM: &[Field] = &[open("name"), open("value")];
const TIMEOUTS: &[Field] = &[open("pipeline"), open("tasks"), open("finally")];

const WORKSPACE: &[Field] = &[
    open("name"),
    open("subPath"),
    open("volumeClaimTemplate"),
    open("persistentVolumeClaim"),
    open("emptyDir"),
    open("configMap"),
    open("secret"),
    open("projected"),
    open("csi"),
];

const TASK_RUN_SPEC: &[Field] = &[
    open("pipelineTaskName"),
    open("serviceAccountName"),
    open("podTemplate"),
    open("stepSpecs"),
    open("sidecarSpecs"),
    open("metadata"),
    open("computeResources"),
    open("timeout"),
];

const PIPELINE: &[Field] = &[
    open("displayName"),
    open("description"),
    list("tasks", PIPELINE_TASK),
    list("finally", PIPELINE_TASK),
    list("params", PARAM_SPEC),
    list("workspaces", &[open("name"), open("description"), open("optional")]),
    list("results", &[open("name"), open("type"), open("description"), open("value")]),
];

const PARAM_SPEC: &[Field] =
    &[open("name"), open("type"), open("description"), open("properties"), open("default"), open("enum")];

const PIPELINE_TASK: &[Field] = &[
    open("name"),
    open("displayName"),
    open("description"),
    map("taskRef", TASK_REF),
    map("taskSpec", TASK),
    open("when"),
    open("retries"),
    open("runAfter"),
    list("params", PARAM),
    open("matrix"),
    list("workspaces", &[open("name"), open("workspace"), open("subPath")]),
    open("timeout"),
    open("pipelineRef"),
    open("pipelineSpec"),
    open("onError"),
];

const TASK: &[Field] = &[
    open("apiVersion"),
    open("kind"),
    open("spec"),
    open("metadata"),
    list("params", PARAM_SPEC),
    open("displayName"),
    open("description"),
    list("steps", STEP),
    open("volumes"),
    map("stepTemplate", STEP_TEMPLATE),
    list("sidecars", SIDECAR),
    open("workspaces"),
    open("results"),
];

const STEP: &[Field] = &[
    open("name"),
    open("displayName"),
    open("image"),
    open("command"),
    open("args"),
    open("script"),
    open("env"),
    open("envFrom"),
    open("workingDir"),
    open("computeResources"),
    open("volumeMounts"),
    open("volumeDevices"),
    open("imagePullPolicy"),
    open("securityContext"),
    open("timeout"),
    open("workspaces"),
    open("onError"),
    open("stdoutConfig"),
    open("stderrConfig"),
    open("ref"),
    open("params"),
    open("results"),
    open("when"),
];

const STEP_TEMPLATE: &[Field] = &[
    open("image"),
    open("command"),
    open("args"),
    open("env"),
    open("envFrom"),
    open("workingDir"),
    open("computeResources"),
    open("volumeMounts"),
    open("volumeDevices"),
    open("imagePullPolicy"),
    open("securityContext"),
];

const SIDECAR: &[Field] = &[
    open("name"),
    open("image"),
    open("command"),
    open("args"),
    open("script"),
    open("env"),
    open("envFrom"),
    open("workingDir"),
    open("ports"),
    open("computeResources"),
    open("volumeMounts"),
    open("volumeDevices"),
    open("livenessProbe"),
    open("readinessProbe"),
    open("startupProbe"),
    open("lifecycle"),
    open("terminationMessagePath"),
    open("terminationMessagePolicy"),
    open("imagePullPolicy"),
    open("securityContext"),
    open("stdin"),
    open("stdinOnce"),
    open("tty"),
    open("workspaces"),
    open("restartPolicy"),
];

/// Fields of older APIs, by path (`[]` for list items), and their fix for `tekton.dev/v1`.
const MOVED: &[(&str, &str)] = &[
    ("metadata.generation", "remove it; the API server writes it"),
    ("metadata.resourceVersion", "remove it; the API server writes it"),
    ("metadata.uid", "remove it; the API server writes it"),
    ("metadata.managedFields", "remove it; the API server writes it"),
    ("metadata.selfLink", "remove it; the API server writes it"),
    ("spec.serviceAccountName", "write it as `spec.taskRunTemplate.serviceAccountName`"),
    ("spec.serviceAccount", "write it as `spec.taskRunTemplate.serviceAccountName`"),
    ("spec.serviceAccounts", "write each as `spec.taskRunSpecs[].serviceAccountName`"),
    ("spec.serviceAccountNames", "write each as `spec.taskRunSpecs[].serviceAccountName`"),
    ("spec.podTemplate", "write it as `spec.taskRunTemplate.podTemplate`"),
    ("spec.timeout", "write it as `spec.timeouts.pipeline`"),
    (
        "spec.resources",
        "PipelineResources are gone: pass the repository and the image as `spec.params`, shared files as `spec.workspaces`",
    ),
    ("spec.trigger", "remove it; this service labels the run"),
    ("spec.results", "remove it; results are declared in the Pipeline"),
    ("spec.params[].type", "declare the type in the Pipeline's params; a run only gives values"),
    ("spec.pipelineRef.bundle", "write `resolver: bundles` with the params `bundle`, `name` and `kind: pipeline`"),
    ("spec.taskRunSpecs[].taskServiceAccountName", "write it as `serviceAccountName`"),
    ("spec.taskRunSpecs[].taskPodTemplate", "write it as `podTemplate`"),
    ("spec.taskRunSpecs[].stepOverrides", "write it as `stepSpecs`"),
    ("spec.taskRunSpecs[].sidecarOverrides", "write it as `sidecarSpecs`"),
    ("spec.workspaces[].volumeClaim", "write it as `persistentVolumeClaim` or `volumeClaimTemplate`"),
    ("spec.pipelineSpec.resources", "PipelineResources are gone: use params and workspaces"),
    ("spec.pipelineSpec.tasks[].resources", "PipelineResources are gone: use params and workspaces"),
    ("spec.pipelineSpec.tasks[].conditions", "write them as `when`"),
    (
        "spec.pipelineSpec.tasks[].taskRef.bundle",
        "write `resolver: bundles` with the params `bundle`, `name` and `kind: task`",
    ),
    ("spec.pipelineSpec.tasks[].taskSpec.inputs", "write its params as `params`, its resources as `workspaces`"),
    ("spec.pipelineSpec.tasks[].taskSpec.outputs", "write them as `results` or `workspaces`"),
    ("spec.pipelineSpec.tasks[].taskSpec.resources", "PipelineResources are gone: use params and workspaces"),
    ("spec.pipelineSpec.tasks[].taskSpec.steps[].resources", "write it as `computeResources`"),
    ("spec.pipelineSpec.tasks[].taskSpec.stepTemplate.resources", "write it as `computeResources`"),
    ("spec.pipelineSpec.tasks[].taskSpec.sidecars[].resources", "write it as `computeResources`"),
];

/// Checks the fields of one document; adds faults to `faults`.
pub(super) fn check(document: &Node, faults: &mut Vec<Fault>) {
    check_map(document, RUN, "", faults);
}

fn check_map(node: &Node, fields: &[Field], path: &str, faults: &mut Vec<Fault>) {
    match &node.value {
        Value::Mapping(_) => {}
        Value::Null => return,
        _ => {
            let message = format!("`{path}` must be a map, not {}", node.kind());
            faults.push(Fault { at: node.at, message });
            return;
        }
    }
    for (key, value) in node.entries() {
        let here = if path.is_empty() { key.name.clone() } else { format!("{path}.{}", key.name) };
        let Some(field) = fields.iter().find(|field| field.name == key.name) else {
            faults.push(Fault { at: key.at, message: unknown(&here, &key.name, path, fields) });
            continue;
        };
        match field.shape {
            Shape::Open => {}
            Shape::Map(fields) => check_map(value, fields, &here, faults),
            Shape::List(fields) => check_list(value, fields, &here, faults),
        }
    }
}

fn check_list(node: &Node, fields: &[Field], path: &str, faults: &mut Vec<Fault>) {
    match &node.value {
        Value::Sequence(items) => {
            let path = format!("{path}[]");
            items.iter().for_each(|item| check_map(item, fields, &path, faults));
        }
        Value::Null => {}
        _ => {
            let message = format!("`{path}` must be a list, not {}; begin each item with `- `", node.kind());
            faults.push(Fault { at: node.at, message });
        }
    }
}

fn unknown(here: &str, name: &str, path: &str, fields: &[Field]) -> String {
    // `finally` holds the same kind of tasks as `tasks`.
    let canonical = here.replace(".finally[]", ".tasks[]");
    if let Some((_, successor)) = MOVED.iter().find(|(moved, _)| *moved == canonical) {
        return format!("`{here}` is not a field of tekton.dev/v1; {successor}");
    }
    let place = if path.is_empty() { "the document" } else { path };
    let names = fields.iter().map(|field| field.name);
    match nearest(name, names.clone()) {
        Some(nearest) => format!("unknown field `{name}` in {place}; did you mean `{nearest}`?"),
        None => {
            let known = names.collect::<Vec<_>>().join(", ");
            format!("unknown field `{name}` in {place}; known fields: {known}")
        }
    }
}
