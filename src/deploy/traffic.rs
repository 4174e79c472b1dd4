//! Who sees which revision: the arithmetic of traffic targets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::service::Target;

/// What a target points at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Point {
    /// One revision, for good.
    Revision(String),
    /// Whichever is the latest ready one.
    Latest,
}

/// Percent and tags by what they point at. Each point stands here once, as Knative's routes want it: two targets of one
/// revision under the same tag never become ready.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Traffic(BTreeMap<Point, Share>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Share {
    percent: i64,
    tags: Vec<String>,
}

impl Traffic {
    /// What a spec asks for; a Service without traffic gives everybody the latest revision.
    pub(super) fn of_spec(targets: &[Target]) -> Self {
        if targets.is_empty() {
            return Self::all_to(Point::Latest);
        }
        Self::of(targets, |target| match &target.revision_name {
            Some(name) => Some(Point::Revision(name.clone())),
            None => Some(Point::Latest),
        })
    }

    /// What a status reports: always revisions, of which a rollout under way shows one several times.
    pub(super) fn of_status(targets: &[Target]) -> Self {
        Self::of(targets, |target| target.revision_name.clone().map(Point::Revision))
    }

    fn of(targets: &[Target], point: impl Fn(&Target) -> Option<Point>) -> Self {
        let mut traffic = Self::default();
        for target in targets {
            let Some(point) = point(target) else { continue };
            let share = traffic.0.entry(point).or_default();
            share.percent += target.percent.unwrap_or(0);
            share.tags.extend(target.tag.clone().filter(|tag| !tag.is_empty()));
        }
        traffic
    }

    /// Everybody sees one thing.
    pub(super) fn all_to(point: Point) -> Self {
        Self(BTreeMap::from([(point, Share { percent: 100, tags: Vec::new() })]))
    }

    /// These users, without tags.
    pub(super) fn of_users(users: BTreeMap<Point, i64>) -> Self {
        Self(users.into_iter().map(|(point, percent)| (point, Share { percent, tags: Vec::new() })).collect())
    }

    /// Where users are.
    pub(super) fn users(&self) -> BTreeMap<Point, i64> {
        let with_users = self.0.iter().filter(|(_, share)| share.percent > 0);
        with_users.map(|(point, share)| (point.clone(), share.percent)).collect()
    }

    /// All tags, and what they point at.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&str, &Point)> {
        self.0.iter().flat_map(|(point, share)| share.tags.iter().map(move |tag| (tag.as_str(), point)))
    }

    pub(super) fn sum(&self) -> i64 {
        self.0.values().map(|share| share.percent).sum()
    }

    /// Whether nobody sees anything.
    pub(super) fn is_empty(&self) -> bool {
        self.sum() == 0
    }

    /// Puts a tag where it was not before.
    pub(super) fn add_tag(&mut self, point: Point, tag: &str) {
        self.0.entry(point).or_default().tags.push(tag.to_owned());
    }

    /// What it is once "latest" is this revision.
    pub(super) fn resolved(&self, latest: &str) -> Self {
        let mut resolved = Self::default();
        for (point, share) in &self.0 {
            let point = match point {
                Point::Latest => Point::Revision(latest.to_owned()),
                Point::Revision(_) => point.clone(),
            };
            let sum = resolved.0.entry(point).or_default();
            sum.percent += share.percent;
            sum.tags.extend(share.tags.iter().cloned());
        }
        resolved
    }

    /// Everybody sees the latest; tags stay where they are.
    pub(super) fn all_to_latest(mut self) -> Self {
        self.0.values_mut().for_each(|share| share.percent = 0);
        self.0.entry(Point::Latest).or_default().percent = 100;
        self.pruned()
    }

    /// Without the users of one revision.
    pub(super) fn without(mut self, revision: Option<&str>) -> Self {
        if let Some(share) = revision.and_then(|name| self.0.get_mut(&Point::Revision(name.to_owned()))) {
            share.percent = 0;
        }
        self.pruned()
    }

    /// The same proportions in fewer or more users, rounded so that the sum is right (largest remainders first).
    pub(super) fn scaled_to(mut self, total: i64) -> Self {
        let sum = self.sum().max(1);
        let mut remainders: Vec<(i64, Point)> = Vec::new();
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

    /// The latest revision gets `percent`, or everybody if nobody else has users, and the tag, wherever that was.
    pub(super) fn with_latest(mut self, percent: i64, tag: Option<&str>) -> Self {
        let percent = if self.is_empty() { 100 } else { percent };
        if let Some(tag) = tag {
            self.0.values_mut().for_each(|share| share.tags.retain(|other| other != tag));
        }
        let latest = self.0.entry(Point::Latest).or_default();
        latest.percent = percent;
        latest.tags.extend(tag.map(str::to_owned));
        self.pruned()
    }

    fn pruned(mut self) -> Self {
        self.0.retain(|_, share| share.percent > 0 || !share.tags.is_empty());
        self
    }

    /// As `spec.traffic`: a revision's users stand with its first tag, further tags have none.
    pub(super) fn to_spec(&self) -> Value {
        let mut targets = Vec::new();
        for (point, share) in &self.0 {
            let mut percent = share.percent;
            let tags = share.tags.iter().map(Some);
            let untagged = share.tags.is_empty().then_some(None);
            for tag in tags.chain(untagged) {
                let mut target = match point {
                    Point::Revision(name) => json!({"revisionName": name, "latestRevision": false}),
                    Point::Latest => json!({"latestRevision": true}),
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
