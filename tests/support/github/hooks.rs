//! Pull requests, webhooks and their log of deliveries. A webhook really delivers, over HTTP.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::{Value, json};

use super::description::{Description, Operation};
use super::{GitHub, Knowledge, Shared};
use crate::support::http::HttpClient;
use crate::support::webhook;

/// One webhook.
#[derive(Debug, Clone)]
pub struct Hook {
    /// `/repos/acme/web`, `/orgs/acme`, or `/app`.
    pub owner: String,
    pub id: u64,
    pub url: String,
    pub secret: String,
    pub is_active: bool,
    pub events: Vec<&'static str>,
    /// Its attempts, oldest first.
    pub log: Vec<Logged>,
    /// Whether GitHub refuses to deliver again.
    pub refuses_redelivery: bool,
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct Logged {
    pub item: Value,
    headers: Value,
    pub payload: Value,
    answer: Option<String>,
}

/// What is lost on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Nothing,
    /// The request.
    Request,
    /// The answer.
    Answer,
    /// GitHub makes no attempt, and logs none.
    Everything,
}

impl Hook {
    /// A webhook of `owner` (`/repos/acme/web`, `/orgs/acme`, `/app`) that posts pull requests to this address.
    pub fn to(owner: &str, id: u64, address: SocketAddr, secret: &str) -> Self {
        Self {
            owner: owner.to_owned(),
            id,
            url: format!("http://{address}/"),
            secret: secret.to_owned(),
            is_active: true,
            events: vec!["pull_request"],
            log: Vec::new(),
            refuses_redelivery: false,
        }
    }

    fn takes(&self, repository: &str, event: &str) -> bool {
        let owner = repository.split('/').next().unwrap_or_default();
        let owners = [format!("/repos/{repository}"), format!("/orgs/{owner}"), "/app".to_owned()];
        self.is_active && self.events.contains(&event) && owners.contains(&self.owner)
    }

    /// The JSON answer to the last attempt; null if there was none.
    pub fn last_answer(&self) -> Value {
        let answer = self.log.last().and_then(|logged| logged.answer.as_deref());
        answer.and_then(|answer| serde_json::from_str(answer).ok()).unwrap_or_default()
    }

    /// Status codes of the attempts at a delivery, oldest first.
    pub fn statuses(&self, guid: &str) -> Vec<u64> {
        let attempts = self.log.iter().filter(|logged| logged.item["guid"] == guid);
        attempts.map(|logged| logged.item["status_code"].as_u64().unwrap_or_default()).collect()
    }
}

/// Where a webhook delivers to, and its secret.
struct Target {
    id: u64,
    url: String,
    secret: String,
}

impl From<&Hook> for Target {
    fn from(hook: &Hook) -> Self {
        Self { id: hook.id, url: hook.url.clone(), secret: hook.secret.clone() }
    }
}

/// A number for a repository, the same for the same name.
pub fn repository_id(name: &str) -> u64 {
    name.bytes().fold(7, |id, byte| id * 31 % 1_000_000_007 + u64::from(byte))
}

impl GitHub {
    /// A pull request as the API gives it, and from now on knows it.
    pub fn pull_request(&self, repository: &str, number: u64, commit: &str, merged_at: Option<&str>) -> Value {
        let (owner, name) = repository.split_once('/').expect("owner/name");
        let description = super::description::description().expect("GitHub's description");
        let path = format!("/repos/{repository}/pulls/{number}");
        let mut pull = description.example(&description.operation("GET", &path).expect("an operation"), 200);
        let now = webhook::now();
        let url = format!("https://github.com/{repository}");
        for (pointer, value) in [
            ("/number", json!(number)),
            ("/state", json!("closed")),
            ("/html_url", format!("{url}/pull/{number}").into()),
            ("/merge_commit_sha", json!(commit)),
            ("/merged", merged_at.is_some().into()),
            ("/merged_at", json!(merged_at)),
            ("/closed_at", merged_at.unwrap_or(&now).into()),
            ("/updated_at", json!(now)),
            ("/base/ref", json!("main")),
            ("/base/repo/id", repository_id(repository).into()),
            ("/base/repo/name", json!(name)),
            ("/base/repo/full_name", json!(repository)),
            ("/base/repo/owner/login", json!(owner)),
            ("/base/repo/owner/type", json!("Organization")),
            ("/base/repo/html_url", json!(url)),
            ("/base/repo/clone_url", format!("{url}.git").into()),
        ] {
            *pull.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in the example")) = value;
        }
        // GitHub's example of a team does not follow its own schema.
        pull["requested_teams"] = json!([]);
        if merged_at.is_some() {
            pull["merged_by"] = pull["user"].clone();
        }
        self.knowledge().pulls.entry(repository.to_owned()).or_default().push(pull.clone());
        pull
    }

    /// The payload that GitHub sends when this pull request is closed.
    pub fn closed(pull: &Value) -> Value {
        let repository = &pull["base"]["repo"];
        json!({"action": "closed", "number": pull["number"], "pull_request": pull, "repository": repository,
            "organization": repository["owner"], "sender": pull["merged_by"].as_object().map_or(&pull["user"], |_| &pull["merged_by"]),
            "installation": {"id": 1, "node_id": "MDIz"}})
    }

    /// Merges a pull request a minute ago, and delivers that. Returns the GUID of the delivery.
    pub async fn merge(&self, repository: &str, number: u64, commit: &str, loss: Loss) -> String {
        let pull = self.pull_request(repository, number, commit, Some(&webhook::ago(60)));
        self.deliver(repository, "pull_request", &Self::closed(&pull), loss).await
    }

    /// Delivers an event to all webhooks that take it. Returns its GUID.
    pub async fn deliver(&self, repository: &str, event: &'static str, payload: &Value, loss: Loss) -> String {
        let guid = format!("{:08x}-242f-11e5-81e1-c7b6966d2516", fastrand::u32(..));
        if loss == Loss::Everything {
            return guid;
        }
        let hooks: Vec<Target> =
            self.knowledge().hooks.iter().filter(|hook| hook.takes(repository, event)).map(Target::from).collect();
        for hook in hooks {
            attempt(&self.knowledge, &hook, event, &guid, payload, loss, false).await;
        }
        guid
    }
}

/// Makes one attempt and logs it.
async fn attempt(
    knowledge: &Mutex<Knowledge>,
    hook: &Target,
    event: &str,
    guid: &str,
    payload: &Value,
    loss: Loss,
    redelivery: bool,
) {
    let body = payload.to_string();
    let mut headers = webhook::headers_signed_with(&hook.secret, event, guid, body.as_bytes());
    // A webhook without a secret is not signed.
    headers.retain(|(name, _)| name != "x-github-hook-id" && !(hook.secret.is_empty() && name.contains("signature")));
    headers.push(("x-github-hook-id".to_owned(), hook.id.to_string()));
    let address: Option<SocketAddr> =
        hook.url.strip_prefix("http://").and_then(|rest| rest.split('/').next()?.parse().ok());
    let client = HttpClient::new();
    let send = async |address| client.send(Method::POST, address, "/", &headers, body).await.ok();
    let reply = match address {
        Some(address) if loss != Loss::Request => {
            tokio::time::timeout(std::time::Duration::from_secs(10), send(address)).await.ok().flatten()
        }
        _ => None,
    };
    let reply = reply.filter(|_| loss != Loss::Answer);
    let code = reply.as_ref().map_or(0, |reply| reply.status.as_u16());
    let status = if code == 0 { "failed to connect to host".to_owned() } else { format!("{code}") };
    let mut knowledge = knowledge.lock().expect("knowledge");
    knowledge.attempts += 1;
    let id = knowledge.attempts;
    let item = json!({"id": id, "guid": guid, "delivered_at": webhook::now(), "redelivery": redelivery, "duration": 0.1,
        "status": status, "status_code": code, "event": event, "action": payload["action"], "installation_id": null,
        "repository_id": payload["repository"]["id"], "throttled_at": null});
    let named = headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    let logged =
        Logged { item, headers: named.collect(), payload: payload.clone(), answer: reply.map(|reply| reply.body) };
    if let Some(hook) = knowledge.hooks.iter_mut().find(|other| other.id == hook.id) {
        hook.log.push(logged);
    }
}

/// An answer, and the query of the next page.
type Answered = Option<(u16, Value, Option<String>)>;

impl Shared {
    /// Answers requests about repositories, pull requests and webhooks. `None` for others, and for what is not known.
    pub(super) fn hooks(
        &self,
        knowledge: &mut Knowledge,
        operation: &Operation,
        query: &HashMap<String, String>,
    ) -> Answered {
        let parameter = |name: &str| operation.parameters.get(name).cloned().unwrap_or_default();
        let (owner, organization) = (parameter("owner"), parameter("org"));
        let repository = format!("{owner}/{}", parameter("repo"));
        let path = operation.path.as_str();
        let hook_owner = match path.split('/').nth(1) {
            Some("repos") => format!("/repos/{repository}"),
            Some("orgs") => format!("/orgs/{organization}"),
            _ => "/app".to_owned(),
        };
        let hook_id = parameter("hook_id").parse::<u64>().ok();
        let hook =
            knowledge.hooks.iter().position(|hook| hook.owner == hook_owner && hook_id.is_none_or(|id| hook.id == id));
        let end = path
            .strip_prefix("/repos/{owner}/{repo}")
            .or(path.strip_prefix("/orgs/{org}"))
            .or(path.strip_prefix("/app"))?;
        match (operation.method.as_str(), end) {
            ("get", "") if !owner.is_empty() => {
                let pull = knowledge.pulls.get(&repository).and_then(|pulls| pulls.last());
                let mut answer = self.description.example(operation, 200);
                answer["id"] = repository_id(&repository).into();
                answer["full_name"] = repository.clone().into();
                answer["owner"]["login"] = owner.into();
                // GitHub's example lacks what its schema requires.
                (answer["language"], answer["source"]["language"]) = (Value::Null, Value::Null);
                answer["pushed_at"] = pull.map_or(webhook::now().into(), |pull| pull["updated_at"].clone());
                Some((200, answer, None))
            }
            ("get", "/repos") => {
                let mut names: Vec<&String> = knowledge.pulls.keys().collect();
                names.retain(|name| name.starts_with(&format!("{organization}/")));
                names.sort();
                let template = self.description.example(operation, 200)[0].clone();
                let repositories = names.into_iter().map(|name| {
                    let mut one = template.clone();
                    (one["id"], one["full_name"]) = (repository_id(name).into(), name.clone().into());
                    one["pushed_at"] = webhook::now().into();
                    one
                });
                Some(numbered::<Value>(repositories.collect(), query))
            }
            ("get", "/pulls") => {
                let mut pulls: Vec<&Value> = knowledge.pulls.get(&repository).into_iter().flatten().collect();
                pulls.sort_by_key(|pull| std::cmp::Reverse(pull["updated_at"].as_str().unwrap_or_default()));
                let (status, mut page, next) = numbered(pulls, query);
                // A list has fewer fields.
                for pull in page.as_array_mut().expect("a list") {
                    let fields = pull.as_object_mut().expect("an object");
                    for name in [
                        "merged",
                        "merged_by",
                        "commits",
                        "additions",
                        "deletions",
                        "changed_files",
                        "mergeable",
                        "mergeable_state",
                        "rebaseable",
                        "comments",
                        "review_comments",
                        "maintainer_can_modify",
                    ] {
                        fields.remove(name);
                    }
                }
                Some((status, page, next))
            }
            ("get", "/pulls/{pull_number}") => {
                let number = parameter("pull_number").parse::<u64>().ok()?;
                let pull = knowledge.pulls.get(&repository)?.iter().find(|pull| pull["number"] == number)?;
                Some((200, pull.clone(), None))
            }
            ("get", "/commits/{commit_sha}/pulls") => {
                let commit = parameter("commit_sha");
                let pulls = knowledge.pulls.get(&repository).cloned().unwrap_or_default();
                let pulls = pulls.into_iter().filter(|pull| pull["merge_commit_sha"] == commit.as_str());
                Some(numbered::<Value>(pulls.collect(), query))
            }
            ("get", "/hooks") => {
                let template = self.description.example(operation, 200)[0].clone();
                let hooks = knowledge.hooks.iter().filter(|hook| hook.owner == hook_owner).map(|hook| {
                    let mut one = template.clone();
                    (one["id"], one["active"], one["events"]) =
                        (hook.id.into(), hook.is_active.into(), json!(hook.events));
                    one["config"]["url"] = hook.url.clone().into();
                    one
                });
                Some(numbered::<Value>(hooks.collect(), query))
            }
            ("get", "/hook/config") => {
                let mut config = self.description.example(operation, 200);
                config["url"] = knowledge.hooks[hook?].url.clone().into();
                Some((200, config, None))
            }
            ("get", "/hooks/{hook_id}/deliveries" | "/hook/deliveries") => {
                Some(log_page(&knowledge.hooks[hook?], query))
            }
            (method, end) if end.contains("/deliveries/{delivery_id}") => {
                let hook = &knowledge.hooks[hook?];
                let id = parameter("delivery_id").parse::<u64>().ok()?;
                let logged = hook.log.iter().find(|logged| logged.item["id"] == id)?.clone();
                if method == "get" {
                    let mut detail = logged.item;
                    detail["url"] = hook.url.clone().into();
                    detail["request"] = json!({"headers": logged.headers, "payload": logged.payload});
                    detail["response"] = json!({"headers": {}, "payload": logged.answer});
                    return Some((200, detail, None));
                }
                if hook.refuses_redelivery {
                    let body =
                        json!({"message": "Validation Failed", "documentation_url": "https://docs.github.com/rest"});
                    return Some((422, body, None));
                }
                let (knowledge, hook) = (Arc::clone(&self.knowledge), Target::from(hook));
                tokio::spawn(async move {
                    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                    let (event, guid) = (text(&logged.item["event"]), text(&logged.item["guid"]));
                    attempt(&knowledge, &hook, &event, &guid, &logged.payload, Loss::Nothing, true).await;
                });
                Some((202, json!({}), None))
            }
            _ => None,
        }
    }
}

/// One page of a list with numbered pages.
fn numbered<I: Borrow<Value>>(items: Vec<I>, query: &HashMap<String, String>) -> (u16, Value, Option<String>) {
    let number = |name: &str, default: usize| query.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let (size, page) = (number("per_page", 30).min(100), number("page", 1));
    let next = (items.len() > page * size).then(|| format!("page={}", page + 1));
    let page = items.iter().skip((page - 1) * size).take(size);
    (200, page.map(|item| item.borrow().clone()).collect(), next)
}

/// One page of a webhook's log, newest first, by cursor.
fn log_page(hook: &Hook, query: &HashMap<String, String>) -> (u16, Value, Option<String>) {
    let size = query.get("per_page").and_then(|text| text.parse().ok()).unwrap_or(30).min(100);
    let cursor = query.get("cursor").and_then(|cursor| cursor.strip_prefix("v1_")?.parse::<u64>().ok());
    let id = |logged: &&Logged| logged.item["id"].as_u64().unwrap_or_default();
    let mut older = hook.log.iter().rev().filter(|logged| cursor.is_none_or(|cursor| id(logged) <= cursor));
    let page: Vec<&Logged> = older.by_ref().take(size).collect();
    let next = older.next().map(|logged| format!("cursor=v1_{}", id(&logged)));
    (200, page.into_iter().map(|logged| logged.item.clone()).collect(), next)
}

/// What is not like GitHub's payload of a closed pull request.
pub fn payload_problems(description: &Description, payload: &Value) -> Vec<String> {
    description.check("#/components/schemas/webhook-pull-request-closed", payload)
}
