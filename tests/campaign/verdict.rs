//! The conditions that must hold after every fault.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::plan::{Delivery, Form, Kind, Road, Subject, kind_of};
use crate::roads::Told;

/// Observations so far, and the violations among them.
#[derive(Default)]
pub struct Verdict {
    /// Pull request numbers of acknowledged merges.
    acknowledged: BTreeSet<u64>,
    counts: BTreeMap<String, u64>,
    wrong: Vec<String>,
    summary: Vec<String>,
}

impl Verdict {
    /// Records the answers that senders got during the faults.
    pub fn told(&mut self, answers: Vec<(Delivery, Told)>) {
        for (Delivery { subject, road, .. }, told) in answers {
            let Subject { number, kind } = subject;
            *self.counts.entry(format!("{kind:?} {told:?}")).or_default() += 1;
            let allowed = match (kind, told) {
                (_, Told::Nothing | Told::Refused(503)) => true,
                (Kind::Merge | Kind::Unmerged, Told::Acknowledged) => true,
                // Its secret was removed while the delivery was in flight.
                (Kind::Merge | Kind::Unmerged, Told::Refused(401)) => {
                    matches!(road, Road::Webhook(_) | Road::SignedEvent(_))
                }
                (Kind::Forged, Told::Refused(401)) => true,
                // GitHubSource answers 400 for every error of its sink; a Broker reports the status that it got.
                (_, Told::Refused(400)) => road == Road::Source,
                (_, Told::Refused(code)) => matches!(road, Road::Broker(_)) && code >= 500,
                (Kind::Forged, Told::Acknowledged) => false,
            };
            if !allowed {
                self.wrong.push(format!("{kind:?} {number} by {road:?} was answered {told:?}"));
            }
            if kind == Kind::Merge && told == Told::Acknowledged {
                self.acknowledged.insert(number);
            }
        }
    }

    /// Checks that every acknowledged merge has its run, and that every run is correct.
    pub fn acknowledged_exist(&mut self, runs: &[Value]) {
        let existing = self.existing(runs);
        let missing: Vec<&u64> = self.acknowledged.iter().filter(|number| !existing.contains(number)).collect();
        self.summary.push(format!("acknowledged {}, of these without run {}", self.acknowledged.len(), missing.len()));
        if !missing.is_empty() {
            self.wrong.push(format!("acknowledged, but without a run: {missing:?}"));
        }
    }

    /// A last delivery of every merge: first those of unacknowledged merges, then those of acknowledged ones.
    pub fn redeliveries(&self, pull_requests: u64) -> (Vec<Delivery>, Vec<Delivery>) {
        let merges = (1..=pull_requests).filter(|&number| kind_of(number) == Kind::Merge);
        let again = |number| Delivery {
            subject: Subject { number, kind: Kind::Merge },
            road: Road::Webhook(Form::Json),
            pause: Duration::ZERO,
        };
        let (acknowledged, not): (Vec<u64>, Vec<u64>) = merges.partition(|number| self.acknowledged.contains(number));
        (not.into_iter().map(again).collect(), acknowledged.into_iter().map(again).collect())
    }

    /// Checks that every redelivery was acknowledged.
    pub fn redelivered(&mut self, answers: Vec<(Delivery, Told)>, what: &str) {
        let failed: Vec<_> = answers.iter().filter(|(_, told)| *told != Told::Acknowledged).collect();
        self.summary.push(format!("{what}: redelivered {}, of these failed {}", answers.len(), failed.len()));
        for (delivery, told) in failed {
            self.wrong.push(format!("{what} {} was redelivered and answered {told:?}", delivery.subject.number));
        }
    }

    /// Checks that there is one run for each merge, and no other.
    pub fn all_exist(&mut self, runs: &[Value], pull_requests: u64) {
        let existing = self.existing(runs);
        let merges: BTreeSet<u64> = (1..=pull_requests).filter(|&number| kind_of(number) == Kind::Merge).collect();
        self.summary.push(format!("merges {}, runs {}", merges.len(), runs.len()));
        if existing != merges {
            let missing: Vec<_> = merges.difference(&existing).collect();
            self.wrong.push(format!("merges without a run at the end: {missing:?}"));
        }
    }

    /// The numbers of the pull requests that have a run. Records wrong and duplicate runs as violations.
    fn existing(&mut self, runs: &[Value]) -> BTreeSet<u64> {
        let mut seen = BTreeSet::new();
        for run in runs {
            let number = run["metadata"]["labels"]["github-trigger.dev/pull-request"].as_str();
            let number: u64 = number.and_then(|number| number.parse().ok()).unwrap_or_default();
            let subject = Subject { number, kind: kind_of(number) };
            if !seen.insert(number) {
                self.wrong.push(format!("more than one run for {number}"));
            }
            if subject.kind != Kind::Merge {
                self.wrong.push(format!("a run for {number}, which is {:?}", subject.kind));
            }
            let (revision, repository) =
                (&run["spec"]["params"][0]["value"], &run["metadata"]["annotations"]["github-trigger.dev/repository"]);
            if *revision != subject.commit() || *repository != subject.repository() {
                self.wrong.push(format!("the run of {number} builds {revision} of {repository}"));
            }
        }
        seen
    }

    /// Checks that no service has logged a panic or a defect.
    pub fn logs(&mut self, lines: &[String]) {
        let defects = lines.iter().filter(|line| line.contains("defect") || line.contains("panicked"));
        self.wrong.extend(defects.map(|line| format!("a service logged: {line}")));
    }

    /// Checks that each kind of violation is detected. Panics if one is not.
    pub fn check_itself() {
        let run = |number: u64| {
            let subject = Subject { number, kind: kind_of(number) };
            json!({
                "metadata": {
                    "labels": {"github-trigger.dev/pull-request": number.to_string()},
                    "annotations": {"github-trigger.dev/repository": subject.repository()},
                },
                "spec": {"params": [{"name": "revision", "value": subject.commit()}]},
            })
        };
        let told = |number: u64, told: Told| {
            let subject = Subject { number, kind: kind_of(number) };
            vec![(Delivery { subject, road: Road::Webhook(Form::Json), pause: Duration::ZERO }, told)]
        };
        let (forged, merge, unmerged) = (1, 2, 8);
        let is_wrong = |what: &str, see: &dyn Fn(&mut Self)| {
            let mut verdict = Self::default();
            see(&mut verdict);
            assert!(!verdict.wrong.is_empty(), "not detected: {what}");
        };
        is_wrong("an acknowledged merge without a run", &|verdict| {
            verdict.told(told(merge, Told::Acknowledged));
            verdict.acknowledged_exist(&[]);
        });
        is_wrong("two runs of one merge", &|verdict| verdict.acknowledged_exist(&[run(merge), run(merge)]));
        is_wrong("a run for a forged merge", &|verdict| verdict.acknowledged_exist(&[run(forged)]));
        is_wrong("a run without a merge", &|verdict| verdict.acknowledged_exist(&[run(unmerged)]));
        is_wrong("a run of another commit", &|verdict| {
            let mut other = run(merge);
            other["spec"]["params"][0]["value"] = run(forged)["spec"]["params"][0]["value"].clone();
            verdict.acknowledged_exist(&[other]);
        });
        is_wrong("an acknowledged forged merge", &|verdict| verdict.told(told(forged, Told::Acknowledged)));
        is_wrong("a merge that is answered 400", &|verdict| verdict.told(told(merge, Told::Refused(400))));
        is_wrong("a failed redelivery", &|verdict| verdict.redelivered(told(merge, Told::Refused(503)), "a merge"));
        is_wrong("a merge without a run at the end", &|verdict| verdict.all_exist(&[], merge));
        is_wrong("a panic", &|verdict| verdict.logs(&["thread 'serve' panicked".to_owned()]));
        let mut right = Self::default();
        right.told(told(merge, Told::Acknowledged));
        right.acknowledged_exist(&[run(merge)]);
        right.all_exist(&[run(merge)], merge);
        assert!(right.wrong.is_empty(), "{:?}", right.wrong);
    }

    /// Prints counts, summary and violations. Returns a failure if there is a violation.
    pub fn conclude(self) -> ExitCode {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{what} {count}")).collect();
        println!("answers: {}", counts.join(", "));
        self.summary.iter().for_each(|line| println!("{line}"));
        if self.wrong.is_empty() {
            println!("no violations");
            return ExitCode::SUCCESS;
        }
        self.wrong.iter().for_each(|line| println!("VIOLATION: {line}"));
        ExitCode::FAILURE
    }
}
