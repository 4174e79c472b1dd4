//! A deployment of a commit to an environment, which GitHub shows on the repository's page.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::call::Call;
use super::client::Api;
use super::error::ApiError;
use super::{RepositoryName, Written, cut};
use crate::github::Commit;

/// State of a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeploymentState {
    /// Under way.
    InProgress,
    /// Users see it.
    Success,
    /// It failed.
    Failure,
    /// The deployment could not be made.
    Error,
    /// Something else runs: a newer merge, or what was rolled back to.
    Inactive,
}

impl DeploymentState {
    /// GitHub's word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Error => "error",
            Self::Inactive => "inactive",
        }
    }
}

/// One deployment and its state.
#[derive(Debug, Clone)]
pub(crate) struct DeploymentReport<'a> {
    /// The repository.
    pub(crate) repository: &'a RepositoryName,
    /// The commit.
    pub(crate) commit: &'a Commit,
    /// The environment's name.
    pub(crate) environment: &'a str,
    /// Its URL.
    pub(crate) environment_url: Option<&'a str>,
    /// Its state.
    pub(crate) state: DeploymentState,
    /// The page with details.
    pub(crate) log_url: Option<&'a str>,
    /// A sentence.
    pub(crate) description: &'a str,
}

const PERMISSION: &str = "the permission `deployments: write`";

impl DeploymentReport<'_> {
    /// Makes the deployment unless there is one of the commit in the environment, and writes its state unless it is the same.
    /// Fails when GitHub does not take them.
    pub(crate) async fn write(&self, api: &mut Api) -> Result<Written, ApiError> {
        api.retry_write(async |api| self.write_once(api).await).await
    }

    async fn write_once(&self, api: &mut Api) -> Result<Written, ApiError> {
        let what = format!("the deployment of {} in {}", self.commit, self.repository.as_str());
        let id = match self.existing(api, &what).await? {
            Some(id) => id,
            None => {
                let own = self.create(api, &what).await?;
                // Two reports at the same time settle on the older one, and the other one counts no more.
                let oldest = self.existing(api, &what).await?.unwrap_or(own);
                if oldest != own {
                    let path = format!("/repos/{}/deployments/{own}/statuses", self.repository.as_str());
                    let body = json!({"state": DeploymentState::Inactive.as_str(), "description": "Reported twice"});
                    api.call(Call::post(&path, &body, &what, PERMISSION)).await?;
                }
                oldest
            }
        };
        let path = format!("/repos/{}/deployments/{id}/statuses", self.repository.as_str());
        let latest = format!("{path}?per_page=1");
        let latest = api.call(Call::get(&latest, &what, PERMISSION)).await?.body;
        if !latest.is_array() {
            return Err(api.not_github());
        }
        let description = cut(self.description);
        let is_same = |status: &Value| {
            status["state"] == self.state.as_str()
                && status["description"].as_str().unwrap_or_default() == description
                && status["environment_url"].as_str().unwrap_or_default() == self.environment_url.unwrap_or_default()
                && status["log_url"].as_str().unwrap_or_default() == self.log_url.unwrap_or_default()
        };
        if latest.get(0).is_some_and(is_same) {
            return Ok(Written::Before);
        }
        let mut body = json!({"state": self.state.as_str(), "description": description});
        for (name, url) in [("environment_url", self.environment_url), ("log_url", self.log_url)] {
            if let Some(url) = url {
                body[name] = url.into();
            }
        }
        let answer = api.call(Call::post(&path, &body, &what, PERMISSION)).await?;
        if answer.body["state"].is_string() { Ok(Written::New) } else { Err(api.not_github()) }
    }

    async fn existing(&self, api: &mut Api, what: &str) -> Result<Option<u64>, ApiError> {
        let environment = utf8_percent_encode(self.environment, NON_ALPHANUMERIC);
        let path = format!(
            "/repos/{}/deployments?sha={}&environment={environment}&per_page=100",
            self.repository.as_str(),
            self.commit
        );
        let body = api.call(Call::get(&path, what, PERMISSION)).await?.body;
        let Some(deployments) = body.as_array() else { return Err(api.not_github()) };
        Ok(deployments.iter().filter_map(|deployment| deployment["id"].as_u64()).min())
    }

    async fn create(&self, api: &mut Api, what: &str) -> Result<u64, ApiError> {
        let path = format!("/repos/{}/deployments", self.repository.as_str());
        // The commit is merged and built: nothing is merged into it, and no status is waited for.
        let body = json!({"ref": self.commit.to_string(), "environment": self.environment, "auto_merge": false,
            "required_contexts": [], "description": cut(self.description)});
        let answer = api.call(Call::post(&path, &body, what, PERMISSION)).await?;
        answer.body["id"].as_u64().ok_or_else(|| api.not_github())
    }
}
