//! Simulates Serving's controllers: no real controller writes statuses on the tests' API server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// The simulated result for new revisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Ready,
    /// Fails with this message, for example because the image cannot be pulled.
    Failed(&'static str),
    /// Never becomes ready and never fails.
    Never,
}

/// API of the Knative Services in a namespace.
pub fn services(client: Client, namespace: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("serving.knative.dev", "v1", "Service"));
    Api::namespaced_with(client, namespace, &kind)
}

/// Merges `status` into a Service's status.
pub async fn write_status(services: &Api<DynamicObject>, name: &str, status: &Value) {
    let patch = json!({"apiVersion": "serving.knative.dev/v1", "kind": "Service", "status": status});
    services.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("a status");
}

/// Reconciles the Services of one namespace every 20 ms, until dropped. An image called `bad` always fails, and a
/// revision with `gone` in its name does not exist.
pub struct Serving {
    fate: Arc<Mutex<Fate>>,
    task: JoinHandle<()>,
}

impl Serving {
    pub fn start(services: Api<DynamicObject>) -> Self {
        let fate = Arc::new(Mutex::new(Fate::Ready));
        let seen = Arc::clone(&fate);
        let task = tokio::spawn(async move {
            loop {
                let list = services.list(&Default::default()).await;
                for service in list.map(|list| list.items).unwrap_or_default() {
                    let mut fate = *seen.lock().expect("the fate");
                    let name = service.metadata.name.clone().unwrap_or_default();
                    let service = serde_json::to_value(&service).expect("JSON");
                    if service["spec"]["template"].to_string().contains("/bad@") {
                        fate = Fate::Failed("it does not start");
                    }
                    if let Some(status) = reconcile(&service, fate) {
                        write_status(&services, &name, &status).await;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        });
        Self { fate, task }
    }

    /// Sets the result for revisions from now on.
    pub fn set(&self, fate: Fate) {
        *self.fate.lock().expect("the fate") = fate;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The next status of a Service. Returns `None` if it is up to date.
fn reconcile(service: &Value, fate: Fate) -> Option<Value> {
    let (metadata, status) = (&service["metadata"], &service["status"]);
    let name = metadata["name"].as_str()?;
    let generation = metadata["generation"].as_i64()?;
    if status["observedGeneration"].as_i64() == Some(generation) {
        return None;
    }
    let template = service["spec"]["template"].to_string();
    let is_new = status["annotations"]["template"] != template.as_str();
    let created = if is_new {
        let own = service["spec"]["template"]["metadata"]["name"].as_str().map(str::to_owned);
        own.unwrap_or_else(|| format!("{name}-{generation:05}"))
    } else {
        status["latestCreatedRevisionName"].as_str()?.to_owned()
    };
    let was_ready = status["latestReadyRevisionName"].as_str().map(str::to_owned);
    let is_ready = was_ready.as_deref() == Some(&created) || fate == Fate::Ready;
    let ready = if is_ready { Some(created.clone()) } else { was_ready };
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-11-22T12:00:00Z"})
    };
    let (configurations, message) = match fate {
        _ if is_ready => ("True", String::new()),
        Fate::Failed(why) => ("False", format!("Revision \"{created}\" failed with message: {why}.")),
        _ => ("Unknown", String::new()),
    };
    let reason = if configurations == "False" { "RevisionFailed" } else { "" };
    let traffic: Vec<Value> = service["spec"]["traffic"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|target| {
            let mut target = target.clone();
            if target["revisionName"].is_null() {
                target["revisionName"] = ready.clone()?.into();
            }
            if let Some(tag) = target["tag"].as_str() {
                target["url"] = format!("http://{tag}-{name}.default.example.com").into();
            }
            Some(target)
        })
        .collect();
    let names = |target: &&Value| target["revisionName"].as_str().is_some_and(|name| name.contains("gone"));
    let missing = service["spec"]["traffic"].as_array().into_iter().flatten().find(names);
    let missing = missing.and_then(|target| target["revisionName"].as_str());
    let routes = match missing {
        Some(name) => {
            let message = format!("Revision \"{name}\" referenced in traffic not found.");
            condition("RoutesReady", "False", "RevisionMissing", &message)
        }
        None => condition("RoutesReady", if ready.is_some() { "True" } else { "Unknown" }, "", ""),
    };
    // Traffic to a revision that does not exist leaves the route as it was.
    let traffic = if missing.is_some() { status["traffic"].clone() } else { traffic.into() };
    Some(json!({
        "observedGeneration": generation,
        "annotations": {"template": template},
        "latestCreatedRevisionName": created,
        "latestReadyRevisionName": ready,
        "url": format!("http://{name}.default.example.com"),
        "traffic": traffic,
        "conditions": [
            condition("ConfigurationsReady", configurations, reason, &message),
            condition("Ready", configurations, reason, &message),
            routes,
        ],
    }))
}
