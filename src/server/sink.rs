//! Where runs go: the cluster, or standard output in a dry run.

use std::io::{self, Write};

use tokio::time::Instant;

use crate::cluster::{Cluster, CreateError, Creation};
use crate::template::PipelineRun;
use crate::trace::TraceContext;

/// Where runs go.
pub enum Sink {
    /// They are created in a cluster.
    Cluster(Cluster),
    /// They are printed; nothing is remembered, so that every run is created.
    DryRun,
}

impl Sink {
    /// Whether nothing is really created.
    pub fn is_dry_run(&self) -> bool {
        matches!(self, Self::DryRun)
    }

    /// Opens what the calling thread's first delivery would have to wait for.
    pub async fn warm(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.warm().await;
        }
    }

    /// Creates a run, until `until` at most.
    ///
    /// # Errors
    /// When it does not exist afterwards, as far as is known.
    pub async fn create(
        &self,
        run: &PipelineRun,
        trace: Option<&TraceContext>,
        until: Instant,
    ) -> Result<Creation, CreateError> {
        match self {
            Self::Cluster(cluster) => cluster.create(run, trace, until).await,
            Self::DryRun => match print_run(run) {
                Ok(()) => Ok(Creation::Created),
                Err(error) => Err(CreateError::Unavailable(format!("standard output: {error}"))),
            },
        }
    }
}

/// Writes a run to standard output as one YAML document.
///
/// # Errors
/// When standard output takes no more.
pub fn print_run(run: &PipelineRun) -> io::Result<()> {
    let document = run.to_yaml().map_err(io::Error::other)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(document.as_bytes())?;
    stdout.flush()
}
