//! What became of one missed delivery.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::delivery::EventKind;
use crate::github::Event;
use crate::github::api::{Attempt, Merge, RepositoryName};

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// Its run was created now.
    Recovered,
    /// Its run existed.
    Duplicate,
    /// No template is for it.
    Ignored,
    /// It is still missing.
    Failed,
    /// It is missing, and nothing was done: a dry run.
    Missing,
}

/// How it was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Road {
    /// By GitHub, again.
    Redelivery,
    /// From here, made from GitHub's API.
    Post,
    /// Not at all.
    None,
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Line {
    /// What became of it.
    pub(crate) outcome: Outcome,
    /// How it was delivered.
    pub(crate) road: Road,
    /// `owner/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) repository: Option<String>,
    /// The event's name.
    pub(crate) event: String,
    /// Number of the pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull_request: Option<u64>,
    /// The commit to build.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) commit: Option<String>,
    /// Id of the delivery.
    pub(crate) delivery_id: String,
    /// A sentence.
    pub(crate) message: String,
    /// `namespace/name` of its runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) pipeline_runs: Vec<String>,
}

/// How many there were of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) recovered: usize,
    pub(crate) duplicate: usize,
    pub(crate) ignored: usize,
    pub(crate) failed: usize,
    pub(crate) missing: usize,
    /// Of these, those by which something has changed: a run, or GitHub's page.
    pub(crate) delivered: usize,
}

impl Tally {
    /// Counts a line.
    pub(crate) fn add(&mut self, line: &Line) {
        let count = match line.outcome {
            Outcome::Recovered => &mut self.recovered,
            Outcome::Duplicate => &mut self.duplicate,
            Outcome::Ignored => &mut self.ignored,
            Outcome::Failed => &mut self.failed,
            Outcome::Missing => &mut self.missing,
        };
        *count += 1;
        let is_news = line.outcome == Outcome::Recovered || line.road == Road::Redelivery;
        self.delivered += usize::from(line.road != Road::None && is_news);
    }
}

impl Line {
    /// An attempt at a delivery, and its event where that can be read.
    pub(super) fn of_attempt(attempt: &Attempt, event: Option<&Event>) -> Self {
        Self {
            outcome: Outcome::Missing,
            road: Road::None,
            repository: event.and_then(|event| event.repository_name().map(str::to_owned)),
            event: attempt.event.clone(),
            pull_request: event.and_then(|event| event.subject.number),
            commit: event.and_then(|event| Some(event.commit()?.to_string())),
            delivery_id: attempt.guid.clone(),
            message: String::new(),
            pipeline_runs: Vec::new(),
        }
    }

    /// A merge that no delivery is known of.
    pub(super) fn of_merge(repository: &RepositoryName, merge: &Merge) -> Self {
        Self {
            outcome: Outcome::Missing,
            road: Road::None,
            repository: Some(repository.as_str().to_owned()),
            event: EventKind::PullRequest.to_string(),
            pull_request: Some(merge.number),
            commit: Some(merge.commit.to_string()),
            delivery_id: format!("recover-{}", merge.commit),
            message: String::new(),
            pipeline_runs: Vec::new(),
        }
    }

    /// The same line, with the outcome and the runs that the service's answer tells of.
    pub(super) fn answered(self, road: Road, status: u64, text: &str) -> Self {
        let answer: Value = serde_json::from_str(text).unwrap_or_default();
        let runs = answer["pipelineRuns"].as_array().into_iter().flatten();
        let name = |run: &Value| Some(format!("{}/{}", run["namespace"].as_str()?, run["name"].as_str()?));
        let pipeline_runs: Vec<String> = runs.filter_map(name).collect();
        let said = answer["message"].as_str().unwrap_or_default();
        let (outcome, message) = match (status, answer["outcome"].as_str()) {
            (200..300, Some("created")) => (Outcome::Recovered, pipeline_runs.join(", ")),
            (200..300, Some("duplicate")) => (Outcome::Duplicate, pipeline_runs.join(", ")),
            (200..300, Some("ignored" | "pong")) => (Outcome::Ignored, said.to_owned()),
            // An event is answered with a status alone, and GitHubSource answers for itself.
            (202 | 204, None) if road == Road::Redelivery => (Outcome::Recovered, String::new()),
            (200..300, None) if road == Road::Redelivery && text.trim().is_empty() => {
                (Outcome::Recovered, String::new())
            }
            (200..300, _) => (
                Outcome::Failed,
                format!("answered with {status} by something else than this service: is the URL right?"),
            ),
            (0, _) => (Outcome::Failed, "no answer: is the service there, and does GitHub reach it?".to_owned()),
            (_, _) => {
                let reason = answer["reason"].as_str().map(|reason| format!(" ({reason})")).unwrap_or_default();
                (Outcome::Failed, format!("answered with {status}{reason} {said}").trim_end().to_owned())
            }
        };
        Self { outcome, road, message, pipeline_runs, ..self }
    }

    /// The same line, of a delivery that nothing was done for.
    pub(super) fn left(self, outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, road: Road::None, message: message.into(), ..self }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Recovered => "recovered",
            Outcome::Duplicate => "duplicate",
            Outcome::Ignored => "ignored",
            Outcome::Failed => "failed",
            Outcome::Missing => "missing",
        };
        write!(f, "{outcome} {}", self.repository.as_deref().unwrap_or("(no repository)"))?;
        match self.pull_request {
            Some(number) => write!(f, "#{number}")?,
            None => write!(f, " {}", self.event)?,
        }
        if let Some(commit) = &self.commit {
            write!(f, " {}", commit.get(..8).unwrap_or(commit))?;
        }
        write!(f, " delivery={}", self.delivery_id)?;
        match self.road {
            Road::Redelivery => write!(f, " delivered again by GitHub")?,
            Road::Post => write!(f, " posted")?,
            Road::None => {}
        }
        // The service's or another server's words must not control the terminal.
        let message = self.message.replace(char::is_control, " ");
        if message.is_empty() { Ok(()) } else { write!(f, ": {message}") }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line() -> Line {
        Line {
            outcome: Outcome::Missing,
            road: Road::None,
            repository: Some("acme/web".to_owned()),
            event: "pull_request".to_owned(),
            pull_request: Some(5),
            commit: Some("ec26c3e57ca3a959ca5aad62de7213c562f8c821".to_owned()),
            delivery_id: "d1".to_owned(),
            message: String::new(),
            pipeline_runs: Vec::new(),
        }
    }

    #[test]
    fn outcome_is_that_of_the_service() {
        let runs = json!([{"namespace": "ci", "name": "web-0"}]);
        for (status, answer, outcome, text) in [
            (201, json!({"outcome": "created", "pipelineRuns": runs}), Outcome::Recovered, "ci/web-0"),
            (200, json!({"outcome": "duplicate", "pipelineRuns": runs}), Outcome::Duplicate, "ci/web-0"),
            (200, json!({"outcome": "ignored", "message": "no template"}), Outcome::Ignored, "no template"),
            (202, json!("accepted"), Outcome::Recovered, ""),
            (200, json!({"outcome": "hello"}), Outcome::Failed, "something else than this service"),
            (200, json!("<html>"), Outcome::Failed, "something else than this service"),
            (
                503,
                json!({"outcome": "unavailable", "reason": "api_server", "message": "later"}),
                Outcome::Failed,
                "answered with 503 (api_server) later",
            ),
            (302, Value::Null, Outcome::Failed, "answered with 302"),
            (0, Value::Null, Outcome::Failed, "no answer"),
        ] {
            let line = line().answered(Road::Redelivery, status, &answer.to_string());
            assert_eq!(line.outcome, outcome, "{status} {answer}");
            assert!(line.message.contains(text), "{line}");
        }
    }

    #[test]
    fn reads_as_one_line() {
        assert_eq!(line().answered(Road::Redelivery, 204, "").outcome, Outcome::Recovered);
        assert_eq!(
            line().answered(Road::Post, 204, "").outcome,
            Outcome::Failed,
            "the service answers a webhook with JSON"
        );
        let line = line().answered(Road::Post, 503, &json!({"message": "a\nb\u{1b}[31m"}).to_string());
        assert_eq!(line.to_string(), "failed acme/web#5 ec26c3e5 delivery=d1 posted: answered with 503 a b [31m");
        let mut tally = Tally::default();
        tally.add(&line);
        tally.add(&line.clone().left(Outcome::Duplicate, "built"));
        assert_eq!(tally, Tally { failed: 1, duplicate: 1, ..Tally::default() });
        for (road, delivered) in [(Road::Post, 0), (Road::Redelivery, 1)] {
            let mut tally = Tally::default();
            tally.add(&line.clone().answered(road, 200, &json!({"outcome": "duplicate"}).to_string()));
            assert_eq!(tally.delivered, delivered, "GitHub's page has changed, or nothing has");
        }
    }
}
