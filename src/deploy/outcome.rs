//! How a rollout ends, and what an interrupted one has changed.

use std::sync::{Mutex, PoisonError};

use super::client::ServiceError;
use super::decision::PlanError;
use super::service::Service;

/// Why a rollout failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RolloutError {
    /// The desired state does not fit the current one.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The Service could not be read or written.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The Service was deleted meanwhile.
    #[error("the Service was deleted meanwhile")]
    Deleted,
    /// Knative reports a failure.
    #[error("{message} ({users})")]
    Failed {
        /// Reason and message of the condition.
        message: String,
        /// Current traffic.
        users: String,
    },
    /// A rollback that failed, after which the traffic was put back.
    #[error("{0}; the traffic is as it was before, name another revision with --to")]
    Undone(#[source] Box<RolloutError>),
    /// The new revision was not ready in time.
    #[error("not ready in time (--wait-timeout): {waiting} ({users}); {look} may show why")]
    Timeout {
        /// What it waited for.
        waiting: String,
        /// The command to look with.
        look: String,
        /// Current traffic.
        users: String,
    },
}

/// How a rollout ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The traffic that was asked for is on the new revision.
    Deployed,
    /// Everything was as desired.
    Unchanged,
    /// Something newer is deployed; it was not touched.
    Superseded,
    /// The traffic is on an earlier revision.
    RolledBack,
}

impl Outcome {
    /// The word in logs and results.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Deployed => "deployed",
            Self::Unchanged => "unchanged",
            Self::Superseded => "superseded",
            Self::RolledBack => "rolled-back",
        }
    }
}

/// The end of a rollout.
#[derive(Debug)]
pub(crate) struct Finished {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// The Service as it is then.
    pub(crate) service: Service,
    /// The revision that had all users before, if one had.
    pub(crate) previous: Option<String>,
}

/// The last change that was written, for the message of an interrupted rollout.
#[derive(Default)]
pub(crate) struct Journal(Mutex<Option<String>>);

impl Journal {
    pub(super) fn note(&self, change: impl Into<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(change.into());
    }

    /// Whether there was one.
    pub(crate) fn has_change(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The change in a sentence.
    pub(crate) fn sentence(&self) -> String {
        let change = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        change.unwrap_or_else(|| "nothing was changed".to_owned())
    }
}
