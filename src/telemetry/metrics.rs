//! Metrics in Prometheus' text form. Label values come from closed sets only; every series is there from the start.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    deliveries: Family<OutcomeLabel, Counter<u64, AtomicU64>>,
    stale: Family<ConfigLabel, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConfigLabel {
    config: &'static str,
}

impl Metrics {
    /// All series at zero; `outcomes` and `configs` are all values that will ever be used.
    pub fn new(outcomes: &[&'static str], configs: &[&'static str]) -> Self {
        let mut registry = Registry::with_prefix("github_trigger");
        let deliveries = Family::<OutcomeLabel, Counter<u64, AtomicU64>>::default();
        let stale = Family::<ConfigLabel, Gauge>::default();
        for &outcome in outcomes {
            drop(deliveries.get_or_create(&OutcomeLabel { outcome }));
        }
        for &config in configs {
            drop(stale.get_or_create(&ConfigLabel { config }));
        }
        registry.register("deliveries", "Deliveries by what became of them", deliveries.clone());
        registry.register(
            "config_stale",
            "1 while a changed ConfigMap or Secret is refused and the last good one is in use",
            stale.clone(),
        );
        registry.register("build", "The program's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        Self { registry, deliveries, stale }
    }

    /// One more delivery.
    pub fn delivery(&self, outcome: &'static str) {
        self.deliveries.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Whether a changed configuration is refused.
    pub fn set_stale(&self, config: &'static str, stale: bool) {
        self.stale.get_or_create(&ConfigLabel { config }).set(stale.into());
    }

    /// All series as text.
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut encoded, &self.registry);
        encoded
    }
}

#[cfg(test)]
mod tests {
    use super::Metrics;

    #[test]
    fn every_series_is_there_from_the_start() {
        let metrics = Metrics::new(&["created", "ignored"], &["templates"]);
        metrics.delivery("created");
        metrics.set_stale("templates", true);
        let text = metrics.encode();
        for line in [
            "github_trigger_deliveries_total{outcome=\"created\"} 1",
            "github_trigger_deliveries_total{outcome=\"ignored\"} 0",
            "github_trigger_config_stale{config=\"templates\"} 1",
            "github_trigger_build_info{version=",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
