//! Metrics by OTLP: the gathered structures of the registry, converted to OTLP's structures.

use std::time::{Duration, SystemTime};

use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Uri};
use opentelemetry_http::{HttpClient, Request};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource as ProtoResource;
use opentelemetry_sdk::Resource;
use percent_encoding::percent_decode_str;
use prometheus::proto::{self, MetricFamily, MetricType};
use prost::Message;

use super::client::{SHUTDOWN_TIMEOUT, Sender};
use super::environment::{EnvironmentError, endpoint, variable};
use crate::telemetry::metrics::Registry;

/// Export interval unless `OTEL_METRIC_EXPORT_INTERVAL` (milliseconds) says otherwise.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sends metrics to a collector.
#[derive(Debug, Clone)]
pub(crate) struct MetricsExporter {
    sender: Sender,
    endpoint: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    interval: Duration,
    resource: ProtoResource,
    start: SystemTime,
}

impl MetricsExporter {
    pub(super) fn from_environment(resource: &Resource) -> Result<Self, EnvironmentError> {
        let endpoint = endpoint("METRICS", "/v1/metrics")?;
        let headers = variable("OTEL_EXPORTER_OTLP_METRICS_HEADERS").or_else(|| variable("OTEL_EXPORTER_OTLP_HEADERS"));
        let headers = headers.unwrap_or_default();
        let headers = headers.split(',').filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            Some((name.trim().parse().ok()?, value.parse().ok()?))
        });
        let interval = variable("OTEL_METRIC_EXPORT_INTERVAL")
            .and_then(|milliseconds| milliseconds.parse().ok())
            .filter(|milliseconds| *milliseconds > 0);
        let attributes = resource.iter().map(|(key, value)| attribute(key.as_str(), &value.as_str()));
        Ok(Self {
            sender: Sender::new(),
            endpoint,
            headers: headers.collect(),
            interval: interval.map_or(INTERVAL, Duration::from_millis),
            resource: ProtoResource { attributes: attributes.collect(), ..ProtoResource::default() },
            start: SystemTime::now(),
        })
    }

    /// Sends all metrics at each interval; never returns. `prepare` updates gauges first.
    pub(crate) async fn run(self, registry: Registry, prepare: impl Fn()) {
        loop {
            tokio::time::sleep(self.interval).await;
            prepare();
            self.send(&registry).await;
        }
    }

    /// Sends all metrics a last time, within [`SHUTDOWN_TIMEOUT`].
    pub(crate) async fn send_last(&self, registry: &Registry) {
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, self.send(registry)).await;
    }

    async fn send(&self, registry: &Registry) {
        let (start, now) = (nanoseconds(self.start), nanoseconds(SystemTime::now()));
        let metrics = registry.gather().iter().map(|family| convert(family, start, now)).collect();
        let message = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    metrics,
                    ..ScopeMetrics::default()
                }],
                ..ResourceMetrics::default()
            }],
        };
        let mut request = Request::post(&self.endpoint).header(CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let sent = match request.body(message.encode_to_vec().into()) {
            Ok(request) => self.sender.send_bytes(request).await,
            Err(error) => Err(error.into()),
        };
        match sent {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => tracing::warn!(status = response.status().as_u16(), "the collector refused the metrics"),
            Err(error) => tracing::warn!(error = %error, "cannot send metrics to the collector"),
        }
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// One family of series as an OTLP metric, under the name that OpenTelemetry's conventions have for it.
fn convert(family: &MetricFamily, start: u64, now: u64) -> Metric {
    let series = family.get_metric();
    let number = |value: fn(&proto::Metric) -> f64| -> Vec<NumberDataPoint> {
        let point = |metric| NumberDataPoint {
            attributes: attributes(metric),
            start_time_unix_nano: start,
            time_unix_nano: now,
            value: Some(number_data_point::Value::AsDouble(value(metric))),
            ..NumberDataPoint::default()
        };
        series.iter().map(point).collect()
    };
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match family.get_field_type() {
        MetricType::COUNTER => metric::Data::Sum(Sum {
            data_points: number(|metric| metric.get_counter().get_value()),
            aggregation_temporality: cumulative,
            is_monotonic: true,
        }),
        MetricType::HISTOGRAM => metric::Data::Histogram(Histogram {
            data_points: series.iter().map(|metric| histogram(metric, start, now)).collect(),
            aggregation_temporality: cumulative,
        }),
        _ => metric::Data::Gauge(Gauge { data_points: number(|metric| metric.get_gauge().get_value()) }),
    };
    let (name, unit) = conventional(family);
    Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: family.help().to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// A metric's name and unit in OpenTelemetry's conventions; `_total` is Prometheus' mark of a counter. A gauge has no unit: the
/// Collector's exporter for Prometheus takes `1` for a ratio, and would add `_ratio` to its name.
fn conventional(family: &MetricFamily) -> (&str, &'static str) {
    match family.name() {
        "http_server_request_duration_seconds" => ("http.server.request.duration", "s"),
        name if name.ends_with("_seconds") => (name, "s"),
        name if name.ends_with("_bytes") => (name, "By"),
        name if family.get_field_type() == MetricType::COUNTER => (name.trim_end_matches("_total"), "1"),
        name => (name, ""),
    }
}

fn attributes(metric: &proto::Metric) -> Vec<KeyValue> {
    let key = |name: &str| match name {
        "http_response_status_code" => "http.response.status_code".to_owned(),
        name if name.starts_with("http_") => name.replace('_', "."),
        name => name.to_owned(),
    };
    metric.get_label().iter().map(|label| attribute(&key(label.name()), label.value())).collect()
}

/// Prometheus' buckets count everything below their bound, OTLP's only what lies between two bounds.
fn histogram(metric: &proto::Metric, start: u64, now: u64) -> HistogramDataPoint {
    let histogram = metric.get_histogram();
    let mut below = 0;
    let mut point = HistogramDataPoint {
        attributes: attributes(metric),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: histogram.get_sample_count(),
        sum: Some(histogram.get_sample_sum()),
        ..HistogramDataPoint::default()
    };
    for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        point.explicit_bounds.push(bucket.upper_bound());
        point.bucket_counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    point.bucket_counts.push(point.count.saturating_sub(below));
    point
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, IntCounter, Opts};

    use super::*;

    #[test]
    fn converts_counters_and_gauges() {
        let registry = prometheus::Registry::new();
        let counter = IntCounter::with_opts(Opts::new("deliveries_total", "Deliveries").const_label("event", "push"));
        let counter = counter.expect("a counter");
        counter.inc_by(2);
        registry.register(Box::new(counter)).expect("one name");
        let metric = convert(&registry.gather()[0], 1, 2);
        assert_eq!((metric.name.as_str(), metric.unit.as_str()), ("deliveries", "1"));
        let Some(metric::Data::Sum(sum)) = metric.data else { panic!("no sum") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.data_points[0].attributes[0].key, "event");
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(2.0)));

        for (name, unit) in [("in_flight", ""), ("buffered_bytes", "By"), ("start_time_seconds", "s")] {
            let registry = prometheus::Registry::new();
            let gauge = prometheus::Gauge::new(name, "Now").expect("a gauge");
            gauge.set(3.0);
            registry.register(Box::new(gauge)).expect("one name");
            let metric = convert(&registry.gather()[0], 1, 2);
            assert_eq!((metric.name.as_str(), metric.unit.as_str()), (name, unit));
            let Some(metric::Data::Gauge(gauge)) = metric.data else { panic!("no gauge") };
            assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(3.0)));
        }
    }

    #[test]
    fn converts_cumulative_buckets_to_separate_ones() {
        let options = HistogramOpts::new("http_server_request_duration_seconds", "Time")
            .const_label("http_response_status_code", "200")
            .buckets(vec![0.1, 0.5]);
        let histogram = prometheus::Histogram::with_opts(options).expect("a histogram");
        [0.05, 0.2, 0.3, 9.0].into_iter().for_each(|time| histogram.observe(time));
        let registry = prometheus::Registry::new();
        registry.register(Box::new(histogram)).expect("one name");
        let metric = convert(&registry.gather()[0], 1, 2);
        assert_eq!((metric.name.as_str(), metric.unit.as_str()), ("http.server.request.duration", "s"));
        let Some(metric::Data::Histogram(histogram)) = metric.data else { panic!("no histogram") };
        let point = &histogram.data_points[0];
        assert_eq!(
            (point.count, &point.bucket_counts[..], &point.explicit_bounds[..]),
            (4, &[1, 2, 1][..], &[0.1, 0.5][..])
        );
        assert_eq!(point.attributes[0].key, "http.response.status_code");
    }
}
