//! The destination of runs: a cluster, or standard output in a dry run.

use std::io::{self, Write};

use tokio::time::{Instant, timeout_at};

use super::outcome::Reason;
use crate::kube::{ApiError, Cluster, Creation, advice};
use crate::telemetry::trace::TraceContext;
use crate::template::PipelineRun;

/// The destination of runs.
pub(crate) enum Sink {
    /// Runs are created in a cluster.
    Cluster(Cluster),
    /// Runs are printed. Nothing is remembered, so that every run counts as created.
    DryRun,
}

/// Why a run does not exist, as far as is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error("{}{}", .0, advice(.0.kind()))]
    Api(#[from] ApiError),
    #[error("cannot write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl SinkError {
    /// The reason of an answer with this failure.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Api(error) => error.kind().into(),
            Self::Output(_) => Reason::Output,
        }
    }
}

impl Sink {
    /// Whether runs are only printed.
    pub(super) fn is_dry_run(&self) -> bool {
        matches!(self, Self::DryRun)
    }

    /// Creates a run, until `until` at most.
    /// Fails when the run was not created, or that is not known.
    pub(super) async fn create(
        &self,
        run: &PipelineRun,
        trace: Option<&TraceContext>,
        until: Instant,
    ) -> Result<Creation, SinkError> {
        match self {
            Self::Cluster(cluster) => Ok(cluster.create(run, trace, until).await?),
            Self::DryRun => {
                let run = run.clone();
                // A full pipe must not hold up the thread that serves.
                let printing = tokio::task::spawn_blocking(move || print_run(&run));
                let printed =
                    timeout_at(until, printing).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
                printed.map_err(io::Error::other)??;
                Ok(Creation::Created)
            }
        }
    }
}

/// Writes a run to standard output as one YAML document.
/// Fails when standard output cannot be written.
pub(crate) fn print_run(run: &PipelineRun) -> io::Result<()> {
    let document = run.to_yaml().map_err(io::Error::other)?;
    let mut stdout = io::stdout().lock();
    stdout.write_all(document.as_bytes())?;
    stdout.flush()
}
