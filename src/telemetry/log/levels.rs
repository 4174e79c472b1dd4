//! Log lines, counted by level as they are written: the alert on errors goes by these.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// One counter a level; there is one log.
static COUNTERS: [(Level, &str, AtomicU64); 5] = [
    (Level::ERROR, "error", AtomicU64::new(0)),
    (Level::WARN, "warn", AtomicU64::new(0)),
    (Level::INFO, "info", AtomicU64::new(0)),
    (Level::DEBUG, "debug", AtomicU64::new(0)),
    (Level::TRACE, "trace", AtomicU64::new(0)),
];

/// Counts each line that is written.
pub(super) struct Count;

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if let Some((.., count)) = COUNTERS.iter().find(|(level, ..)| level == event.metadata().level()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The counters as a metric.
#[derive(Debug)]
pub(super) struct Counters;

impl EncodeMetric for Counters {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (_, level, count) in &COUNTERS {
            let labels = [("level", *level)];
            encoder
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count.load(Ordering::Relaxed), None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
