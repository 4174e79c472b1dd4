//! A GitHub: an HTTP server with a part of GitHub's API. Each request and each of its answers is checked against GitHub's
//! own description, its answers are made of GitHub's examples, and it keeps state and can fail.

pub mod description;
pub mod hooks;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use description::{Description, Operation, description};
use hooks::Hook;

/// A token that is valid at the beginning.
pub const TOKEN: &str = "ghp_0123456789abcdefghijklmnopqrstuvwxyz";
/// The App's id.
pub const APP: &str = "12345";

/// What happens to the next request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This answer.
    Answer(u16, Vec<(&'static str, String)>, Value),
    /// The connection is closed before anything is done.
    Reset,
    /// The request is done, and its answer is lost.
    Lost,
    /// Nothing.
    Pass,
    /// The answer comes later.
    Slow(Duration),
}

/// What a GitHub knows.
#[derive(Default)]
pub struct Knowledge {
    /// Commit statuses by `owner/name` and commit, newest last.
    pub statuses: HashMap<(String, String), Vec<Value>>,
    pub deployments: Vec<Value>,
    /// Statuses by deployment, newest last.
    pub deployment_statuses: HashMap<u64, Vec<Value>>,
    /// Valid tokens, and what each may do; `None`: everything.
    pub tokens: HashMap<String, Option<Value>>,
    /// Repositories on which the App is installed.
    pub installed: Vec<String>,
    /// Names of renamed repositories.
    pub renamed: HashMap<String, String>,
    /// Pull requests by `owner/name`, as the API gives each.
    pub pulls: HashMap<String, Vec<Value>>,
    pub hooks: Vec<Hook>,
    /// Number of answers that had not changed.
    pub not_modified: u64,
    /// Number of attempts to deliver.
    pub attempts: u64,
    /// Difference of GitHub's clock, in seconds.
    pub clock: i64,
    pub faults: VecDeque<Fault>,
    /// Statuses of requests that always fail, by method and path.
    pub broken: HashMap<String, u16>,
    /// The request (method and path) whose first answer is lost.
    pub lost: Option<String>,
    /// The server's own name for itself, in links to other pages.
    pub link_base: Option<String>,
    /// A permission that the App does not have.
    pub refused_permission: Option<&'static str>,
    /// The permissions of each token that the App got.
    pub granted: Vec<Value>,
    /// Method and path of each request.
    pub requests: Vec<String>,
    /// What was wrong with requests, and with our answers.
    pub problems: Vec<String>,
}

/// A running GitHub.
pub struct GitHub {
    pub address: SocketAddr,
    knowledge: Arc<Mutex<Knowledge>>,
    pub folder: tempfile::TempDir,
}

struct Shared {
    description: &'static Description,
    knowledge: Arc<Mutex<Knowledge>>,
    /// Modulus and exponent of the App's key.
    key: (Vec<u8>, Vec<u8>),
    base: String,
}

impl GitHub {
    /// Starts a GitHub. `None` if its description cannot be had.
    pub async fn start() -> Option<Self> {
        let description = description()?;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let knowledge = Arc::new(Mutex::new(Knowledge::default()));
        knowledge.lock().expect("knowledge").tokens.insert(TOKEN.to_owned(), None);
        let folder = tempfile::tempdir().expect("a folder");
        let key = make_key(folder.path());
        let base = format!("http://{address}");
        let shared = Arc::new(Shared { description, knowledge: Arc::clone(&knowledge), key, base });
        let router = Router::new().fallback(answer).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        std::fs::write(folder.path().join("token"), format!("{TOKEN}\n")).expect("a file");
        Some(Self { address, knowledge, folder })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn knowledge(&self) -> MutexGuard<'_, Knowledge> {
        self.knowledge.lock().expect("knowledge")
    }

    /// The file with [`TOKEN`].
    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("token")
    }

    /// The App's private key as GitHub gives it (PKCS#1).
    pub fn key_file(&self) -> PathBuf {
        self.folder.path().join("app.pem")
    }

    /// States of a commit's statuses, oldest first.
    pub fn states(&self, repository: &str, commit: &str) -> Vec<String> {
        let knowledge = self.knowledge();
        let statuses = knowledge.statuses.get(&(repository.to_owned(), commit.to_owned()));
        statuses.into_iter().flatten().map(|status| status["state"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Panics if a request or an answer did not follow GitHub's description.
    pub fn check(&self) {
        let knowledge = self.knowledge();
        assert!(knowledge.problems.is_empty(), "{:#?}", knowledge.problems);
    }
}

/// Writes an RSA key (`app.pem`, and PKCS#8 with Windows' line ends in `app-pkcs8.pem`). Returns modulus and exponent.
fn make_key(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).current_dir(folder).output().expect("openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    openssl(&["genrsa", "-traditional", "-out", "app.pem", "2048"]);
    openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", "app.pem", "-out", "app-pkcs8.pem"]);
    let unix = std::fs::read_to_string(folder.join("app-pkcs8.pem")).expect("a key");
    std::fs::write(folder.join("app-pkcs8.pem"), unix.replace('\n', "\r\n")).expect("a key");
    let modulus = openssl(&["rsa", "-in", "app.pem", "-noout", "-modulus"]);
    let modulus = hex::decode(modulus.trim().trim_start_matches("Modulus=")).expect("digits");
    (modulus, vec![1, 0, 1])
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = {
        let mut knowledge = shared.knowledge.lock().expect("knowledge");
        let request = format!("{method} {}", uri.path());
        let mut fault = knowledge.faults.pop_front();
        if let Some(status) = knowledge.broken.get(&request) {
            fault = Some(Fault::Answer(*status, Vec::new(), json!({"message": "broken"})));
        }
        if knowledge.lost.as_ref() == Some(&request) {
            knowledge.lost = None;
            fault = Some(Fault::Lost);
        }
        knowledge.requests.push(request);
        fault
    };
    let is_lost = matches!(fault, Some(Fault::Lost));
    match fault {
        Some(Fault::Answer(status, headers, body)) => {
            let mut response = json_answer(status, &body);
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().expect("a value"));
            }
            return response;
        }
        Some(Fault::Reset) => return reset(),
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        Some(Fault::Lost | Fault::Pass) | None => {}
    }
    let mut knowledge = shared.knowledge.lock().expect("knowledge");
    let mut next = None;
    let (status, body, location) = match shared.handle(&mut knowledge, &method, &uri, &headers, &body, &mut next) {
        Ok((status, body)) => (status, body, None),
        Err(Refusal::Status(status, message)) => {
            (status, json!({"message": message, "documentation_url": "https://docs.github.com/rest"}), None)
        }
        Err(Refusal::Moved(location)) => {
            (301, json!({"message": "Moved Permanently", "url": location}), Some(location))
        }
    };
    if is_lost {
        return reset();
    }
    let tag = format!("\"{}\"", hex::encode(&Sha256::digest(body.to_string())[..8]));
    if status == 200 && headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        knowledge.not_modified += 1;
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let mut response = json_answer(status, &body);
    response.headers_mut().insert(header::ETAG, tag.parse().expect("a value"));
    let date = jiff::Timestamp::now().as_second() + knowledge.clock;
    let date = jiff::Timestamp::from_second(date).expect("a time").strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    response.headers_mut().insert(header::DATE, date.parse().expect("a value"));
    if let Some(next) = next {
        let base = knowledge.link_base.as_ref().unwrap_or(&shared.base);
        let query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let kept: Vec<String> = query
            .filter(|(name, _)| name != "page" && name != "cursor")
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let link = format!("<{base}{}?{}&{next}>; rel=\"next\", <x>; rel=\"last\"", uri.path(), kept.join("&"));
        response.headers_mut().insert(header::LINK, link.parse().expect("a value"));
    }
    if let Some(location) = location {
        response.headers_mut().insert(header::LOCATION, location.parse().expect("a value"));
    }
    response
}

/// A body that breaks off closes the connection.
fn reset() -> Response {
    let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("reset")) });
    Response::new(Body::from_stream(broken))
}

fn json_answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).expect("a status");
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

enum Refusal {
    Status(u16, &'static str),
    Moved(String),
}

impl Shared {
    fn handle(
        &self,
        knowledge: &mut Knowledge,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
        next: &mut Option<String>,
    ) -> Result<(u16, Value), Refusal> {
        let path = uri.path();
        let not_found = Refusal::Status(404, "Not Found");
        for name in ["user-agent", "x-github-api-version", "accept"] {
            if !headers.contains_key(name) {
                knowledge.problems.push(format!("{method} {path}: no header {name}"));
            }
        }
        // GitHub's redirects lead to paths that its description does not have.
        let described = path.replace("/repositories/7/", "/repos/acme/site/");
        let Some(operation) = self.description.operation(method.as_str(), &described) else {
            knowledge.problems.push(format!("{method} {path}: no such operation"));
            return Err(not_found);
        };
        let query: HashMap<String, String> =
            form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
        let body: Value = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).expect("JSON") };
        let problems = self.description.check_request(&operation, &query, &body);
        knowledge.problems.extend(problems.into_iter().map(|problem| format!("{method} {path}: {problem}")));
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let bearer = bearer.unwrap_or_default();
        let is_app = operation.path.ends_with("/installation") || operation.path.starts_with("/app/");
        let needs_hooks = operation.path.contains("/hooks");
        if is_app {
            self.check_jwt(bearer, knowledge.clock)?;
        } else if !knowledge.tokens.contains_key(bearer) {
            return Err(Refusal::Status(401, "Bad credentials"));
        }
        let granted = knowledge.tokens.get(bearer).cloned().flatten();
        if needs_hooks
            && granted.as_ref().is_some_and(|granted| {
                let needs = if method == Method::GET { &["read", "write"][..] } else { &["write"] };
                !["repository_hooks", "organization_hooks"]
                    .iter()
                    .any(|name| granted[name].as_str().is_some_and(|level| needs.contains(&level)))
            })
        {
            return Err(Refusal::Status(403, "Resource not accessible by integration"));
        }
        let may = |permission: &str| granted.as_ref().is_none_or(|granted| granted[permission] == "write");
        let parameter = |name: &str| operation.parameters.get(name).cloned().unwrap_or_default();
        let repository = format!("{}/{}", parameter("owner"), parameter("repo"));
        if operation.path == "/repos/{owner}/{repo}/installation" && knowledge.renamed.contains_key(&repository) {
            return Err(Refusal::Moved(format!("{}/repositories/7/installation", self.base)));
        }
        if let Some(new) = knowledge.renamed.get(&repository) {
            return Err(Refusal::Moved(format!("{}{}", self.base, uri.to_string().replace(&repository, new))));
        }
        let (status, answer) = match (method.as_str(), operation.path.as_str()) {
            ("GET", "/repos/{owner}/{repo}/commits/{ref}/status") => {
                (200, self.combined(&operation, knowledge, &repository, &query))
            }
            ("POST", "/repos/{owner}/{repo}/statuses/{sha}") => {
                if !may("statuses") {
                    return Err(Refusal::Status(403, "Resource not accessible by integration"));
                }
                let mut status = self.description.example(&operation, 201);
                for field in ["state", "target_url", "description", "context"] {
                    status[field] = body[field].clone();
                }
                if body["description"].as_str().is_some_and(|text| text.chars().count() > 140) {
                    knowledge.problems.push("description is longer than GitHub's limit".to_owned());
                    return Err(Refusal::Status(422, "Validation Failed"));
                }
                knowledge.statuses.entry((repository, parameter("sha"))).or_default().push(status.clone());
                (201, status)
            }
            ("GET", "/repos/{owner}/{repo}/deployments") => {
                let is_wanted = |deployment: &&Value| {
                    ["sha", "environment"]
                        .iter()
                        .all(|field| query.get(*field).is_none_or(|wanted| deployment[field] == **wanted))
                };
                (200, knowledge.deployments.iter().rev().filter(is_wanted).cloned().collect())
            }
            ("POST", "/repos/{owner}/{repo}/deployments") => {
                if !may("deployments") {
                    return Err(Refusal::Status(403, "Resource not accessible by integration"));
                }
                if body["required_contexts"] != json!([]) {
                    return Err(Refusal::Status(409, "Conflict: Commit status checks failed for the commit"));
                }
                let mut deployment = self.description.example(&operation, 201);
                deployment["id"] = (knowledge.deployments.len() + 1).into();
                deployment["sha"] = body["ref"].clone();
                deployment["environment"] = body["environment"].clone();
                knowledge.deployments.push(deployment.clone());
                (201, deployment)
            }
            (_, "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses") => {
                let id = parameter("deployment_id").parse::<u64>().expect("a number");
                let statuses = knowledge.deployment_statuses.entry(id).or_default();
                if method == Method::GET {
                    (200, statuses.iter().rev().cloned().collect())
                } else {
                    let mut status = self.description.example(&operation, 201);
                    for field in ["state", "environment_url", "log_url", "description"] {
                        status[field] = if body[field].is_null() { "".into() } else { body[field].clone() };
                    }
                    statuses.push(status.clone());
                    (201, status)
                }
            }
            ("GET", "/orgs/{org}/installation") => {
                let prefix = format!("{}/", parameter("org"));
                if !knowledge.installed.iter().any(|name| name.starts_with(&prefix)) {
                    return Err(not_found);
                }
                (200, self.description.example(&operation, 200))
            }
            ("GET", "/repos/{owner}/{repo}/installation") => {
                if !knowledge.installed.contains(&repository) {
                    return Err(not_found);
                }
                (200, self.description.example(&operation, 200))
            }
            ("POST", "/app/installations/{installation_id}/access_tokens") => {
                let names = body["repositories"].as_array().into_iter().flatten().filter_map(Value::as_str);
                if names.into_iter().any(|name| knowledge.renamed.keys().any(|old| old.ends_with(&format!("/{name}"))))
                {
                    return Err(Refusal::Status(422, "There is at least one repository that does not exist"));
                }
                if knowledge.refused_permission.is_some_and(|name| body["permissions"][name].is_string()) {
                    return Err(Refusal::Status(
                        422,
                        "The permissions requested are not granted to this installation.",
                    ));
                }
                knowledge.granted.push(body["permissions"].clone());
                let mut token = self.description.example(&operation, 201);
                let text = format!("ghs_{}", fastrand::u64(..));
                token["token"] = text.clone().into();
                token["permissions"] = body["permissions"].clone();
                knowledge.tokens.insert(text, Some(body["permissions"].clone()));
                (201, token)
            }
            _ => match self.hooks(knowledge, &operation, &query) {
                Some((status, answer, link)) => {
                    *next = link;
                    (status, answer)
                }
                None => return Err(not_found),
            },
        };
        let problems = self.description.check_answer(&operation, status, &answer);
        knowledge.problems.extend(problems.into_iter().map(|problem| format!("answer to {method} {path}: {problem}")));
        Ok((status, answer))
    }

    /// The latest status of each context.
    fn combined(
        &self,
        operation: &Operation,
        knowledge: &Knowledge,
        repository: &str,
        query: &HashMap<String, String>,
    ) -> Value {
        let commit = operation.parameters["ref"].clone();
        let mut answer = self.description.example(operation, 200);
        let template = answer["statuses"][0].clone();
        let mut latest: Vec<Value> = Vec::new();
        for status in knowledge.statuses.get(&(repository.to_owned(), commit.clone())).into_iter().flatten() {
            latest.retain(|other| other["context"] != status["context"]);
            let mut one = template.clone();
            for field in ["state", "target_url", "description", "context"] {
                one[field] = status[field].clone();
            }
            latest.push(one);
        }
        let number = |name: &str, default: usize| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
        let (size, page) = (number("per_page", 30), number("page", 1));
        answer["total_count"] = latest.len().into();
        answer["sha"] = commit.into();
        answer["statuses"] = latest.into_iter().skip((page - 1) * size).take(size).collect();
        answer
    }

    /// Checks an App's JWT as GitHub does.
    fn check_jwt(&self, jwt: &str, clock: i64) -> Result<(), Refusal> {
        let invalid = |why| Refusal::Status(401, why);
        let (message, signature) = jwt.rsplit_once('.').ok_or(invalid("A JSON web token could not be decoded"))?;
        let decode = |text: &str| {
            BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid("A JSON web token could not be decoded"))
        };
        let key = RsaPublicKeyComponents { n: &self.key.0, e: &self.key.1 };
        key.verify(&RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &decode(signature)?)
            .map_err(|_| invalid("A JSON web token could not be decoded"))?;
        let claims = decode(message.split('.').nth(1).unwrap_or_default())?;
        let claims: Value = serde_json::from_slice(&claims).expect("claims");
        let now = jiff::Timestamp::now().as_second() + clock;
        let (issued, expires) =
            (claims["iat"].as_i64().unwrap_or_default(), claims["exp"].as_i64().unwrap_or_default());
        if claims["iss"] != APP {
            return Err(invalid("Integration not found"));
        }
        if issued > now {
            return Err(invalid(
                "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
            ));
        }
        if expires <= now || expires > now + 600 {
            return Err(invalid("'Expiration time' claim ('exp') is too far in the future"));
        }
        Ok(())
    }
}
