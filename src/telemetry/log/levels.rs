//! Log lines counted by level as they are written; the shipped alert on errors uses these counters.

use std::sync::OnceLock;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::telemetry::metrics::{Counters, Labels, Registry};

/// The counters of the one log of the process; empty until metrics are registered.
static LINES: OnceLock<Counters<LineLevel, 1>> = OnceLock::new();

/// The level of a log line.
struct LineLevel(Level);

impl Labels<1> for LineLevel {
    const NAMES: [&'static str; 1] = ["level"];

    fn values(&self) -> [&str; 1] {
        [match self.0 {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        }]
    }

    fn all() -> Vec<Self> {
        [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE].map(Self).into()
    }
}

/// Registers `github_trigger_log_events_total`; lines are counted from then on.
pub(crate) fn register_metrics(registry: &Registry) {
    LINES.get_or_init(|| registry.counters("log_events_total", "Log lines by level."));
}

/// Counts each line that is written.
pub(super) struct Count;

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if let Some(lines) = LINES.get() {
            lines.with(&LineLevel(*event.metadata().level())).inc();
        }
    }
}
