//! Export by OTLP over HTTP: spans, and the metrics, because a pod that was scaled to zero cannot be scraped. Nothing is
//! exported unless an endpoint is set.
//!
//! The environment variables are OpenTelemetry's own: `OTEL_EXPORTER_OTLP_ENDPOINT` and its variants for one signal,
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_SDK_DISABLED`.

mod client;
mod environment;
mod metrics;

use std::env;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;

use super::spans::Tracer;
use client::{SHUTDOWN_TIMEOUT, Sender};
use environment::{ENDPOINT, EnvironmentError, endpoint, resource, variable};
pub(crate) use metrics::MetricsExporter;

/// The exporters to a collector that the environment asks for.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    spans: Option<SdkTracerProvider>,
    metrics: Option<MetricsExporter>,
}

impl Collector {
    /// Reads the environment. Must be called in the runtime that sends. An unusable value is logged as an ERROR and
    /// does not keep the service from starting.
    pub(crate) fn from_environment() -> Self {
        let set = |name: &str| variable(name).is_some();
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
    // The library reads the address itself, and would lose each span without a word where it is not `http://`.
    endpoint("TRACES", "/v1/traces")?;
    let exporter = SpanExporter::builder().with_http().with_http_client(Sender::new()).build()?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}
