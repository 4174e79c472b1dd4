//! What the environment says about this process, in OpenTelemetry's variables and Knative's.

use std::env;

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
