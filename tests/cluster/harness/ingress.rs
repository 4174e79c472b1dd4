//! A controller of Knative's Ingress for Envoy. It writes routes and clusters as files that Envoy reads, waits until
//! Envoy has them, and then sets the Ingress' status.
//!
//! None of Knative's own ingress controllers is a Go module.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use http::Method;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams, WatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::names::{ENVOY_ADMIN, INGRESS_CLASS, PRIVATE, PUBLIC};
use crate::support::go::say;
use crate::support::http::HttpClient;
use crate::support::webhook::now;

const TYPES: &str = "type.googleapis.com/envoy";
/// Namespace of the Services whose names stand for Envoy's listeners.
const NAMESPACE: &str = "envoy";
/// Envoy must have new files by then.
const PICK_UP: Duration = Duration::from_secs(10);

/// The Services of Envoy's listeners, to which the cluster's names lead.
pub fn services() -> Vec<Value> {
    let mut objects = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})];
    for (name, address) in [("public", PUBLIC), ("private", PRIVATE)] {
        let metadata = json!({"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}});
        let ports = json!([{"name": "http", "port": 80}]);
        objects.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}}));
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, "addressType": "IPv4",
            "ports": ports, "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
        }));
    }
    objects
}

fn ingresses() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("networking.internal.knative.dev", "v1alpha1", "Ingress"),
        "ingresses",
    )
}

fn kubernetes_services() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Service"), "services")
}

/// Envoy's files.
pub struct Files(PathBuf);

impl Files {
    /// Writes the configuration with which Envoy starts, without any route.
    pub fn create(folder: &Path) -> Self {
        let files = Self(folder.to_owned());
        let source =
            |name: &str| json!({"resource_api_version": "V3", "path_config_source": {"path": files.path(name)}});
        let listeners = [("public", PUBLIC), ("private", PRIVATE)]
            .map(|(name, address)| listener(name, address, &source(&format!("routes-{name}"))));
        files.write("listeners", &listeners);
        files.write("clusters", &[]);
        for name in ["public", "private"] {
            files.write(&format!("routes-{name}"), &[routes(name, &[])]);
        }
        let bootstrap = json!({
            "node": {"id": "envoy", "cluster": "envoy"},
            "admin": {"address": {"socket_address":
                {"address": ENVOY_ADMIN.ip(), "port_value": ENVOY_ADMIN.port()}}},
            "dynamic_resources": {"lds_config": source("listeners"), "cds_config": source("clusters")},
        });
        fs::write(files.path("bootstrap"), bootstrap.to_string()).expect("a file");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}.json"))
    }

    /// Writes resources, and returns their version. Envoy notices a file that is moved into place.
    fn write(&self, name: &str, resources: &[Value]) -> String {
        let version = hex::encode(Sha256::digest(json!(resources).to_string()))[..12].to_owned();
        let content = json!({"version_info": version, "resources": resources}).to_string();
        let path = self.path(name);
        if fs::read_to_string(&path).is_ok_and(|there| there == content) {
            return version;
        }
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, content).expect("a file");
        fs::rename(unfinished, path).expect("a file");
        version
    }
}

fn listener(name: &str, address: IpAddr, routes: &Value) -> Value {
    let router = json!({"@type": format!("{TYPES}.extensions.filters.http.router.v3.Router")});
    let manager = json!({
        "@type": format!("{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name, "stream_idle_timeout": "0s", "use_remote_address": true,
        "rds": {"route_config_name": name, "config_source": routes},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
    });
    json!({
        "@type": format!("{TYPES}.config.listener.v3.Listener"), "name": name,
        "address": {"socket_address": {"address": address, "port_value": 80}},
        "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
    })
}

fn routes(name: &str, hosts: &[Value]) -> Value {
    json!({"@type": format!("{TYPES}.config.route.v3.RouteConfiguration"), "name": name, "virtual_hosts": hosts})
}

fn headers(headers: &Value) -> Vec<Value> {
    let headers = headers.as_object().into_iter().flatten();
    headers
        .map(|(name, value)| {
            json!({"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
        })
        .collect()
}

/// Serves Ingresses until the runtime ends.
pub async fn run(client: Client, files: Files) {
    let changed = Arc::new(Notify::new());
    for resource in [ingresses(), kubernetes_services()] {
        let (client, changed) = (client.clone(), Arc::clone(&changed));
        tokio::spawn(async move {
            loop {
                watch(&client, &resource, &changed).await;
                sleep(Duration::from_millis(200)).await;
            }
        });
    }
    let mut clusters = BTreeMap::new();
    loop {
        let _ = timeout(Duration::from_secs(10), changed.notified()).await;
        if let Err(error) = reconcile(&client, &files, &mut clusters).await {
            say(&format!("cluster: ingress: {error}"));
            sleep(Duration::from_millis(500)).await;
            changed.notify_one();
        }
    }
}

async fn watch(client: &Client, resource: &ApiResource, changed: &Notify) {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), resource);
    let Ok(list) = api.list_metadata(&ListParams::default()).await else { return };
    changed.notify_one();
    let version = list.metadata.resource_version.unwrap_or_default();
    let Ok(stream) = api.watch_metadata(&WatchParams::default(), &version).await else { return };
    let mut stream = Box::pin(stream);
    while let Some(Ok(_)) = stream.next().await {
        changed.notify_one();
    }
}

/// What Envoy needs, collected from all Ingresses.
#[derive(Default)]
struct Wanted {
    clusters: BTreeMap<String, Value>,
    public: Vec<Value>,
    private: Vec<Value>,
    /// Ingresses whose backends do not all exist yet.
    incomplete: BTreeSet<(String, String)>,
}

/// Brings Envoy to what the Ingresses say now. `clusters` has all that were ever needed.
async fn reconcile(
    client: &Client,
    files: &Files,
    clusters: &mut BTreeMap<String, Value>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ingresses());
    let services: Api<DynamicObject> = Api::all_with(client.clone(), &kubernetes_services());
    let (all, services) = tokio::try_join!(lists(&api), lists(&services))?;
    let addresses: BTreeMap<(String, String), String> = services
        .iter()
        .filter_map(|service| {
            let address = service.data["spec"]["clusterIP"].as_str().filter(|address| *address != "None")?;
            Some(((service.namespace()?, service.name_any()), address.to_owned()))
        })
        .collect();
    let class = "networking.knative.dev/ingress.class";
    let mine: Vec<&DynamicObject> = all
        .iter()
        .filter(|ingress| ingress.annotations().get(class).is_some_and(|class| class == INGRESS_CLASS))
        .filter(|ingress| ingress.metadata.deletion_timestamp.is_none())
        .collect();
    let mut wanted = Wanted::default();
    for ingress in &mine {
        wanted.add(ingress, &addresses);
    }
    // Envoy answers 503 while a route leads to a cluster that it does not have: clusters come before the routes to them,
    // and none is taken away.
    clusters.append(&mut wanted.clusters);
    if !clusters.is_empty() {
        let clusters: Vec<Value> = clusters.values().cloned().collect();
        wait_for_envoy(&[files.write("clusters", &clusters)]).await?;
    }
    wait_for_envoy(&[
        files.write("routes-public", &[routes("public", &wanted.public)]),
        files.write("routes-private", &[routes("private", &wanted.private)]),
    ])
    .await?;
    for ingress in mine {
        if !wanted.incomplete.contains(&key(ingress)) && !is_ready(ingress) {
            set_ready(client, ingress).await?;
        }
    }
    Ok(())
}

async fn lists(api: &Api<DynamicObject>) -> kube::Result<Vec<DynamicObject>> {
    match api.list(&ListParams::default()).await {
        Ok(list) => Ok(list.items),
        // Serving is not installed yet.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn key(object: &DynamicObject) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

impl Wanted {
    fn add(&mut self, ingress: &DynamicObject, addresses: &BTreeMap<(String, String), String>) {
        let (namespace, name) = key(ingress);
        for (index, rule) in ingress.data["spec"]["rules"].as_array().into_iter().flatten().enumerate() {
            let mut found = Vec::new();
            for path in rule["http"]["paths"].as_array().into_iter().flatten() {
                if let Some(route) = self.route(path, addresses) {
                    found.push(route);
                } else {
                    self.incomplete.insert((namespace.clone(), name.clone()));
                }
            }
            // The first match wins: those with headers are the narrower ones.
            found.sort_by_key(|route| route["match"]["headers"].is_null());
            let hosts = rule["hosts"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let domains: Vec<String> = hosts.flat_map(|host| [host.to_owned(), format!("{host}:*")]).collect();
            let host = json!({"name": format!("{namespace}/{name}/{index}"), "domains": domains, "routes": found});
            if rule["visibility"] != "ClusterLocal" {
                self.public.push(host.clone());
            }
            self.private.push(host);
        }
    }

    /// A route, or `None` if one of its backends has no address.
    fn route(&mut self, path: &Value, addresses: &BTreeMap<(String, String), String>) -> Option<Value> {
        let mut weighted = Vec::new();
        for split in path["splits"].as_array().into_iter().flatten() {
            let [namespace, service] =
                ["serviceNamespace", "serviceName"].map(|field| split[field].as_str().unwrap_or_default().to_owned());
            let port = split["servicePort"].as_u64().unwrap_or(80);
            let address = addresses.get(&(namespace.clone(), service.clone()))?;
            let name = format!("{namespace}/{service}:{port}");
            let socket = json!({"socket_address": {"address": address, "port_value": port}});
            let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": socket}}]}]);
            self.clusters.insert(
                name.clone(),
                json!({
                    "@type": format!("{TYPES}.config.cluster.v3.Cluster"), "name": name, "type": "STATIC",
                    "connect_timeout": "5s",
                    "load_assignment": {"cluster_name": name, "endpoints": endpoints},
                }),
            );
            let percent = split["percent"].as_u64().unwrap_or(100);
            let appended = headers(&split["appendHeaders"]);
            weighted.push(json!({"name": name, "weight": percent, "request_headers_to_add": appended}));
        }
        let mut matched = json!({"prefix": path["path"].as_str().unwrap_or("/")});
        if let Some(wanted) = path["headers"].as_object() {
            let exact =
                |(name, value): (&String, &Value)| json!({"name": name, "string_match": {"exact": value["exact"]}});
            matched["headers"] = wanted.iter().map(exact).collect();
        }
        let mut action = json!({
            "weighted_clusters": {"clusters": weighted}, "timeout": "0s",
            "retry_policy": {"retry_on": "connect-failure", "num_retries": 3},
        });
        if let Some(host) = path["rewriteHost"].as_str() {
            action["host_rewrite_literal"] = json!(host);
        }
        let appended = headers(&path["appendHeaders"]);
        Some(json!({"match": matched, "route": action, "request_headers_to_add": appended}))
    }
}

/// Waits until Envoy's configuration has all versions.
async fn wait_for_envoy(versions: &[String]) -> Result<(), String> {
    let client = HttpClient::new();
    let all_there = async {
        loop {
            let dump = client.send(Method::GET, ENVOY_ADMIN, "/config_dump", &[], "").await;
            let dump = dump.map(|reply| reply.body).unwrap_or_default();
            if versions.iter().all(|version| dump.contains(version)) {
                return;
            }
            sleep(Duration::from_millis(30)).await;
        }
    };
    timeout(PICK_UP, all_there).await.map_err(|_| "Envoy does not take the configuration, see envoy.log".to_owned())
}

fn is_ready(ingress: &DynamicObject) -> bool {
    let status = &ingress.data["status"];
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    status["observedGeneration"].as_i64() == ingress.metadata.generation
        && conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

async fn set_ready(client: &Client, ingress: &DynamicObject) -> kube::Result<()> {
    let (namespace, name) = key(ingress);
    let now = now();
    let conditions = ["LoadBalancerReady", "NetworkConfigured", "Ready"]
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}));
    let balancer =
        |name: &str| json!({"ingress": [{"domainInternal": format!("{name}.{NAMESPACE}.svc.cluster.local")}]});
    let patch = json!({"status": {
        "observedGeneration": ingress.metadata.generation, "conditions": conditions,
        "publicLoadBalancer": balancer("public"), "privateLoadBalancer": balancer("private"),
    }});
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &ingresses());
    match api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Ok(()),
        // It was deleted in the meantime.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
