//! Deliveries that were missed: GitHub delivers them again.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::hook::Logged;
use super::line::{Line, Outcome, Road};
use super::log::Delivery;
use super::post::built;
use super::walk::Walk;
use crate::github::Event;
use crate::github::api::{Api, ApiError, Attempt, Hook};

/// Time between two looks at the log for the results.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What became of a delivery that was missed.
enum Asked {
    /// GitHub delivers it again.
    Pending(Line),
    /// It is decided.
    Decided(Line),
    /// Not here: it is another repository's, or is posted as a merge that no delivery is known of.
    Undecided,
}

impl Walk<'_> {
    /// Has GitHub deliver again what was missed, and waits for the results.
    pub(super) async fn redeliver(
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
                Ok(Asked::Undecided) => {}
                // One delivery does not hold up the others.
                Err(error) if error.is_of_one_object() => {
                    tell(&line.left(Outcome::Failed, error.to_string()));
                }
                Err(error) => {
                    tell_unknown(pending, &error, tell);
                    return Err(error);
                }
            }
        }
        let ended = self.results(api, &hook, &mut pending, tell).await;
        match &ended {
            Ok(()) => {
                let seconds = self.settings.result_timeout.as_secs();
                for line in pending.into_values() {
                    let message = format!("GitHub did not deliver it again within {seconds} s");
                    tell(&line.left(Outcome::Failed, message));
                }
            }
            Err(error) => tell_unknown(pending, error, tell),
        }
        ended
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
                return Ok(Asked::Undecided);
            }
        }
        let merge = logged.as_ref().and_then(Logged::merge);
        let event = logged.as_ref().and_then(|logged| Event::parse(logged.delivery.clone()).ok());
        let line = Line::of_attempt(attempt, event.as_ref());
        // A status tells of a run of the merge, not of each: not of that of another event of the same commit, nor of one that
        // this service said it did not create.
        let may_be_built = merge.is_some() && !is_answer_of_service(&detail);
        let status = if may_be_built { self.status(api, &line).await } else { Ok(None) };
        let told = match status {
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
            (Some(_), None) if missed.is_closing() => Ok(Asked::Undecided),
            _ => {
                self.delivered.extend(merge);
                Ok(Asked::Decided(line.left(Outcome::Failed, refused.to_string())))
            }
        }
    }

    /// Waits for the results of redeliveries; leaves those in `pending` that have none.
    async fn results(
        &mut self,
        api: &mut Api,
        hook: &Hook,
        pending: &mut HashMap<String, Line>,
        tell: &mut impl FnMut(&Line),
    ) -> Result<(), ApiError> {
        let mut last_result = Instant::now();
        while !pending.is_empty() && last_result.elapsed() < self.settings.result_timeout {
            sleep(POLL_INTERVAL).await;
            let (known, since) = (&self.known, self.settings.since);
            let is_old = |attempt: &Attempt| attempt.delivered_at < since || known.contains(&attempt.id);
            let attempts = hook.attempts_until(api, is_old).await?;
            self.known.extend(attempts.iter().map(|attempt| attempt.id));
            for attempt in last_attempts(attempts) {
                if !pending.contains_key(&attempt.guid) {
                    continue;
                }
                last_result = Instant::now();
                let status = attempt.status_code.unwrap_or_default();
                let detail = match hook.attempt(api, &attempt).await {
                    Err(error) if error.is_of_one_object() => Value::Null,
                    detail => detail?,
                };
                let Some(line) = pending.remove(&attempt.guid) else { continue };
                let answer = detail["response"]["payload"].as_str().unwrap_or_default();
                tell(&line.answered(Road::Redelivery, status, answer));
            }
        }
        Ok(())
    }
}

/// Tells of redeliveries that GitHub was asked for, and whose results it does not say any more.
fn tell_unknown(pending: HashMap<String, Line>, error: &ApiError, tell: &mut impl FnMut(&Line)) {
    for line in pending.into_values() {
        tell(&line.left(Outcome::Failed, format!("GitHub delivers it again; the result is not known: {error}")));
    }
}

/// Whether an attempt that was not accepted was answered by this service, which then says that not all runs exist.
fn is_answer_of_service(detail: &Value) -> bool {
    let answer = detail["response"]["payload"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    answer.is_some_and(|answer| answer["outcome"].is_string())
}

/// The last attempt of each delivery; the one that made a run, if one did: GitHub may have been asked twice.
fn last_attempts(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let mut last: HashMap<String, Attempt> = HashMap::new();
    for attempt in attempts {
        let is_creation = attempt.status_code == Some(201);
        match last.entry(attempt.guid.clone()) {
            Entry::Occupied(mut entry) if is_creation => drop(entry.insert(attempt)),
            Entry::Occupied(_) => {}
            Entry::Vacant(entry) => drop(entry.insert(attempt)),
        }
    }
    let mut attempts: Vec<Attempt> = last.into_values().collect();
    attempts.sort_by_key(|attempt| attempt.id);
    attempts
}
