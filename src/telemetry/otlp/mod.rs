//! What is sent to a collector, by OTLP over HTTP: spans, and the metrics, because a pod that was scaled to zero cannot be
//! scraped. Nothing, unless an endpoint is set.
//!
//! The environment is OpenTelemetry's own: `OTEL_EXPORTER_OTLP_ENDPOINT` and its relatives for one signal,
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_SDK_DISABLED`.

mod client;
mod push;

use std::env;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

use super::spans::Tracer;
use client::Sender;
pub use push::Push;

/// What is still to be sent at the end gets this long: less than a pod has.
const LAST_WORDS: Duration = Duration::from_secs(3);
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// A collector, if there is one.
#[derive(Debug, Default)]
pub struct Collector {
    provider: Option<SdkTracerProvider>,
    push: Option<Push>,
}

impl Collector {
    /// Reads the environment; must be called in a runtime, which sends. What cannot be used is an ERROR line, and no
    /// reason not to serve.
    pub fn of_environment() -> Self {
        let set = |name: &str| env::var(name).is_ok_and(|value| !value.is_empty());
        let disabled = env::var("OTEL_SDK_DISABLED").is_ok_and(|value| value.eq_ignore_ascii_case("true"));
        let wanted =
            |signal: &str| !disabled && (set(ENDPOINT) || set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")));
        let mut collector = Self::default();
        if wanted("TRACES") {
            match provider() {
                Ok(provider) => collector.provider = Some(provider),
                Err(error) => tracing::error!(reason = error, "traces are not sent"),
            }
        }
        if wanted("METRICS") {
            match Push::of_environment(resource()) {
                Ok(push) => collector.push = Some(push),
                Err(error) => tracing::error!(reason = error, "metrics are not sent"),
            }
        }
        collector
    }

    /// What makes spans for it.
    pub fn tracer(&self) -> Tracer {
        self.provider
            .as_ref()
            .map_or_else(Tracer::default, |provider| Tracer::new(provider.tracer(env!("CARGO_PKG_NAME"))))
    }

    /// What sends metrics to it.
    pub fn push(&self) -> Option<Push> {
        self.push.clone()
    }

    /// Sends what is left.
    pub async fn finish(self) {
        let Some(provider) = self.provider else { return };
        // The library waits with a thread, and the runtime has to go on sending meanwhile.
        let done = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(LAST_WORDS)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(reason = %error, "the last spans were not sent");
        }
    }
}

fn provider() -> Result<SdkTracerProvider, String> {
    let exporter = SpanExporter::builder().with_http().with_http_client(Sender::new()).build();
    let exporter = exporter.map_err(|error| error.to_string())?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource()).build())
}

/// Who we are: what the environment says, else what Knative does.
fn resource() -> Resource {
    let mut resource = Resource::builder();
    if env::var("OTEL_SERVICE_NAME").map_or(true, |name| name.is_empty()) {
        let name = env::var("K_SERVICE").unwrap_or_else(|_| env!("CARGO_PKG_NAME").to_owned());
        resource = resource.with_service_name(name);
    }
    if let Ok(revision) = env::var("K_REVISION") {
        resource = resource.with_attribute(KeyValue::new("kn.revision.name", revision));
    }
    resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build()
}
