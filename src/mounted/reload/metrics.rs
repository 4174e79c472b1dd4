//! Metrics of reloaded configurations.

use std::sync::Arc;
use std::time::SystemTime;

use super::source::ConfigKind;
use crate::telemetry::metrics::{Gauges, Labels, Registry};

impl Labels<1> for ConfigKind {
    const NAMES: [&'static str; 1] = ["config"];

    fn values(&self) -> [&str; 1] {
        [self.label()]
    }

    fn all() -> Vec<Self> {
        vec![Self::WebhookSecrets, Self::Templates]
    }
}

/// Metrics of reloaded configurations; cheap to clone.
#[derive(Clone)]
pub(crate) struct ReloadMetrics(Arc<Families>);

struct Families {
    stale: Gauges<ConfigKind, 1>,
    generation: Gauges<ConfigKind, 1>,
    reloaded: Gauges<ConfigKind, 1>,
}

impl ReloadMetrics {
    /// Registers the metrics.
    pub(crate) fn register(registry: &Registry) -> Self {
        let time = "Time of the last successful read of a ConfigMap or Secret, Unix seconds.";
        Self(Arc::new(Families {
            stale: registry.gauges("config_stale", "1 while a changed ConfigMap or Secret is refused, else 0."),
            generation: registry.gauges("config_generation", "Successful reads of a ConfigMap or Secret."),
            reloaded: registry.gauges("config_last_reload_timestamp_seconds", time),
        }))
    }

    /// Sets the metrics of one configuration.
    pub(super) fn set(&self, kind: ConfigKind, is_stale: bool, generation: u32, since: SystemTime) {
        let Families { stale, generation: generations, reloaded } = &*self.0;
        stale.with(&kind).set(f64::from(u8::from(is_stale)));
        generations.with(&kind).set(f64::from(generation));
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        reloaded.with(&kind).set(since.as_secs_f64());
    }
}
