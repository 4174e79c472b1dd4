//! Merges that no delivery is known of, and deliveries that GitHub does not repeat: they are posted to the service.

use super::line::{Line, Outcome, Road};
use super::log::Delivery;
use super::walk::{Walk, progress};
use crate::delivery::{Delivery as SavedDelivery, saved};
use crate::github::Event;
use crate::github::api::{Api, ApiError, Merge, Repository};
use crate::sender::{Sender, webhook};

/// After so many posts without an answer, the service is not asked any more.
const MAX_UNANSWERED_POSTS: u32 = 2;

impl Walk<'_> {
    /// Posts the merges that no delivery is known of.
    pub(super) async fn post_unknown(
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

    /// Posts a delivery to the service. A service that does not answer is not asked again and again.
    pub(super) async fn post(&mut self, sender: &Sender, delivery: SavedDelivery, line: Line) -> Line {
        if self.unanswered_posts >= MAX_UNANSWERED_POSTS {
            return line.left(Outcome::Failed, "not tried: --url did not answer before");
        }
        let (headers, body) = webhook(delivery);
        match sender.post(headers, body).await {
            Ok(reply) => {
                self.unanswered_posts = 0;
                line.answered(Road::Post, reply.status.as_u16().into(), &reply.text)
            }
            Err(error) => {
                self.unanswered_posts += 1;
                line.left(Outcome::Failed, error.to_string())
            }
        }
    }
}

/// Says that a run existed, because GitHub shows its status.
pub(super) fn built(state: &str) -> String {
    format!("there was a run: GitHub shows its status, {state}")
}
