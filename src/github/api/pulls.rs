//! Repositories and their merged pull requests.

use jiff::Timestamp;
use serde_json::Value;

use super::RepositoryName;
use super::call::Call;
use super::client::{Api, Identity};
use super::error::ApiError;
use crate::github::Commit;

const METADATA: &str = "the permission `metadata: read`";
const PULL_REQUESTS: &str = "the permission `pull_requests: read`";

/// A repository, by the name that GitHub has for it now.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    /// Its number, which stays when it is renamed.
    pub(crate) id: u64,
    /// Its name.
    pub(crate) name: RepositoryName,
    pushed_at: Option<Timestamp>,
}

/// A merged pull request in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Merge {
    /// Number of the pull request.
    pub(crate) number: u64,
    /// The merge commit.
    pub(crate) commit: Commit,
    /// The branch merged into.
    pub(crate) branch: String,
    /// Time of the merge.
    pub(crate) merged_at: Timestamp,
}

impl Repository {
    fn parse(body: &Value) -> Option<Self> {
        Some(Self {
            id: body["id"].as_u64()?,
            name: RepositoryName::parse(body["full_name"].as_str()?)?,
            pushed_at: body["pushed_at"].as_str().and_then(|time| time.parse().ok()),
        })
    }

    /// Reads a repository.
    /// Fails when it cannot be read.
    pub(crate) async fn read(api: &mut Api, name: &RepositoryName) -> Result<Self, ApiError> {
        let (path, what) = (format!("/repos/{}", name.as_str()), format!("the repository {}", name.as_str()));
        let body = api.call(Call::get(&path, &what, METADATA)).await?.body;
        Self::parse(&body).ok_or_else(|| api.not_github())
    }

    /// The repositories of an organisation to which something was pushed since a time.
    /// Fails when they cannot be read.
    pub(crate) async fn pushed_since(
        api: &mut Api,
        organization: &str,
        since: Timestamp,
    ) -> Result<Vec<Self>, ApiError> {
        let path = format!("/orgs/{organization}/repos?sort=pushed&direction=desc&per_page=100");
        let what = format!("the repositories of {organization}");
        let is_older = |item: &Value| {
            Self::parse(item).and_then(|repository| repository.pushed_at).is_some_and(|pushed| pushed < since)
        };
        let is_enough = |page: &[Value]| page.iter().any(is_older);
        let items = api.pages(Identity::Token, Call::get(&path, &what, METADATA), is_enough).await?;
        Ok(items.iter().filter(|item| !is_older(item)).filter_map(Self::parse).collect())
    }

    /// The merges since a time, newest change first.
    /// Fails when they cannot be read.
    pub(crate) async fn merges(&self, api: &mut Api, since: Timestamp) -> Result<Vec<Merge>, ApiError> {
        let name = self.name.as_str();
        let path = format!("/repos/{name}/pulls?state=closed&sort=updated&direction=desc&per_page=100");
        let what = format!("the pull requests of {name}");
        let time = |item: &Value, field: &str| item[field].as_str()?.parse::<Timestamp>().ok();
        // A merge is a change: what was last changed before has not been merged since.
        let is_enough = |page: &[Value]| page.iter().any(|item| time(item, "updated_at").is_some_and(|at| at < since));
        let items = api.pages(Identity::Token, Call::get(&path, &what, PULL_REQUESTS), is_enough).await?;
        let merge = |item: &Value| {
            Some(Merge {
                number: item["number"].as_u64()?,
                commit: Commit::parse(item["merge_commit_sha"].as_str()?)?,
                branch: item["base"]["ref"].as_str()?.to_owned(),
                merged_at: time(item, "merged_at")?,
            })
        };
        let mut merges: Vec<Merge> = items.iter().filter_map(merge).filter(|merge| merge.merged_at >= since).collect();
        // A pull request that was changed meanwhile is on two pages.
        let mut seen = std::collections::HashSet::new();
        merges.retain(|merge| seen.insert(merge.number));
        Ok(merges)
    }

    /// Reads one pull request, as GitHub's API gives it.
    /// Fails when it cannot be read.
    pub(crate) async fn pull_request(&self, api: &mut Api, number: u64) -> Result<Value, ApiError> {
        let name = self.name.as_str();
        let (path, what) = (format!("/repos/{name}/pulls/{number}"), format!("the pull request {name}#{number}"));
        let body = api.call(Call::get(&path, &what, PULL_REQUESTS)).await?.body;
        if body["number"].as_u64() == Some(number) { Ok(body) } else { Err(api.not_github()) }
    }

    /// Numbers of the pull requests that a commit belongs to.
    /// Fails when they cannot be read.
    pub(crate) async fn pull_requests_of(&self, api: &mut Api, commit: &Commit) -> Result<Vec<u64>, ApiError> {
        let name = self.name.as_str();
        let path = format!("/repos/{name}/commits/{commit}/pulls?per_page=100");
        let what = format!("the commit {commit} of {name}");
        let items = api.pages(Identity::Token, Call::get(&path, &what, PULL_REQUESTS), |_| false).await?;
        let merged = items.iter().filter(|item| {
            item["merge_commit_sha"].as_str().and_then(Commit::parse).as_ref() == Some(commit)
                && item["merged_at"].is_string()
        });
        Ok(merged.filter_map(|item| item["number"].as_u64()).collect())
    }
}
