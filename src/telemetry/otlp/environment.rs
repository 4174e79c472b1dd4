//! What the environment says about this process, in OpenTelemetry's variables and Knative's.

use std::env;

use http::Uri;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::Resource;

/// OpenTelemetry's attribute that tells the processes of a service apart.
const INSTANCE: Key = Key::from_static_str("service.instance.id");
/// The variable with the address of the collector.
pub(super) const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Why a signal is not exported.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnvironmentError {
    #[error("the collector's endpoint is not a URL")]
    Endpoint(#[from] http::uri::InvalidUri),
    #[error("the scheme of the collector's endpoint is {0}; only http:// works: run a collector inside the cluster")]
    Scheme(String),
    #[error("cannot set up the exporter")]
    Exporter(#[from] ExporterBuildError),
}

/// A variable that is set to something.
pub(super) fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address for a signal (`METRICS`, `TRACES`), at `path` below that of the collector unless it has one of its own.
/// Fails when it is no URL, or not `http://`.
pub(super) fn endpoint(signal: &str, path: &str) -> Result<Uri, EnvironmentError> {
    let own = variable(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
    let below = || format!("{}{path}", variable(ENDPOINT).unwrap_or_default().trim_end_matches('/'));
    let endpoint: Uri = own.unwrap_or_else(below).parse()?;
    match endpoint.scheme_str() {
        Some("http") => Ok(endpoint),
        scheme => Err(EnvironmentError::Scheme(scheme.unwrap_or("none").to_owned())),
    }
}

/// The identity of this process: from the environment, else from Knative's variables.
pub(super) fn resource() -> Resource {
    let mut resource = Resource::builder();
    if env::var("OTEL_SERVICE_NAME").map_or(true, |name| name.is_empty()) {
        let name = env::var("K_SERVICE").unwrap_or_else(|_| env!("CARGO_PKG_NAME").to_owned());
        resource = resource.with_service_name(name);
    }
    if let Ok(revision) = env::var("K_REVISION") {
        resource = resource.with_attribute(KeyValue::new("kn.revision.name", revision));
    }
    let resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build();
    if resource.get(&INSTANCE).is_some() {
        return resource;
    }
    let instance = KeyValue::new(INSTANCE, instance_id());
    Resource::builder_empty().with_attributes(attributes(&resource)).with_attribute(instance).build()
}

fn attributes(resource: &Resource) -> Vec<KeyValue> {
    resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect()
}

/// The pod's name, which no other pod has at any time; outside a cluster a random number.
fn instance_id() -> String {
    let host = env::var("HOSTNAME").ok().filter(|host| !host.is_empty());
    host.unwrap_or_else(|| format!("{:016x}", fastrand::u64(..)))
}
