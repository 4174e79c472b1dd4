//! From GitHub's log and its merged pull requests to what is missing, and from there to runs.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::io::IsTerminal;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::hook::{Access, CLOCK_DIFFERENCE, Logged, MergeKey, RecoverError, choose_hook};
use super::line::{Line, Outcome, Road};
use super::log::{Delivery, group};
use crate::delivery::saved;
use crate::github::api::{
    Api, ApiError, Attempt, Hook, Merge, Owner, Repository, RepositoryName, state_of, status_below,
};
use crate::github::{Commit, Event};
use crate::sender::{Sender, webhook};

/// After so many posts without an answer, the service is not asked any more.
const MAX_SILENT_POSTS: u32 = 2;
/// Deliveries that GitHub is asked for at once. It sends them at once, too.
const BATCH: usize = 50;
/// Time between two looks at the log for the results.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
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
    pub(crate) patience: Duration,
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
        let mut walk = Walk {
            settings: self,
            repositories: self.repositories(api, scope).await?,
            hook,
            delivered: HashSet::new(),
            known: HashSet::new(),
            statuses_are_readable: true,
            may_redeliver: true,
            unreadable: None,
            silent_posts: 0,
        };
        // Merges first: one that comes later is the next call's.
        let (mut merges, mut failed) = (Vec::new(), None);
        for repository in &walk.repositories {
            let found = match repository.merges(api, self.since).await {
                Ok(found) => found,
                // One repository does not hold up the others of an organisation.
                Err(error) if error.is_of_one_object() => {
                    failed = Some(error);
                    continue;
                }
                Err(error) => return Err(error.into()),
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

    async fn repositories(&self, api: &mut Api, scope: &Scope) -> Result<Vec<Repository>, ApiError> {
        match &scope.owner {
            Owner::Organization(name) if scope.repositories.is_empty() => {
                Repository::pushed_since(api, name, self.since).await
            }
            Owner::Organization(_) => {
                let mut repositories = Vec::new();
                for name in &scope.repositories {
                    repositories.push(Repository::read(api, name).await?);
                }
                Ok(repositories)
            }
            Owner::Repository(name) => Ok(vec![Repository::read(api, name).await?]),
        }
    }
}

/// Tells somebody who looks how far it is, now and then.
fn progress(what: &str, done: usize, all: usize) {
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
struct Walk<'a> {
    settings: &'a Recovery<'a>,
    repositories: Vec<Repository>,
    hook: Option<Hook>,
    /// Merges that a delivery is known of.
    delivered: HashSet<MergeKey>,
    /// Numbers of the attempts that were looked at.
    known: HashSet<u64>,
    statuses_are_readable: bool,
    may_redeliver: bool,
    /// Why a delivery that was accepted cannot be read.
    unreadable: Option<String>,
    /// Posts without an answer, one after the other.
    silent_posts: u32,
}

/// What became of a delivery that was missed.
enum Asked {
    /// GitHub delivers it again.
    Pending(Line),
    /// It is decided.
    Decided(Line),
    /// Nothing: it is another repository's, or is posted as a merge that no delivery is known of.
    Left,
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

    /// Has GitHub deliver again what was missed, and waits for the results.
    async fn redeliver(
        &mut self,
        api: &mut Api,
        batch: &[Delivery],
        tell: &mut impl FnMut(&Line),
    ) -> Result<(), ApiError> {
        let Some(hook) = self.hook.clone() else { return Ok(()) };
        let mut pending = HashMap::new();
        for missed in batch {
            let line = Line::of_attempt(&missed.attempt, None);
            match self.ask_again(api, &hook, missed).await {
                Ok(Asked::Pending(line)) => drop(pending.insert(missed.attempt.guid.clone(), line)),
                Ok(Asked::Decided(line)) => tell(&line),
                Ok(Asked::Left) => {}
                // One delivery does not hold up the others.
                Err(error) if error.is_of_one_object() => {
                    tell(&line.left(Outcome::Failed, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        self.results(api, &hook, pending, tell).await
    }

    /// Has GitHub deliver one again, or posts it.
    async fn ask_again(&mut self, api: &mut Api, hook: &Hook, missed: &Delivery) -> Result<Asked, ApiError> {
        let attempt = &missed.attempt;
        let detail = match hook.attempt(api, attempt).await {
            // GitHub may deliver what we cannot read.
            Err(error) if error.is_of_one_object() => Value::Null,
            detail => detail?,
        };
        let logged = Logged::parse(&detail);
        if attempt.repository_id.is_none() && !hook.is_of_repository() {
            let id = logged.as_ref().and_then(|logged| logged.payload["repository"]["id"].as_u64());
            if !self.repositories.iter().any(|repository| Some(repository.id) == id) {
                return Ok(Asked::Left);
            }
        }
        let merge = logged.as_ref().and_then(Logged::merge);
        let event = logged.as_ref().and_then(|logged| Event::parse(logged.delivery.clone()).ok());
        let line = Line::of_attempt(attempt, event.as_ref());
        let told = match self.status(api, &line).await {
            Ok(Some(state)) => Some(line.clone().left(Outcome::Duplicate, built(&state))),
            Err(error) if error.is_of_one_object() => Some(line.clone().left(Outcome::Failed, error.to_string())),
            Err(error) => return Err(error),
            Ok(None) if self.settings.is_dry_run => {
                let why = event.as_ref().zip(self.settings.ignores).and_then(|(event, ignores)| ignores(event));
                let end = format!("answered with {}", attempt.end());
                Some(why.map_or_else(
                    || line.clone().left(Outcome::Missing, end),
                    |why| line.clone().left(Outcome::Ignored, why),
                ))
            }
            Ok(None) => None,
        };
        if let Some(line) = told {
            self.delivered.extend(merge);
            return Ok(Asked::Decided(line));
        }
        let refused = match hook.redeliver(api, attempt).await {
            Ok(()) => {
                self.delivered.extend(merge);
                return Ok(Asked::Pending(line));
            }
            Err(error) if error.is_of_one_object() => error,
            Err(error) => return Err(error),
        };
        if matches!(refused, ApiError::Forbidden { .. }) && self.may_redeliver {
            tracing::warn!(error = %refused, "GitHub delivers nothing again");
            self.may_redeliver = false;
        }
        // Deliver what GitHub does not.
        match (self.settings.sender, logged) {
            (Some(sender), Some(logged)) => {
                self.delivered.extend(merge);
                Ok(Asked::Decided(self.post(sender, logged.delivery, line).await))
            }
            (Some(_), None) if missed.is_closing() => Ok(Asked::Left),
            _ => {
                self.delivered.extend(merge);
                Ok(Asked::Decided(line.left(Outcome::Failed, refused.to_string())))
            }
        }
    }

    /// Waits for the results of redeliveries.
    async fn results(
        &mut self,
        api: &mut Api,
        hook: &Hook,
        mut pending: HashMap<String, Line>,
        tell: &mut impl FnMut(&Line),
    ) -> Result<(), ApiError> {
        let mut last_news = Instant::now();
        while !pending.is_empty() && last_news.elapsed() < self.settings.patience {
            sleep(POLL_INTERVAL).await;
            let (known, since) = (&self.known, self.settings.since);
            let is_old = |attempt: &Attempt| attempt.delivered_at < since || known.contains(&attempt.id);
            let attempts = hook.attempts_until(api, is_old).await?;
            self.known.extend(attempts.iter().map(|attempt| attempt.id));
            for attempt in news(attempts) {
                let Some(line) = pending.remove(&attempt.guid) else { continue };
                last_news = Instant::now();
                let status = attempt.status_code.unwrap_or_default();
                let detail = match hook.attempt(api, &attempt).await {
                    Err(error) if error.is_of_one_object() => Value::Null,
                    detail => detail?,
                };
                let answer = detail["response"]["payload"].as_str().unwrap_or_default();
                tell(&line.answered(Road::Redelivery, status, answer));
            }
        }
        for line in pending.into_values() {
            let message = format!("GitHub did not deliver it again within {} s", self.settings.patience.as_secs());
            tell(&line.left(Outcome::Failed, message));
        }
        Ok(())
    }

    /// Posts the merges that no delivery is known of.
    async fn post_unknown(
        &mut self,
        api: &mut Api,
        merges: &[(Repository, Merge)],
        accepted: Vec<Delivery>,
        tell: &mut impl FnMut(&Line),
    ) -> Result<(), ApiError> {
        let mut unread: Vec<Delivery> = accepted.into_iter().filter(Delivery::is_closing).collect();
        for (done, (repository, merge)) in merges.iter().enumerate() {
            progress("merges", done, merges.len());
            if self.is_delivered(api, repository, merge, &mut unread).await? {
                continue;
            }
            let line = Line::of_merge(&repository.name, merge);
            let line = match self.unknown_merge(api, repository, merge.number, line.clone()).await {
                Err(error) if error.is_of_one_object() => line.left(Outcome::Failed, error.to_string()),
                decided => decided?,
            };
            tell(&line);
        }
        Ok(())
    }

    /// Decides about a merge that no delivery is known of.
    async fn unknown_merge(
        &mut self,
        api: &mut Api,
        repository: &Repository,
        number: u64,
        line: Line,
    ) -> Result<Line, ApiError> {
        if let Some(state) = self.status(api, &line).await? {
            return Ok(line.left(Outcome::Duplicate, built(&state)));
        }
        match &self.unreadable {
            Some(why) => {
                Ok(line.left(Outcome::Failed, format!("GitHub's log cannot be read, which may have it: {why}")))
            }
            None => self.post_merge(api, repository, number, line).await,
        }
    }

    /// Posts a merge, made from GitHub's API.
    async fn post_merge(
        &mut self,
        api: &mut Api,
        repository: &Repository,
        number: u64,
        line: Line,
    ) -> Result<Line, ApiError> {
        let pull_request = repository.pull_request(api, number).await?;
        let Some(delivery) = saved::from_api(&pull_request, &line.delivery_id) else {
            return Ok(line.left(Outcome::Failed, "GitHub's answer is no pull request"));
        };
        let event = Event::parse(delivery.clone()).ok();
        if let (Some(ignores), Some(event)) = (self.settings.ignores, &event)
            && let Some(why) = ignores(event)
        {
            return Ok(line.left(Outcome::Ignored, why));
        }
        if self.settings.is_dry_run {
            return Ok(line.left(Outcome::Missing, "no delivery is known"));
        }
        Ok(match self.settings.sender {
            Some(sender) => self.post(sender, delivery, line).await,
            None => line.left(
                Outcome::Failed,
                "no delivery is known, so that GitHub cannot repeat one; give --url and --secret-file",
            ),
        })
    }

    /// Whether a delivery of a merge is known. Reads as few of the log's deliveries as that takes.
    async fn is_delivered(
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

    /// Posts a delivery to the service. A service that does not answer is not asked again and again.
    async fn post(&mut self, sender: &Sender, delivery: crate::delivery::Delivery, line: Line) -> Line {
        if self.silent_posts >= MAX_SILENT_POSTS {
            return line.left(Outcome::Failed, "not tried: --url did not answer before");
        }
        let (headers, body) = webhook(delivery);
        match sender.post(headers, body).await {
            Ok(reply) => {
                self.silent_posts = 0;
                line.answered(Road::Post, reply.status.as_u16().into(), &reply.text)
            }
            Err(error) => {
                self.silent_posts += 1;
                line.left(Outcome::Failed, error.to_string())
            }
        }
    }

    /// The state of the commit's status, which says that there was a run.
    async fn status(&mut self, api: &mut Api, line: &Line) -> Result<Option<String>, ApiError> {
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

fn built(state: &str) -> String {
    format!("there was a run: GitHub shows its status, {state}")
}

/// The last attempt of each delivery; the one that made a run, if one did: GitHub may have been asked twice.
fn news(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let mut last: HashMap<String, Attempt> = HashMap::new();
    for attempt in attempts {
        let is_creation = attempt.status_code == Some(201);
        match last.entry(attempt.guid.clone()) {
            Entry::Occupied(mut entry) if is_creation => drop(entry.insert(attempt)),
            Entry::Occupied(_) => {}
            Entry::Vacant(entry) => drop(entry.insert(attempt)),
        }
    }
    let mut news: Vec<Attempt> = last.into_values().collect();
    news.sort_by_key(|attempt| attempt.id);
    news
}
