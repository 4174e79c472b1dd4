//! How a rollout ends, and what an interrupted one has changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

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
pub(crate) struct Journal(Mutex<Entries>);

#[derive(Default)]
struct Entries {
    /// The last change that was made, or may have been.
    change: Option<String>,
    /// The change that is being made.
    sent: Option<String>,
}

impl Journal {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, change: impl Into<String>) {
        self.entries().change = Some(change.into());
    }

    /// Notes a change that is sent now; [`Self::answered`] ends it.
    pub(super) fn send(&self, change: impl Into<String>) {
        self.entries().sent = Some(change.into());
    }

    /// Notes that the change was answered.
    pub(super) fn answered(&self) {
        self.entries().sent = None;
    }

    /// Whether there was one.
    pub(crate) fn has_change(&self) -> bool {
        let entries = self.entries();
        entries.sent.is_some() || entries.change.is_some()
    }

    /// The change in a sentence.
    pub(crate) fn sentence(&self) -> String {
        let entries = self.entries();
        let last = entries.sent.as_ref().or(entries.change.as_ref());
        last.cloned().unwrap_or_else(|| "nothing was changed".to_owned())
    }
}
