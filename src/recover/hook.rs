//! The webhook of a repository, an organisation or an App, and a merge's delivery in its log.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::log::{Delivery, group};
use crate::delivery::saved;
use crate::github::api::{Api, ApiError, Attempt, Hook, Owner, Permissions};

/// A delivery may seem to be older than its merge by this, because it is another clock.
pub(super) const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Why it is not known what is missing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecoverError {
    /// GitHub cannot be asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// More than one webhook.
    #[error("{owner} has several webhooks: {urls}; name the one of this service with --hook-url")]
    SeveralHooks {
        /// The repository or organisation.
        owner: String,
        /// Their addresses.
        urls: String,
    },
}

/// What is done with a webhook; an App's token has the permissions for that and no others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    /// Deliveries are repeated, not only read.
    pub(crate) redelivers: bool,
    /// Commit statuses are read.
    pub(crate) statuses: bool,
}

/// The webhook whose log is read: an App's own, the repository's or organisation's, or that of a repository's organisation; `None`
/// if there is none. For an App, also takes its token for the other calls.
/// Fails when GitHub cannot be asked, or there are several.
pub(crate) async fn choose_hook(
    api: &mut Api,
    owner: &Owner,
    url: Option<&str>,
    access: Access,
) -> Result<Option<Hook>, RecoverError> {
    let is_wanted = |hook: &Hook| url.is_none_or(|url| is_same_url(&hook.url, url));
    let mut permissions = vec!["pull_requests:read"];
    if api.is_app() {
        let own = Hook::of_app(api).await?.filter(is_wanted);
        if own.is_none() {
            permissions.push(match (owner, access.redelivers) {
                (Owner::Repository(_), true) => "repository_hooks:write",
                (Owner::Repository(_), false) => "repository_hooks:read",
                (Owner::Organization(_), true) => "organization_hooks:write",
                (Owner::Organization(_), false) => "organization_hooks:read",
            });
        }
        authenticate(api, owner, permissions, access.statuses).await?;
        if own.is_some() {
            return Ok(own);
        }
    }
    let mut hooks: Vec<Hook> = Hook::list(api, owner).await?.into_iter().filter(is_wanted).collect();
    if let (true, Owner::Repository(name), false) = (hooks.is_empty(), owner, api.is_app()) {
        // The owner may be a person, or the credential may not see the organisation's.
        let organization = Owner::Organization(name.owner().to_owned());
        hooks = match Hook::list(api, &organization).await {
            Err(ApiError::NotFound { .. } | ApiError::Forbidden { .. }) => Vec::new(),
            listed => listed?.into_iter().filter(is_wanted).collect(),
        };
    }
    if hooks.iter().any(|hook| !is_same_url(&hook.url, &hooks[0].url)) {
        let urls: Vec<&str> = hooks.iter().map(|hook| hook.url.as_str()).collect();
        return Err(RecoverError::SeveralHooks { owner: owner.as_str().to_owned(), urls: urls.join(", ") });
    }
    hooks.sort_by_key(|hook| !hook.is_active);
    Ok(hooks.into_iter().next())
}

fn is_same_url(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// Takes an App's token; without the right to read statuses if the App does not have it.
async fn authenticate(api: &mut Api, owner: &Owner, permissions: Vec<&str>, statuses: bool) -> Result<(), ApiError> {
    let needed = Permissions::parse(permissions.iter().copied()).unwrap_or_default();
    if statuses {
        let more = permissions.iter().copied().chain(["statuses:read"]);
        match api.authenticate(owner.clone(), &Permissions::parse(more).unwrap_or_default()).await {
            Err(error @ (ApiError::Refused { .. } | ApiError::Forbidden { .. })) => {
                tracing::warn!(error = %error, "asking for a token that cannot read commit statuses");
            }
            answer => return answer,
        }
    }
    api.authenticate(owner.clone(), &needed).await
}

/// The last attempt at the delivery of a merge, one that was accepted if there is one, with its request and answer as GitHub's
/// API gives it.
/// Fails when the log cannot be read.
pub(crate) async fn find_delivery(
    api: &mut Api,
    hook: &Hook,
    repository: u64,
    number: u64,
    merged_at: Timestamp,
) -> Result<Option<(Attempt, Value)>, ApiError> {
    let earliest = merged_at.saturating_sub(CLOCK_DIFFERENCE).unwrap_or(merged_at);
    let attempts = hook.attempts_until(api, |attempt| attempt.delivered_at < earliest).await?;
    for delivery in group(attempts).into_iter().filter(Delivery::is_closing) {
        if delivery.attempt.repository_id.is_some_and(|id| id != repository) {
            continue;
        }
        let detail = hook.attempt(api, &delivery.attempt).await?;
        if Logged::parse(&detail).as_ref().and_then(Logged::merge) == Some((repository, number)) {
            return Ok(Some((delivery.attempt, detail)));
        }
    }
    Ok(None)
}

/// A merged pull request, by the numbers of its repository and its own.
pub(super) type MergeKey = (u64, u64);

/// A delivery as GitHub logged it.
pub(super) struct Logged {
    pub(super) delivery: crate::delivery::Delivery,
    pub(super) payload: Value,
}

impl Logged {
    /// Parses an attempt as GitHub's API gives it; `None` if GitHub no longer has its payload, or it is not JSON.
    pub(super) fn parse(detail: &Value) -> Option<Self> {
        let delivery = saved::from_api(detail, detail["guid"].as_str()?)?;
        let payload = serde_json::from_slice(&delivery.payload).ok()?;
        Some(Self { delivery, payload })
    }

    /// The merge that it tells of.
    pub(super) fn merge(&self) -> Option<MergeKey> {
        let is_merge = self.payload["action"] == "closed" && self.payload["pull_request"]["merged"] == true;
        let key = || Some((self.payload["repository"]["id"].as_u64()?, self.payload["number"].as_u64()?));
        key().filter(|_| is_merge)
    }
}
