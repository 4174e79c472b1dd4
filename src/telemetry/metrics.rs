//! Metrics with closed label sets. Each module defines its own typed metrics and registers them here; the same gathered
//! structures are written as Prometheus text ([`Registry::to_text`]) and converted to OTLP (`otlp/metrics.rs`).
//!
//! Every series is there when metrics are first read, at zero, so that a rate over the first event is right. They are made
//! then and not at the start, which they would make a tenth longer.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, TextEncoder,
};

/// Media type of [`Registry::to_text`]: the Prometheus text format 0.0.4.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Prefix of every metric that is not a semantic convention of OpenTelemetry.
const PREFIX: &str = "github_trigger_";

/// A closed set of `N` labels and their values.
pub(crate) trait Labels<const N: usize>: Sized {
    /// Label names, in the order of [`Self::values`].
    const NAMES: [&'static str; N];

    /// The values of one series.
    fn values(&self) -> [&str; N];

    /// Every series that can exist when the program starts.
    fn all() -> Vec<Self>;
}

/// Makes every series of one family.
type MakeSeries = Box<dyn FnOnce() + Send>;

/// All metrics of the process; cheap to clone, and clones share their metrics.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    registry: prometheus::Registry,
    /// Makes the series of each family; run before metrics are first read.
    series: Arc<Mutex<Vec<MakeSeries>>>,
}

/// A family of counters, one for each label set.
pub(crate) struct Counters<L, const N: usize>(IntCounterVec, PhantomData<fn(L)>);

/// A family of gauges, one for each label set.
pub(crate) struct Gauges<L, const N: usize>(GaugeVec, PhantomData<fn(L)>);

/// A family of histograms, one for each label set.
pub(crate) struct Histograms<L, const N: usize>(HistogramVec, PhantomData<fn(L)>);

impl Registry {
    /// Registers `github_trigger_<name>`, a family of counters; `name` ends in `_total`.
    pub(crate) fn counters<L: Labels<N> + 'static, const N: usize>(&self, name: &str, help: &str) -> Counters<L, N> {
        let counters = IntCounterVec::new(Opts::new(format!("{PREFIX}{name}"), help), &L::NAMES);
        let counters = Counters(self.register(counters), PhantomData);
        let family = counters.clone();
        self.add_series(move || L::all().iter().for_each(|labels| drop(family.with(labels))));
        counters
    }

    /// Registers `github_trigger_<name>`, a family of gauges.
    pub(crate) fn gauges<L: Labels<N> + 'static, const N: usize>(&self, name: &str, help: &str) -> Gauges<L, N> {
        let gauges = GaugeVec::new(Opts::new(format!("{PREFIX}{name}"), help), &L::NAMES);
        let gauges = Gauges(self.register(gauges), PhantomData);
        let family = gauges.clone();
        self.add_series(move || L::all().iter().for_each(|labels| drop(family.with(labels))));
        gauges
    }

    /// Registers `github_trigger_<name>`, a gauge without labels.
    pub(crate) fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(format!("{PREFIX}{name}"), help))
    }

    /// Registers `process_start_time_seconds`, Prometheus' name for the start of the process: rules tell by it whether a
    /// counter was seen from its beginning.
    pub(crate) fn start_time(&self, since_epoch: Duration) {
        let help = "Start time of the process since the Unix epoch in seconds.";
        self.register(Gauge::new("process_start_time_seconds", help)).set(since_epoch.as_secs_f64());
    }

    /// Registers `name`, a family of histograms with these upper bounds.
    pub(crate) fn histograms<L: Labels<N> + 'static, const N: usize>(
        &self,
        name: &str,
        help: &str,
        bounds: &[f64],
    ) -> Histograms<L, N> {
        let options = HistogramOpts::new(name, help).buckets(bounds.to_vec());
        let histograms = Histograms(self.register(HistogramVec::new(options, &L::NAMES)), PhantomData);
        let family = histograms.clone();
        self.add_series(move || L::all().iter().for_each(|labels| drop(family.with(labels))));
        histograms
    }

    /// Adds a metric. A name is registered once, in one place: an error is a defect that every start would show.
    #[expect(clippy::expect_used, reason = "names are constants, and the unit test of each module registers them")]
    fn register<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("a valid metric name");
        self.registry.register(Box::new(metric.clone())).expect("a metric name that is registered once");
        metric
    }

    fn add_series(&self, make: impl FnOnce() + Send + 'static) {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(make));
    }

    /// Every series as it is now, sorted by name.
    pub(crate) fn gather(&self) -> Vec<MetricFamily> {
        let series = std::mem::take(&mut *self.series.lock().unwrap_or_else(PoisonError::into_inner));
        series.into_iter().for_each(|make| make());
        self.registry.gather()
    }

    /// Every series as Prometheus text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        // Only a failing writer makes it fail, and a String is not one.
        let _ = TextEncoder::new().encode_utf8(&self.gather(), &mut text);
        text
    }
}

impl<L: Labels<N>, const N: usize> Counters<L, N> {
    /// The counter of a label set.
    pub(crate) fn with(&self, labels: &L) -> IntCounter {
        self.0.with_label_values(&labels.values())
    }

    /// Removes the series of a label set, if there is one.
    pub(crate) fn remove(&self, labels: &L) {
        let _ = self.0.remove_label_values(&labels.values());
    }
}

impl<L: Labels<N>, const N: usize> Gauges<L, N> {
    /// The gauge of a label set.
    pub(crate) fn with(&self, labels: &L) -> Gauge {
        self.0.with_label_values(&labels.values())
    }

    /// Removes the series of a label set, if there is one.
    pub(crate) fn remove(&self, labels: &L) {
        let _ = self.0.remove_label_values(&labels.values());
    }
}

impl<L: Labels<N>, const N: usize> Histograms<L, N> {
    /// The histogram of a label set.
    pub(crate) fn with(&self, labels: &L) -> Histogram {
        self.0.with_label_values(&labels.values())
    }
}

macro_rules! impl_clone {
    ($($family:ident),+) => {$(
        impl<L, const N: usize> Clone for $family<L, N> {
            fn clone(&self) -> Self {
                Self(self.0.clone(), PhantomData)
            }
        }
    )+};
}

impl_clone!(Counters, Gauges, Histograms);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Color {
        Red,
        Green,
    }

    impl Labels<1> for Color {
        const NAMES: [&'static str; 1] = ["color"];

        fn values(&self) -> [&str; 1] {
            [match self {
                Self::Red => "red",
                Self::Green => "green",
            }]
        }

        fn all() -> Vec<Self> {
            vec![Self::Red, Self::Green]
        }
    }

    #[test]
    fn has_every_series_from_the_start() {
        let registry = Registry::default();
        let counters = registry.counters::<Color, 1>("things_total", "Things by color.");
        let bounds = [0.5, 1.0];
        let times = registry.histograms::<Color, 1>("time_seconds", "Time by color.", &bounds);
        let names = |text: &str| -> Vec<String> {
            text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
        };
        let before = registry.to_text();
        counters.with(&Color::Green).inc();
        times.with(&Color::Red).observe(0.7);
        let after = registry.to_text();
        assert_eq!(names(&before), names(&after));
        for line in [
            "# TYPE github_trigger_things_total counter",
            "github_trigger_things_total{color=\"green\"} 1",
            "github_trigger_things_total{color=\"red\"} 0",
            "time_seconds_bucket{color=\"red\",le=\"0.5\"} 0",
            "time_seconds_bucket{color=\"red\",le=\"1\"} 1",
        ] {
            assert!(after.contains(line), "{line}\n{after}");
        }
    }
}
