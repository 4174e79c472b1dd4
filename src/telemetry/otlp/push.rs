//! The metrics as OTLP: the same series as are scraped, read from the same text, so that the two never differ.

use std::collections::BTreeMap;
use std::env;
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
use prost::Message;

use super::client::Sender;
use super::{ENDPOINT, LAST_WORDS};

/// How often, if the environment does not say.
const INTERVAL: Duration = Duration::from_secs(60);

/// Sends metrics to a collector.
#[derive(Debug, Clone)]
pub struct Push {
    sender: Sender,
    endpoint: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    interval: Duration,
    resource: ProtoResource,
    start: SystemTime,
}

impl Push {
    pub(super) fn of_environment(resource: Resource) -> Result<Self, String> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let endpoint = match (variable("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"), variable(ENDPOINT)) {
            (Some(endpoint), _) => endpoint,
            (None, Some(base)) => format!("{}/v1/metrics", base.trim_end_matches('/')),
            (None, None) => return Err(format!("{ENDPOINT} is not set")),
        };
        let endpoint: Uri = endpoint.parse().map_err(|error| format!("{endpoint}: {error}"))?;
        if endpoint.scheme_str() != Some("http") {
            return Err(format!("{endpoint}: a collector is reached by http:// only; put one into the cluster"));
        }
        let headers = variable("OTEL_EXPORTER_OTLP_METRICS_HEADERS").or_else(|| variable("OTEL_EXPORTER_OTLP_HEADERS"));
        let headers = headers.unwrap_or_default();
        let headers = headers.split(',').filter_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
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

    /// Sends again and again what `metrics` says then; never ends.
    pub async fn run(self, metrics: impl Fn() -> String) {
        loop {
            tokio::time::sleep(self.interval).await;
            self.send(&metrics()).await;
        }
    }

    /// Sends metrics for the last time; a collector that does not take them must not keep a pod from ending.
    pub async fn send_last(&self, metrics: &str) {
        let _ = tokio::time::timeout(LAST_WORDS, self.send(metrics)).await;
    }

    /// Sends metrics once.
    pub async fn send(&self, metrics: &str) {
        let now = SystemTime::now();
        let message = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(self.resource.clone()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(InstrumentationScope {
                        name: env!("CARGO_PKG_NAME").to_owned(),
                        version: env!("CARGO_PKG_VERSION").to_owned(),
                        ..InstrumentationScope::default()
                    }),
                    metrics: convert(metrics, nanoseconds(self.start), nanoseconds(now)),
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
            Ok(response) => tracing::warn!(status = response.status().as_u16(), "the collector refuses the metrics"),
            Err(error) => tracing::warn!(reason = %error, "the collector does not take the metrics"),
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

/// One sample of the text form: its labels and value. Our labels come from closed sets, and none needs an escape.
struct Sample<'t> {
    name: &'t str,
    labels: Vec<(&'t str, &'t str)>,
    value: f64,
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
        let (key, value) = label.split_once('=')?;
        Some((key, value.trim_matches('"')))
    });
    Some(Sample { name, labels: labels.collect(), value: value.parse().ok()? })
}

/// The text form as OTLP's metrics.
fn convert(text: &str, start: u64, now: u64) -> Vec<Metric> {
    let mut metrics = Vec::new();
    let mut lines = text.lines().peekable();
    let mut help = "";
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        }
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else { continue };
        while lines.peek().is_some_and(|line| line.starts_with("# UNIT")) {
            lines.next();
        }
        let mut samples = Vec::new();
        while let Some(sample) = lines.peek().filter(|line| !line.starts_with('#')).and_then(|line| sample(line)) {
            samples.push(sample);
            lines.next();
        }
        let data = match kind {
            "counter" => metric::Data::Sum(Sum {
                data_points: samples.iter().map(|sample| number(sample, start, now)).collect(),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
                is_monotonic: true,
            }),
            "histogram" => metric::Data::Histogram(Histogram {
                data_points: histograms(&samples, start, now),
                aggregation_temporality: AggregationTemporality::Cumulative.into(),
            }),
            _ => metric::Data::Gauge(Gauge {
                data_points: samples.iter().map(|sample| number(sample, start, now)).collect(),
            }),
        };
        let (name, unit) = conventional(name);
        metrics.push(Metric {
            name,
            unit: unit.to_owned(),
            description: help.trim_end_matches('.').to_owned(),
            data: Some(data),
            ..Metric::default()
        });
    }
    metrics
}

/// The name that OpenTelemetry's conventions have for a series, and its unit.
fn conventional(name: &str) -> (String, &'static str) {
    match name {
        "http_server_request_duration_seconds" => ("http.server.request.duration".to_owned(), "s"),
        name if name.ends_with("_seconds") => (name.to_owned(), "s"),
        name if name.ends_with("_bytes") => (name.to_owned(), "By"),
        name => (name.to_owned(), "1"),
    }
}

fn attributes(labels: &[(&str, &str)]) -> Vec<KeyValue> {
    let key = |name: &str| if name.starts_with("http_") { conventional_label(name) } else { name.to_owned() };
    labels.iter().filter(|(name, _)| *name != "le").map(|(name, value)| attribute(&key(name), value)).collect()
}

fn conventional_label(name: &str) -> String {
    match name {
        "http_response_status_code" => "http.response.status_code".to_owned(),
        name => name.replace('_', "."),
    }
}

fn number(sample: &Sample<'_>, start: u64, now: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(&sample.labels),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    }
}

/// Buckets that count what is below their bound become buckets that count what is in them.
fn histograms(samples: &[Sample<'_>], start: u64, now: u64) -> Vec<HistogramDataPoint> {
    let mut points: BTreeMap<Vec<(&str, &str)>, HistogramDataPoint> = BTreeMap::new();
    for sample in samples {
        let labels: Vec<_> = sample.labels.iter().copied().filter(|(name, _)| *name != "le").collect();
        let point = points.entry(labels).or_default();
        if sample.name.ends_with("_sum") {
            point.sum = Some(sample.value);
        } else if sample.name.ends_with("_count") {
            point.count = whole(sample.value);
        } else if let Some((_, bound)) = sample.labels.iter().find(|(name, _)| *name == "le") {
            let below: u64 = point.bucket_counts.iter().sum();
            point.bucket_counts.push(whole(sample.value).saturating_sub(below));
            if let Some(bound) = bound.parse().ok().filter(|bound: &f64| bound.is_finite()) {
                point.explicit_bounds.push(bound);
            }
        }
    }
    let finished = points.into_iter().map(|(labels, point)| HistogramDataPoint {
        attributes: attributes(&labels),
        start_time_unix_nano: start,
        time_unix_nano: now,
        ..point
    });
    finished.collect()
}

/// A count, which the text writes like any number.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP http_server_request_duration_seconds Time.\n\
        # TYPE http_server_request_duration_seconds histogram\n\
        # UNIT http_server_request_duration_seconds seconds\n\
        http_server_request_duration_seconds_sum{http_route=\"/\",http_response_status_code=\"200\"} 0.5\n\
        http_server_request_duration_seconds_count{http_route=\"/\",http_response_status_code=\"200\"} 3\n\
        http_server_request_duration_seconds_bucket{le=\"0.1\",http_route=\"/\",http_response_status_code=\"200\"} 1\n\
        http_server_request_duration_seconds_bucket{le=\"0.5\",http_route=\"/\",http_response_status_code=\"200\"} 3\n\
        http_server_request_duration_seconds_bucket{le=\"+Inf\",http_route=\"/\",http_response_status_code=\"200\"} 3\n\
        # HELP deliveries Deliveries.\n# TYPE deliveries counter\ndeliveries_total{event=\"push\"} 2\n\
        # HELP in_flight Now.\n# TYPE in_flight gauge\nin_flight 1\n# EOF\n";

    #[test]
    fn the_text_becomes_the_same_series() {
        let metrics = convert(TEXT, 1, 2);
        let names: Vec<&str> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["http.server.request.duration", "deliveries", "in_flight"]);
        let Some(metric::Data::Histogram(histogram)) = &metrics[0].data else { panic!("no histogram") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum, &point.bucket_counts[..]), (3, Some(0.5), &[1, 2, 0][..]));
        assert_eq!((&point.explicit_bounds[..], point.attributes.len()), (&[0.1, 0.5][..], 2));
        assert_eq!(point.attributes[1].key, "http.response.status_code");
        let Some(metric::Data::Sum(sum)) = &metrics[1].data else { panic!("no sum") };
        assert!(sum.is_monotonic);
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(2.0)));
        assert!(matches!(&metrics[2].data, Some(metric::Data::Gauge(gauge)) if gauge.data_points.len() == 1));
    }
}
