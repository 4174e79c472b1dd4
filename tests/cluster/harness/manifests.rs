//! Tekton, Knative Serving and Knative Eventing, from the manifests of their modules.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::assets::{IMAGES, TRIGGERS, last};
use super::names::{CLUSTER_IMAGES, DOMAIN, INGRESS_CLASS};

/// The repository of the images of [`IMAGES`] in the registry. The name leads to it, as those of all public registries.
pub const REPOSITORY: &str = "tests";
/// An image with a shell, for those parts that need one.
pub const SHELL_IMAGE: (&str, &str) = ("tests/debian", "1");

/// The objects of Tekton, with a CA that its resolvers trust.
pub fn tekton(manifests: &Path, ca: &str) -> Vec<Value> {
    const SKIPPED: &[&str] = &["webhook-hpa.yaml", "events.yaml", "config-leader-election-events.yaml"];
    let config = manifests.join("tekton");
    let mut files = ["100-namespace", "300-crds", "resolvers"].map(|name| files_below(&config.join(name))).concat();
    files.extend(files_in(&config).into_iter().filter(|path| !is_one_of(path, SKIPPED)));
    let mut objects = objects(&files);
    set(&mut objects, "config-registry-cert", &[("cert", ca)]);
    objects
}

/// The objects of Knative Serving, with its ingress class and domain, and short times until a Service has no pod.
pub fn serving(manifests: &Path) -> Vec<Value> {
    const SKIPPED: &[&str] = &["webhook-hpa.yaml", "activator-hpa.yaml"];
    const NETWORKING: &[&str] =
        &["certificate.yaml", "config-network.yaml", "domain-claim.yaml", "ingress.yaml", "serverlessservice.yaml"];
    let mut files = files_below(&manifests.join("serving"));
    files.retain(|path| !is_one_of(path, SKIPPED));
    files.extend(NETWORKING.iter().map(|name| manifests.join("networking").join(name)));
    files.push(manifests.join("caching/image.yaml"));
    let mut objects = objects(&files);
    set(&mut objects, "config-network", &[("ingress-class", INGRESS_CLASS)]);
    set(&mut objects, "config-domain", &[(DOMAIN, "")]);
    set(&mut objects, "config-autoscaler", &[("scale-to-zero-grace-period", "10s"), ("stable-window", "20s")]);
    objects
}

/// The objects of Knative Eventing with the in-memory channel and its Broker.
pub fn eventing(manifests: &Path) -> Vec<Value> {
    const SKIPPED: &[&str] =
        &["webhook-hpa.yaml", "hpa.yaml", "pingsource-mt-adapter.yaml", "job-sink.yaml", "request-reply.yaml"];
    let config = manifests.join("eventing");
    let folders = ["core", "brokers/mt-channel-broker", "channels/in-memory-channel"];
    let mut files = folders.map(|name| files_below(&config.join(name))).concat();
    files.retain(|path| !is_one_of(path, SKIPPED));
    let mut objects = objects(&files);
    // The controller reads names of images that no module contains, of parts that are not used here.
    let unused = |name: &str, keys: &[&str]| {
        let data: Value =
            keys.iter().map(|key| ((*key).to_owned(), json!(format!("{CLUSTER_IMAGES}/tests/none:1")))).collect();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "knative-eventing"},
            "data": data})
    };
    objects.push(unused("eventing-transformations-images", &["transform-jsonata"]));
    objects.push(unused(
        "eventing-integrations-images",
        &[
            "timer-source",
            "aws-s3-source",
            "aws-sqs-source",
            "aws-ddb-streams-source",
            "log-sink",
            "aws-s3-sink",
            "aws-sqs-sink",
            "aws-sns-sink",
        ],
    ));
    objects
}

/// The objects of Tekton Triggers, from the `config` folder of its module.
pub fn triggers(config: &Path) -> Vec<Value> {
    objects(&[files_in(config), files_in(&config.join("interceptors"))].concat())
}

/// Whether an object must exist before others are applied.
pub fn is_first(object: &Value) -> bool {
    matches!(object["kind"].as_str(), Some("Namespace" | "CustomResourceDefinition"))
}

/// The name of the image of a program in [`IMAGES`].
pub fn image(prefix: &str, package: &str) -> String {
    format!("{REPOSITORY}/{prefix}-{}", last(package))
}

fn is_one_of(path: &Path, names: &[&str]) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| names.contains(&name))
}

/// The YAML files in a folder, sorted.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}

/// The YAML files in a folder and below it.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = files_in(folder);
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        }
    }
    files
}

/// The objects of files, ready for a single small node: images by their names in the registry, without requests, limits
/// of CPU and affinity.
fn objects(files: &[PathBuf]) -> Vec<Value> {
    let mut all = Vec::new();
    for file in files {
        let text = with_images(&fs::read_to_string(file).expect("a manifest"));
        let objects = serde_saphyr::from_multiple::<Value>(&text);
        let objects = objects.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        all.extend(objects.into_iter().filter(Value::is_object).filter(|object| {
            !matches!(object["kind"].as_str(), Some("HorizontalPodAutoscaler" | "PodDisruptionBudget"))
        }));
    }
    for object in all.iter_mut().filter(|object| object["kind"] == "Deployment") {
        let spec = &mut object["spec"]["template"]["spec"];
        remove(spec, &["affinity"]);
        for container in spec["containers"].as_array_mut().into_iter().flatten() {
            // The programs are not built with the init program that their own images contain.
            if container["command"][0] == "/sbin/tini" {
                remove(container, &["command"]);
            }
            remove(&mut container["resources"], &["requests"]);
            remove(&mut container["resources"]["limits"], &["cpu"]);
        }
    }
    all
}

fn remove(value: &mut Value, fields: &[&str]) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|name, _| !fields.contains(&name.as_str()));
    }
}

/// Replaces the references to packages (`ko://...`) and to an image with a shell by names in the registry.
fn with_images(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, reference)) = rest.split_once("ko://") {
        let end = reference.find(|c: char| !(c.is_ascii_alphanumeric() || "._-/".contains(c)));
        let (package, after) = reference.split_at(end.unwrap_or(reference.len()));
        let mut known = IMAGES.iter().map(|(prefix, module, _)| (prefix, module)).chain([(&TRIGGERS.0, &TRIGGERS.1)]);
        let known = known.find(|(_, module)| package.starts_with(**module));
        let (prefix, _) = known.unwrap_or_else(|| panic!("no image for {package}"));
        result += &format!("{before}{CLUSTER_IMAGES}/{}:1", image(prefix, package));
        rest = after;
    }
    result += rest;
    let shell = regex::Regex::new(r"cgr\.dev/chainguard/busybox@sha256:\w+").expect("an expression");
    shell.replace_all(&result, format!("{CLUSTER_IMAGES}/{}:{}", SHELL_IMAGE.0, SHELL_IMAGE.1)).into_owned()
}

/// Sets entries of a ConfigMap.
fn set(objects: &mut [Value], name: &str, entries: &[(&str, &str)]) {
    let found = objects.iter_mut().find(|object| object["kind"] == "ConfigMap" && object["metadata"]["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no ConfigMap {name}"));
    for (key, value) in entries {
        found["data"][*key] = json!(value);
    }
}
