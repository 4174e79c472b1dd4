//! Export by OTLP over HTTP: spans, and the metrics, because a pod that was scaled to zero cannot be scraped. Nothing is
//! exported unless an endpoint is set.
//!
//! The environment variables are OpenTelemetry's own: `OTEL_EXPORTER_OTLP_ENDPOINT` and its variants for one signal,
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_SDK_DISABLED`.

mod client;
mod metrics;

use std::env;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

use super::spans::Tracer;
use client::Sender;
pub(crate) use metrics::MetricsExporter;

/// Time for the last export at the end of the process; shorter than a pod's termination grace period.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// OpenTelemetry's attribute that tells the processes of a service apart.
const INSTANCE: Key = Key::from_static_str("service.instance.id");
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The exporters to a collector that the environment asks for.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    spans: Option<SdkTracerProvider>,
    metrics: Option<MetricsExporter>,
}

/// Why a signal is not exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvironmentError {
    #[error("the collector's endpoint is not a URL")]
    Endpoint(#[from] http::uri::InvalidUri),
    #[error("{0}: a collector is reached by http:// only; run one inside the cluster")]
    Scheme(String),
    #[error("cannot set up the exporter")]
    Exporter(#[from] ExporterBuildError),
}

impl Collector {
    /// Reads the environment. Must be called in the runtime that sends. An unusable value is logged as an ERROR and
    /// does not keep the service from starting.
    pub(crate) fn from_environment() -> Self {
        let set = |name: &str| env::var(name).is_ok_and(|value| !value.is_empty());
        let disabled = env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        let wanted =
            |signal: &str| !disabled && (set(ENDPOINT) || set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")));
        let mut collector = Self::default();
        if !wanted("TRACES") && !wanted("METRICS") {
            return collector;
        }
        let resource = resource();
        if wanted("METRICS") {
            match MetricsExporter::from_environment(&resource) {
                Ok(exporter) => collector.metrics = Some(exporter),
                Err(error) => tracing::error!(error = %super::chain(&error), "metrics are not exported"),
            }
        }
        if wanted("TRACES") {
            match provider(resource) {
                Ok(provider) => collector.spans = Some(provider),
                Err(error) => tracing::error!(error = %super::chain(&error), "traces are not exported"),
            }
        }
        collector
    }

    /// The tracer for this collector; makes no spans if traces are not exported.
    pub(crate) fn tracer(&self) -> Tracer {
        self.spans
            .as_ref()
            .map_or_else(Tracer::default, |provider| Tracer::new(provider.tracer(env!("CARGO_PKG_NAME"))))
    }

    /// The exporter of metrics, if metrics are exported.
    pub(crate) fn metrics(&self) -> Option<MetricsExporter> {
        self.metrics.clone()
    }

    /// Sends the spans that are still buffered.
    pub(crate) async fn shut_down(self) {
        let Some(provider) = self.spans else { return };
        // The library waits with a thread, and the runtime has to go on sending meanwhile.
        let done = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(error = %error, "the last spans were not sent");
        }
    }
}

fn provider(resource: Resource) -> Result<SdkTracerProvider, EnvironmentError> {
    let exporter = SpanExporter::builder().with_http().with_http_client(Sender::new()).build()?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// The identity of this process: from the environment, else from Knative's variables.
fn resource() -> Resource {
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
