//! From GitHub's log and its merged pull requests to what is missing, and from there to runs.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::hook::{Access, CLOCK_DIFFERENCE, Logged, MergeKey, RecoverError, choose_hook};
use super::line::Line;
use super::log::{Delivery, group};
use crate::github::api::{
    Api, ApiError, Attempt, Hook, Merge, Owner, Repository, RepositoryName, state_of, status_below,
};
use crate::github::{Commit, Event};
use crate::sender::Sender;

/// Deliveries that GitHub is asked for at once. It sends them at once, too.
const BATCH: usize = 50;
/// By then GitHub has delivered a merge, and has logged it.
const SETTLED_AFTER: Duration = Duration::from_secs(15);

/// Where merges are looked for.
#[derive(Debug, Clone)]
pub(crate) struct Scope {
    /// The owner of the webhook: a repository or an organisation.
    pub(crate) owner: Owner,
    /// Of an organisation: only these repositories; empty for all.
    pub(crate) repositories: Vec<RepositoryName>,
}

/// Says why no template is for an event; `None` where one is.
pub(crate) type Ignores<'a> = &'a dyn Fn(&Event) -> Option<String>;

/// What is looked for, and what is done about it.
pub(crate) struct Recovery<'a> {
    /// Merges and deliveries since then.
    pub(crate) since: Timestamp,
    /// Address of the webhook; `None` for the only one.
    pub(crate) hook_url: Option<&'a str>,
    /// Branches merged into; empty for all.
    pub(crate) branches: &'a [String],
    /// Context of the commit status that says that a run existed.
    pub(crate) context: Option<&'a str>,
    /// Says why no template is for an event; `None` where one is.
    pub(crate) ignores: Option<Ignores<'a>>,
    /// Where merges are posted that GitHub does not deliver.
    pub(crate) sender: Option<&'a Sender>,
    /// Longest time without a result of a redelivery.
    pub(crate) result_timeout: Duration,
    /// Whether nothing is done.
    pub(crate) is_dry_run: bool,
}

impl Recovery<'_> {
    /// Finds what is missing, and has it delivered. Each is handed to `tell` when it is decided.
    /// Fails when GitHub cannot be asked; what was told before is done.
    pub(crate) async fn run(
        &self,
        api: &mut Api,
        scope: &Scope,
        tell: &mut impl FnMut(&Line),
    ) -> Result<(), RecoverError> {
        let access = Access { redelivers: !self.is_dry_run, statuses: self.context.is_some() };
        let hook = choose_hook(api, &scope.owner, self.hook_url, access).await?;
        match &hook {
            Some(hook) if !hook.is_active => {
                tracing::warn!(hook = hook.url, "the webhook of {} is not active: switch it on", scope.owner.as_str());
            }
            Some(hook) if !hook.has_pull_requests() => tracing::warn!(
                hook = hook.url,
                "the webhook of {} does not deliver pull requests: select them on its page",
                scope.owner.as_str()
            ),
            Some(_) => {}
            None => tracing::warn!(
                "{} has no webhook{}; merges are looked for in its pull requests alone",
                scope.owner.as_str(),
                self.hook_url.map(|url| format!(" with the address {url}")).unwrap_or_default()
            ),
        }
        // One repository does not hold up the others of an organisation.
        let mut failed: Option<ApiError> = None;
        let mut pass_over = |error: ApiError| {
            if !error.is_of_one_object() {
                return Err(error);
            }
            if let Some(earlier) = failed.replace(error) {
                tracing::error!(outcome = "unknown", "{}: {earlier}", scope.owner.as_str());
            }
            Ok(())
        };
        let mut walk = Walk {
            settings: self,
            repositories: self.repositories(api, scope, &mut pass_over).await?,
            hook,
            delivered: HashSet::new(),
            known: HashSet::new(),
            statuses_are_readable: true,
            may_redeliver: true,
            unreadable: None,
            unanswered_posts: 0,
        };
        // Merges first: one that comes later is the next call's.
        let mut merges = Vec::new();
        for repository in &walk.repositories {
            let found = match repository.merges(api, self.since).await {
                Ok(found) => found,
                Err(error) => {
                    pass_over(error)?;
                    continue;
                }
            };
            let is_wanted = |merge: &Merge| self.branches.is_empty() || self.branches.contains(&merge.branch);
            merges.extend(found.into_iter().filter(is_wanted).map(|merge| (repository.clone(), merge)));
        }
        settle(&merges).await;
        merges.sort_by_key(|(_, merge)| merge.merged_at);
        let deliveries = walk.deliveries(api).await?;
        let (accepted, mut missed): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(Delivery::is_accepted);
        // Without its first attempt, the event is older than that.
        missed.retain(|delivery| delivery.is_whole);
        for (done, batch) in missed.chunks(BATCH).enumerate() {
            progress("deliveries", done * BATCH, missed.len());
            walk.redeliver(api, batch, tell).await?;
        }
        walk.post_unknown(api, &merges, accepted, tell).await?;
        failed.map_or(Ok(()), |error| Err(error.into()))
    }

    /// The repositories to look at. `pass_over` decides whether one that cannot be read ends the call.
    async fn repositories(
        &self,
        api: &mut Api,
        scope: &Scope,
        pass_over: &mut impl FnMut(ApiError) -> Result<(), ApiError>,
    ) -> Result<Vec<Repository>, ApiError> {
        match &scope.owner {
            Owner::Organization(name) if scope.repositories.is_empty() => {
                Repository::pushed_since(api, name, self.since).await
            }
            Owner::Organization(_) => {
                let mut repositories = Vec::new();
                for name in &scope.repositories {
                    match Repository::read(api, name).await {
                        Ok(repository) => repositories.push(repository),
                        Err(error) => pass_over(error)?,
                    }
                }
                Ok(repositories)
            }
            Owner::Repository(name) => Ok(vec![Repository::read(api, name).await?]),
        }
    }
}

/// Tells somebody who looks how far it is, now and then.
pub(super) fn progress(what: &str, done: usize, all: usize) {
    if done > 0 && done.is_multiple_of(BATCH) && std::io::stderr().is_terminal() {
        tracing::info!("{done} of {all} {what}");
    }
}

/// Waits until GitHub has delivered even the youngest merge, and logged that.
async fn settle(merges: &[(Repository, Merge)]) {
    let now = Timestamp::now();
    let ages = merges.iter().map(|(_, merge)| now.duration_since(merge.merged_at).unsigned_abs());
    if let Some(youngest) = ages.min().filter(|age| *age < SETTLED_AFTER) {
        sleep(SETTLED_AFTER - youngest).await;
    }
}

/// One walk.
pub(super) struct Walk<'a> {
    pub(super) settings: &'a Recovery<'a>,
    pub(super) repositories: Vec<Repository>,
    pub(super) hook: Option<Hook>,
    /// Merges that a delivery is known of.
    pub(super) delivered: HashSet<MergeKey>,
    /// Numbers of the attempts that were looked at.
    pub(super) known: HashSet<u64>,
    statuses_are_readable: bool,
    pub(super) may_redeliver: bool,
    /// Why a delivery that was accepted cannot be read.
    pub(super) unreadable: Option<String>,
    /// Posts without an answer, one after the other.
    pub(super) unanswered_posts: u32,
}

impl Walk<'_> {
    /// The deliveries of the time, oldest first.
    async fn deliveries(&mut self, api: &mut Api) -> Result<Vec<Delivery>, ApiError> {
        let Some(hook) = &self.hook else { return Ok(Vec::new()) };
        let since = self.settings.since;
        let attempts = hook.attempts_until(api, |attempt| attempt.delivered_at < since).await?;
        self.known.extend(attempts.iter().map(|attempt| attempt.id));
        // The log of an organisation or an App has other repositories, too.
        let ids: HashSet<u64> = self.repositories.iter().map(|repository| repository.id).collect();
        let is_ours =
            |attempt: &Attempt| hook.is_of_repository() || attempt.repository_id.is_none_or(|id| ids.contains(&id));
        Ok(group(attempts.into_iter().filter(is_ours).collect()))
    }

    /// Whether a delivery of a merge is known. Reads as few of the log's deliveries as that takes.
    pub(super) async fn is_delivered(
        &mut self,
        api: &mut Api,
        repository: &Repository,
        merge: &Merge,
        unread: &mut Vec<Delivery>,
    ) -> Result<bool, ApiError> {
        let key = (repository.id, merge.number);
        let Some(hook) = self.hook.clone() else { return Ok(false) };
        while !self.delivered.contains(&key) {
            // The next one after the merge is most likely its own.
            let earliest = merge.merged_at.saturating_sub(CLOCK_DIFFERENCE).unwrap_or(merge.merged_at);
            let is_candidate = |delivery: &Delivery| {
                delivery.first >= earliest && delivery.attempt.repository_id.is_none_or(|id| id == repository.id)
            };
            let Some(index) = unread.iter().position(is_candidate) else { return Ok(false) };
            let attempt = unread.remove(index).attempt;
            match hook.attempt(api, &attempt).await {
                Ok(detail) => self.delivered.extend(Logged::parse(&detail).as_ref().and_then(Logged::merge)),
                Err(error) if error.is_of_one_object() => self.unreadable = Some(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The state of the commit's status, which says that there was a run.
    pub(super) async fn status(&mut self, api: &mut Api, line: &Line) -> Result<Option<String>, ApiError> {
        let (Some(context), true) = (self.settings.context, self.statuses_are_readable) else { return Ok(None) };
        let repository = line.repository.as_deref().and_then(RepositoryName::parse);
        let commit = line.commit.as_deref().and_then(Commit::parse);
        let (Some(repository), Some(commit)) = (repository, commit) else { return Ok(None) };
        match status_below(api, &repository, &commit, context).await {
            Ok(status) => Ok(status.map(|status| state_of(&status).unwrap_or_default().to_owned())),
            Err(error @ (ApiError::Forbidden { .. } | ApiError::NotFound { .. } | ApiError::NotGitHub(_))) => {
                tracing::warn!(error = %error, "builds that GitHub was told about are not recognised");
                self.statuses_are_readable = false;
                Ok(None)
            }
            // A commit that is gone.
            Err(ApiError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
