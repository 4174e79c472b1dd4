//! GitHub's `OpenAPI` description (npm `@octokit/openapi`): its operations, the schemas of their requests and answers, and
//! its examples.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use jsonschema::{Registry, Validator};
use serde_json::Value;

use crate::support::go::{say, target_folder};

/// The package and its version.
const PACKAGE: &str = "@octokit/openapi@23.0.2";
const ADDRESS: &str = "urn:github";

/// The description.
pub struct Description {
    document: Value,
    registry: Registry<'static>,
    validators: Mutex<HashMap<String, &'static Validator>>,
}

/// One operation and the values of its path's parameters.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The path as the description writes it, `/repos/{owner}/{repo}`.
    pub path: String,
    /// In lower case.
    pub method: String,
    pub parameters: HashMap<String, String>,
}

/// The description, fetched once. `None`, with a line that says so, if npm is not there.
pub fn description() -> Option<&'static Description> {
    static LOADED: OnceLock<Option<Description>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| match fetch() {
        Ok(file) => Some(Description::read(&file)),
        Err(why) => {
            assert!(std::env::var_os("REQUIRE_CONTROL_PLANE").is_none(), "GitHub's description: {why}");
            say(&format!("skipped the tests with GitHub's API: {why}; install npm"));
            None
        }
    });
    loaded.as_ref()
}

/// Takes the description out of the package, once. Returns its path.
pub fn fetch() -> Result<PathBuf, String> {
    let folder = target_folder().join("openapi").join(PACKAGE.rsplit('@').next().unwrap_or_default());
    let file = folder.join("package/generated/api.github.com.json");
    if file.is_file() {
        return Ok(file);
    }
    say("fetching GitHub's description; this is done once and takes some seconds");
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let mut pack = Command::new("npm");
    pack.args(["pack", "--silent", PACKAGE]);
    let mut unpack = Command::new("sh");
    unpack.args(["-c", "tar xzf ./*.tgz package/generated/api.github.com.json && rm ./*.tgz"]);
    for command in [&mut pack, &mut unpack] {
        let output = command.current_dir(&folder).output().map_err(|error| format!("npm: {error}"))?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
    }
    Ok(file)
}

impl Description {
    fn read(file: &Path) -> Self {
        let text = fs::read(file).expect("the description");
        let mut document: Value = serde_json::from_slice(&text).expect("JSON");
        allow_null(&mut document);
        let registry = Registry::new().add(ADDRESS, document.clone()).expect("an address").prepare();
        Self { document, registry: registry.expect("a registry"), validators: Mutex::default() }
    }

    /// The operation of a request. `None` if GitHub has none at this path.
    pub fn operation(&self, method: &str, path: &str) -> Option<Operation> {
        let parts: Vec<&str> = path.split('/').collect();
        let method = method.to_ascii_lowercase();
        let candidates = self.document["paths"].as_object().expect("paths").iter();
        let mut best: Option<Operation> = None;
        for (template, _) in candidates.filter(|(_, operations)| operations[&method].is_object()) {
            let names: Vec<&str> = template.split('/').collect();
            let matches = |(name, part): (&&str, &&str)| name.starts_with('{') || name == part;
            if names.len() != parts.len() || !names.iter().zip(&parts).all(matches) {
                continue;
            }
            let named = names.iter().zip(&parts).filter(|(name, _)| name.starts_with('{'));
            let parameters: HashMap<String, String> =
                named.map(|(name, part)| (name.trim_matches(['{', '}']).to_owned(), (*part).to_owned())).collect();
            if best.as_ref().is_none_or(|best| parameters.len() < best.parameters.len()) {
                best = Some(Operation { path: template.clone(), method: method.clone(), parameters });
            }
        }
        best
    }

    /// What is wrong with a request's query and body.
    pub fn check_request(&self, operation: &Operation, query: &HashMap<String, String>, body: &Value) -> Vec<String> {
        let node = &self.document["paths"][&operation.path][&operation.method];
        let declared: Vec<&str> = node["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|parameter| self.resolve(parameter))
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        let unknown = query.keys().filter(|name| !declared.contains(&name.as_str()));
        let mut problems: Vec<String> = unknown.map(|name| format!("no query parameter {name}")).collect();
        let schema = &node["requestBody"]["content"]["application/json"]["schema"];
        if schema.is_object() {
            let pointer = pointer(&[
                "paths",
                &operation.path,
                &operation.method,
                "requestBody",
                "content",
                "application/json",
                "schema",
            ]);
            problems.extend(self.check(&pointer, body));
            let known = self.resolve(schema)["properties"].as_object().cloned().unwrap_or_default();
            let fields = body.as_object().into_iter().flatten();
            problems.extend(
                fields.filter(|(name, _)| !known.contains_key(*name)).map(|(name, _)| format!("no field {name}")),
            );
        } else if !body.is_null() {
            problems.push("no body is expected".to_owned());
        }
        problems
    }

    /// What is wrong with an answer.
    pub fn check_answer(&self, operation: &Operation, status: u16, body: &Value) -> Vec<String> {
        let status = status.to_string();
        let node = &self.document["paths"][&operation.path][&operation.method]["responses"][&status];
        if node.is_null() {
            return vec![format!("no status {status}")];
        }
        let own = ["paths", &operation.path, &operation.method, "responses", &status];
        let base = match node["$ref"].as_str() {
            Some(reference) => reference.to_owned(),
            None => pointer(&own),
        };
        if self.resolve(node)["content"]["application/json"]["schema"].is_null() {
            return Vec::new();
        }
        self.check(&format!("{base}/content/application~1json/schema"), body)
    }

    /// GitHub's example of an answer.
    pub fn example(&self, operation: &Operation, status: u16) -> Value {
        let node = &self.document["paths"][&operation.path][&operation.method]["responses"][status.to_string()];
        let content = &self.resolve(node)["content"]["application/json"];
        let examples = content["examples"].as_object().expect("an example");
        let example = examples.get("default").or_else(|| examples.values().next()).expect("an example");
        self.resolve(example)["value"].clone()
    }

    /// What is not like the schema at a place of the description.
    pub fn check(&self, pointer: &str, value: &Value) -> Vec<String> {
        let mut validators = self.validators.lock().expect("the validators");
        let validator = *validators.entry(pointer.to_owned()).or_insert_with(|| {
            let schema = serde_json::json!({"$ref": format!("{ADDRESS}{}", encode(pointer))});
            let validator = jsonschema::options().with_registry(&self.registry).build(&schema).expect("a schema");
            Box::leak(Box::new(validator))
        });
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    fn resolve<'d>(&'d self, node: &'d Value) -> &'d Value {
        match node["$ref"].as_str() {
            Some(reference) => self.resolve(self.document.pointer(&reference[1..]).expect("a reference")),
            None => node,
        }
    }
}

fn pointer(parts: &[&str]) -> String {
    let escaped = parts.iter().map(|part| part.replace('~', "~0").replace('/', "~1"));
    format!("#/{}", escaped.collect::<Vec<_>>().join("/"))
}

/// Braces are not legal in a URI's fragment.
fn encode(pointer: &str) -> String {
    pointer.replace('{', "%7B").replace('}', "%7D")
}

/// `OpenAPI` 3.0 writes `nullable: true` where JSON Schema has the type null.
fn allow_null(node: &mut Value) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(allow_null),
        Value::Object(fields) => {
            fields.values_mut().for_each(allow_null);
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
                let schema = std::mem::take(node);
                *node = serde_json::json!({"anyOf": [schema, {"type": "null"}]});
            }
        }
        _ => {}
    }
}
