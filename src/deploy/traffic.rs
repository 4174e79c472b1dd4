//! The distribution of traffic over revisions: arithmetic on traffic targets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::service::Target;

/// The destination of a traffic target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Destination {
    /// One revision, fixed by name.
    Revision(String),
    /// The latest ready revision, which changes with each new revision.
    Latest,
}

/// Percentage and tags of each destination. Each destination occurs once, as Knative requires: a route with two targets
/// of one revision under the same tag never becomes ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Traffic(BTreeMap<Destination, Share>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Share {
    percent: i64,
    tags: Vec<String>,
}

impl Traffic {
    /// The desired traffic in a spec; without targets, all traffic goes to the latest revision.
    pub(super) fn from_spec(targets: &[Target]) -> Self {
        if targets.is_empty() {
            return Self::all_to(Destination::Latest);
        }
        Self::from_targets(targets, |target| match &target.revision_name {
            Some(name) => Some(Destination::Revision(name.clone())),
            None => Some(Destination::Latest),
        })
    }

    /// The current traffic in a status, by revision. Adds up the entries of a revision, which repeats during a rollout.
    pub(super) fn from_status(targets: &[Target]) -> Self {
        Self::from_targets(targets, |target| target.revision_name.clone().map(Destination::Revision))
    }

    fn from_targets(targets: &[Target], point: impl Fn(&Target) -> Option<Destination>) -> Self {
        let mut traffic = Self::default();
        for target in targets {
            let Some(point) = point(target) else { continue };
            let share = traffic.0.entry(point).or_default();
            share.percent += target.percent.unwrap_or(0);
            share.tags.extend(target.tag.clone().filter(|tag| !tag.is_empty()));
        }
        traffic
    }

    /// All traffic to one destination.
    pub(super) fn all_to(point: Destination) -> Self {
        Self(BTreeMap::from([(point, Share { percent: 100, tags: Vec::new() })]))
    }

    /// These percentages, without tags.
    pub(super) fn from_percentages(users: BTreeMap<Destination, i64>) -> Self {
        Self(users.into_iter().map(|(point, percent)| (point, Share { percent, tags: Vec::new() })).collect())
    }

    /// The destinations with users, and their percentages.
    pub(super) fn users(&self) -> BTreeMap<Destination, i64> {
        let with_users = self.0.iter().filter(|(_, share)| share.percent > 0);
        with_users.map(|(point, share)| (point.clone(), share.percent)).collect()
    }

    /// All tags and their destinations.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&str, &Destination)> {
        self.0.iter().flat_map(|(point, share)| share.tags.iter().map(move |tag| (tag.as_str(), point)))
    }

    pub(super) fn sum(&self) -> i64 {
        self.0.values().map(|share| share.percent).sum()
    }

    /// Whether no destination has users.
    pub(super) fn is_empty(&self) -> bool {
        self.sum() == 0
    }

    /// Moves a tag to a destination.
    pub(super) fn tagged(mut self, point: Destination, tag: &str) -> Self {
        self.0.values_mut().for_each(|share| share.tags.retain(|other| other != tag));
        self.add_tag(point, tag);
        self.pruned()
    }

    /// Moves the tags of the latest revision to the revisions that they are on according to the status.
    pub(super) fn with_pinned_tags(mut self, status: &Self) -> Self {
        let Some(latest) = self.0.get_mut(&Destination::Latest) else { return self };
        for tag in std::mem::take(&mut latest.tags) {
            let revision = status.tags().find(|(other, _)| *other == tag).map(|(_, revision)| revision.clone());
            self.add_tag(revision.unwrap_or(Destination::Latest), &tag);
        }
        self.pruned()
    }

    /// Adds the tags of a spec, each on the revision that it is on according to the status.
    pub(super) fn with_tags_of(mut self, spec: &Self, status: &Self) -> Self {
        for (tag, point) in spec.tags() {
            let revision = status.tags().find(|(other, _)| *other == tag).map_or(point, |(_, revision)| revision);
            self.add_tag(revision.clone(), tag);
        }
        self
    }

    /// Adds a tag to a destination; the tag must be new.
    pub(super) fn add_tag(&mut self, point: Destination, tag: &str) {
        self.0.entry(point).or_default().tags.push(tag.to_owned());
    }

    /// The traffic when the latest ready revision is `latest`, by revision.
    pub(super) fn resolved(&self, latest: &str) -> Self {
        let mut resolved = Self::default();
        for (point, share) in &self.0 {
            let point = match point {
                Destination::Latest => Destination::Revision(latest.to_owned()),
                Destination::Revision(_) => point.clone(),
            };
            let sum = resolved.0.entry(point).or_default();
            sum.percent += share.percent;
            sum.tags.extend(share.tags.iter().cloned());
        }
        resolved
    }

    /// Sends all traffic to the latest revision; keeps the tags.
    pub(super) fn all_to_latest(mut self) -> Self {
        self.0.values_mut().for_each(|share| share.percent = 0);
        self.0.entry(Destination::Latest).or_default().percent = 100;
        self.pruned()
    }

    /// Removes the users of one revision; keeps its tags.
    pub(super) fn without(mut self, revision: Option<&str>) -> Self {
        if let Some(share) = revision.and_then(|name| self.0.get_mut(&Destination::Revision(name.to_owned()))) {
            share.percent = 0;
        }
        self.pruned()
    }

    /// Removes a revision with its users and tags.
    pub(super) fn dropped(mut self, revision: Option<&str>) -> Self {
        if let Some(name) = revision {
            self.0.remove(&Destination::Revision(name.to_owned()));
        }
        self
    }

    /// Scales the percentages to the sum `total`; rounds by the largest remainder method.
    pub(super) fn scaled_to(mut self, total: i64) -> Self {
        let sum = self.sum().max(1);
        let mut remainders: Vec<(i64, Destination)> = Vec::new();
        let mut given = 0;
        for (point, share) in &mut self.0 {
            let exact = share.percent * total;
            share.percent = exact / sum;
            given += share.percent;
            remainders.push((exact % sum, point.clone()));
        }
        remainders.sort_by(|(a, first), (b, second)| b.cmp(a).then_with(|| first.cmp(second)));
        let missing = usize::try_from(total - given).unwrap_or(0);
        for (_, point) in remainders.iter().take(missing) {
            if let Some(share) = self.0.get_mut(point) {
                share.percent += 1;
            }
        }
        self.pruned()
    }

    /// Gives the latest revision `percent` of the traffic (100 if no other has users), and moves `tag` to it.
    pub(super) fn with_latest(mut self, percent: i64, tag: Option<&str>) -> Self {
        let percent = if self.is_empty() { 100 } else { percent };
        if let Some(tag) = tag {
            self.0.values_mut().for_each(|share| share.tags.retain(|other| other != tag));
        }
        let latest = self.0.entry(Destination::Latest).or_default();
        latest.percent = percent;
        latest.tags.extend(tag.map(str::to_owned));
        self.pruned()
    }

    fn pruned(mut self) -> Self {
        self.0.retain(|_, share| share.percent > 0 || !share.tags.is_empty());
        self
    }

    /// Converts to `spec.traffic`. A revision's percentage goes to its first tag; its other tags get 0.
    pub(super) fn to_spec(&self) -> Value {
        let mut targets = Vec::new();
        for (point, share) in &self.0 {
            let mut percent = share.percent;
            let tags = share.tags.iter().map(Some);
            let untagged = share.tags.is_empty().then_some(None);
            for tag in tags.chain(untagged) {
                let mut target = match point {
                    Destination::Revision(name) => json!({"revisionName": name, "latestRevision": false}),
                    Destination::Latest => json!({"latestRevision": true}),
                };
                target["percent"] = std::mem::take(&mut percent).into();
                if let Some(tag) = tag {
                    target["tag"] = tag.as_str().into();
                }
                targets.push(target);
            }
        }
        targets.into()
    }
}
