//! The running service, which all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::budget::Budget;
use super::config::{CloudEventsAuth, Config};
use super::log_limit::LogLimit;
use super::metrics::HttpMetrics;
use super::secret_search::SecretSearch;
use super::teams::TeamReports;
use crate::telemetry::metrics::Registry;

/// CEL evaluations at the same time. One that does not end keeps its place, and the others go on.
const CONCURRENT_EVALUATIONS: usize = 4;

/// The running service.
pub(crate) struct App {
    /// What it was started with.
    pub(super) config: Config,
    /// All metrics.
    pub(super) registry: Registry,
    /// The metrics of deliveries.
    pub(super) metrics: HttpMetrics,
    /// The reports about teams.
    pub(super) teams: TeamReports,
    /// Where the secret of a delivery is looked for first.
    pub(super) search: SecretSearch,
    /// Memory for bodies.
    pub(super) budget: Arc<Budget>,
    /// Places for evaluations of CEL.
    pub(super) evaluations: Arc<Semaphore>,
    /// Lines that are left out.
    pub(super) log_limit: LogLimit,
    /// Whether it is being stopped.
    pub(super) draining: AtomicBool,
}

impl App {
    /// A service that has not taken a delivery yet. Its metrics go into `registry`.
    pub(crate) fn new(config: Config, registry: Registry) -> Arc<Self> {
        Arc::new(Self {
            metrics: HttpMetrics::register(&registry),
            teams: TeamReports::register(&registry),
            search: SecretSearch::default(),
            registry,
            budget: Budget::new(config.limits.max_buffered, config.limits.max_body),
            evaluations: Arc::new(Semaphore::new(CONCURRENT_EVALUATIONS)),
            log_limit: LogLimit::default(),
            draining: AtomicBool::new(false),
            config,
        })
    }

    /// Reads the keys of tokens before the first event needs them.
    pub(crate) async fn prefetch_keys(&self) {
        if let CloudEventsAuth::Oidc { issuer, .. } = &self.config.cloud_events {
            issuer.prefetch().await;
        }
    }

    /// Sets the metrics that are not counted where they change.
    pub(crate) fn update_metrics(&self) {
        self.config.secrets.update_metrics();
        self.config.templates.update_metrics();
        self.teams.update_metrics(&self.config);
        self.metrics.set_buffered(self.budget.used());
    }

    /// Whether secrets should be mounted, and none is usable.
    pub(super) fn lacks_secret(&self) -> bool {
        let secrets = &self.config.secrets;
        secrets.is_mounted() && secrets.current().keyring.is_empty()
    }

    /// Whether the service is being stopped.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
