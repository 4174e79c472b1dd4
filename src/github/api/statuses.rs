//! The status of a commit, which GitHub shows beside it and in its pull request.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::call::Call;
use super::client::Api;
use super::error::ApiError;
use super::{RepositoryName, Written, cut};
use crate::github::Commit;

/// State of a commit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CommitState {
    /// Under way.
    Pending,
    /// Done. (Tekton's words for all tasks: `Succeeded`, and `Completed` if some were skipped.)
    #[value(aliases = ["Succeeded", "Completed"])]
    Success,
    /// Failed by what was built. (Tekton's word: `Failed`.)
    #[value(alias = "Failed")]
    Failure,
    /// Failed by the build itself, or ended before it was done. (Tekton's word: `None`.)
    #[value(alias = "None")]
    Error,
}

impl CommitState {
    /// GitHub's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
        }
    }
}

/// One commit status.
#[derive(Debug, Clone)]
pub(crate) struct StatusReport<'a> {
    /// The repository.
    pub(crate) repository: &'a RepositoryName,
    /// The commit.
    pub(crate) commit: &'a Commit,
    /// Its state.
    pub(crate) state: CommitState,
    /// What tells this status from others of the commit.
    pub(crate) context: &'a str,
    /// The page with details.
    pub(crate) target_url: Option<&'a str>,
    /// A sentence.
    pub(crate) description: &'a str,
}

const PERMISSION: &str = "the permission `statuses: write` (commit statuses)";
const READ_PERMISSION: &str = "the permission `statuses: read` (commit statuses)";

impl StatusReport<'_> {
    /// Writes the status, unless the latest one of its context is the same.
    /// Fails when GitHub does not take it.
    pub(crate) async fn write(&self, api: &mut Api) -> Result<Written, ApiError> {
        api.retry_write(async |api| self.write_once(api).await).await
    }

    async fn write_once(&self, api: &mut Api) -> Result<Written, ApiError> {
        let description = cut(self.description);
        let what = format!("the status of {} in {}", self.commit, self.repository.as_str());
        let is_ours = |context: &str| context.eq_ignore_ascii_case(self.context);
        if let Some(latest) = latest_status(api, self.repository, self.commit, PERMISSION, is_ours).await?
            && state_of(&latest) == Some(self.state.as_str())
            && latest["description"].as_str().unwrap_or_default() == description
            && latest["target_url"].as_str().filter(|url| !url.is_empty()) == self.target_url
        {
            return Ok(Written::Before);
        }
        let path = format!("/repos/{}/statuses/{}", self.repository.as_str(), self.commit);
        let mut body = json!({"state": self.state.as_str(), "context": self.context, "description": description});
        if let Some(url) = self.target_url {
            body["target_url"] = url.into();
        }
        let answer = api.call(Call::post(&path, &body, &what, PERMISSION)).await?;
        if state_of(&answer.body).is_some() { Ok(Written::New) } else { Err(api.not_github()) }
    }
}

/// The state of a status. Gitea calls it `status`.
pub(crate) fn state_of(status: &Value) -> Option<&str> {
    status["state"].as_str().or(status["status"].as_str())
}

/// The latest status of a commit in a context, or in one below it (`context/...`), as GitHub's API gives it.
/// Fails when it cannot be read.
pub(crate) async fn status_below(
    api: &mut Api,
    repository: &RepositoryName,
    commit: &Commit,
    context: &str,
) -> Result<Option<Value>, ApiError> {
    let is_ours = |found: &str| {
        let (begin, rest) = found.split_at_checked(context.len()).unwrap_or((found, "-"));
        begin.eq_ignore_ascii_case(context) && (rest.is_empty() || rest.starts_with('/'))
    };
    latest_status(api, repository, commit, READ_PERMISSION, is_ours).await
}

/// The latest status of a commit in a context that is ours. (GitHub's combined status has one of each; contexts are compared
/// without case.)
/// Fails when it cannot be read.
async fn latest_status(
    api: &mut Api,
    repository: &RepositoryName,
    commit: &Commit,
    permission: &'static str,
    is_ours: impl Fn(&str) -> bool,
) -> Result<Option<Value>, ApiError> {
    let what = format!("the status of {commit} in {}", repository.as_str());
    let mut seen = 0;
    for page in 1.. {
        let path = format!("/repos/{}/commits/{commit}/status?per_page=100&page={page}", repository.as_str());
        let body = api.call(Call::get(&path, &what, permission)).await?.body;
        let statuses = match (&body["statuses"], body["total_count"].as_u64()) {
            (Value::Array(statuses), _) => statuses.as_slice(),
            // Gitea's empty list.
            (Value::Null, Some(0)) => &[],
            _ => return Err(api.not_github()),
        };
        if let Some(latest) = statuses.iter().find(|status| status["context"].as_str().is_some_and(&is_ours)) {
            return Ok(Some(latest.clone()));
        }
        seen += statuses.len();
        // A server may give fewer on a page than it was asked for.
        if statuses.is_empty() || body["total_count"].as_u64().is_none_or(|total| seen as u64 >= total) {
            return Ok(None);
        }
    }
    Ok(None)
}
