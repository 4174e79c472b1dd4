//! The road of one merge, from GitHub to the users: what each place on it says, and what to do at the first one that is wrong.
//!
//! `road` and `cluster` ask GitHub and the API server; the others judge what they answer.

mod cluster;
mod github;
mod road;
mod run;
mod service;

pub(crate) use road::{Question, Target, Unasked, told};

use serde::Serialize;

/// How it looks at one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// As it should be.
    Ok,
    /// Not yet decided.
    Waiting,
    /// The road rightly ends here.
    Ended,
    /// Wrong.
    Wrong,
    /// It was wrong, and the merge went on all the same.
    Past,
    /// Not known, because nobody was asked.
    Unknown,
}

impl State {
    /// The word at the beginning of a line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Waiting => "waiting",
            Self::Ended => "ended",
            Self::Wrong => "wrong",
            Self::Past => "past",
            Self::Unknown => "unknown",
        }
    }
}

/// One place on the road.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    /// How it looks there.
    pub(crate) state: State,
    /// The place: merge, webhook, delivery, template, run, task, service, revision or traffic.
    pub(crate) place: &'static str,
    /// What is there.
    pub(crate) message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) advice: Option<String>,
}

impl Step {
    /// A place as it should be.
    pub(super) fn ok(place: &'static str, message: impl Into<String>) -> Self {
        Self { state: State::Ok, place, message: message.into(), advice: None }
    }

    /// A place that is not known.
    pub(super) fn unknown(place: &'static str, message: impl Into<String>) -> Self {
        Self { state: State::Unknown, ..Self::ok(place, message) }
    }

    /// A place that was asked and did not answer.
    pub(super) fn unanswered(place: &'static str, message: impl Into<String>) -> Self {
        Self { state: State::Wrong, ..Self::ok(place, message) }
    }

    /// A place that is not as it should be, or where the road ends, and what to do.
    pub(super) fn with(
        state: State,
        place: &'static str,
        message: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { state, advice: Some(advice.into()), ..Self::ok(place, message) }
    }
}

/// The merge that the advice is about.
#[derive(Debug, Clone)]
struct About {
    /// `owner/name`.
    repository: String,
    number: u64,
    /// Hours since the merge.
    hours: i64,
    /// The webhook's URL, if the question names it.
    hook_url: Option<String>,
    /// Address of GitHub's API, if it is not the public one.
    api_url: Option<String>,
}

/// GitHub delivers again within so many hours.
const REDELIVERY_HOURS: i64 = 72;
/// The service's default for `--max-merge-age`, in hours.
const MAX_MERGE_HOURS: i64 = 168;

impl About {
    /// Whether the merge is older than GitHub's log of deliveries; its run may have been deleted, too.
    fn is_old(&self) -> bool {
        self.hours >= REDELIVERY_HOURS
    }

    /// A call of `recover` that leads to the same webhook.
    fn recover(&self, more: &str) -> String {
        let flag = |name: &str, value: &Option<String>| {
            value.as_ref().map(|value| format!(" --{name} {value}")).unwrap_or_default()
        };
        format!(
            "github-trigger recover --repository {} --since {}h --github-token-file TOKEN{more}{}{}",
            self.repository,
            self.hours + 1,
            flag("hook-url", &self.hook_url),
            flag("github-api-url", &self.api_url)
        )
    }

    /// How to have it delivered again, if GitHub has a delivery of it that failed.
    fn redeliver(&self) -> String {
        if self.is_old() {
            return self.send();
        }
        format!("press *Redeliver* on GitHub, or: {}", self.recover(""))
    }

    /// How to have it built, if GitHub has no delivery of it.
    fn build(&self) -> String {
        if self.is_old() {
            return self.send();
        }
        self.recover(" --url SERVICE-URL --secret-file SECRET")
    }

    /// How to have it built, if GitHub's delivery of it succeeded.
    fn build_again(&self) -> String {
        if self.is_old() { self.send() } else { "press *Redeliver* on GitHub".to_owned() }
    }

    /// What works at any age.
    fn send(&self) -> String {
        let Self { repository, number, hours, .. } = self;
        let age = match *hours >= MAX_MERGE_HOURS {
            true => ", to a service with --max-merge-age=0: it is old",
            false => "",
        };
        format!(
            "gh api repos/{repository}/pulls/{number} > merge.json, then: github-trigger send --payload merge.json \
             --url SERVICE-URL --secret-file SECRET{age}"
        )
    }
}

/// The text of a field; empty if it is missing.
fn text<'v>(value: &'v serde_json::Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(serde_json::Value::as_str).unwrap_or_default()
}

/// The condition of a type in an object's status.
fn condition<'v>(object: &'v serde_json::Value, kind: &str) -> Option<&'v serde_json::Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}
