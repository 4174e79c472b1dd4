//! GitHub's log of deliveries, by delivery.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::github::api::Attempt;

/// One delivery: all attempts with one GUID.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    /// The last attempt; one that was accepted, if there is one.
    pub(super) attempt: Attempt,
    /// Time of the first attempt in the log.
    pub(super) first: Timestamp,
    /// Whether that was GitHub's own first attempt.
    pub(super) is_whole: bool,
}

impl Delivery {
    /// Whether one of its attempts was answered with a success.
    pub(super) fn is_accepted(&self) -> bool {
        self.attempt.is_accepted()
    }

    /// Whether it tells that a pull request was closed.
    pub(super) fn is_closing(&self) -> bool {
        self.attempt.event == "pull_request" && self.attempt.action.as_deref() == Some("closed")
    }
}

/// Groups attempts, newest first, by delivery. Oldest delivery first.
pub(super) fn group(attempts: Vec<Attempt>) -> Vec<Delivery> {
    let mut deliveries: HashMap<String, Delivery> = HashMap::new();
    for attempt in attempts {
        match deliveries.get_mut(&attempt.guid) {
            Some(delivery) => {
                delivery.first = delivery.first.min(attempt.delivered_at);
                delivery.is_whole |= !attempt.redelivery;
                if attempt.is_accepted() && !delivery.is_accepted() {
                    delivery.attempt = attempt;
                }
            }
            None => {
                let (first, is_whole) = (attempt.delivered_at, !attempt.redelivery);
                deliveries.insert(attempt.guid.clone(), Delivery { first, is_whole, attempt });
            }
        }
    }
    let mut deliveries: Vec<Delivery> = deliveries.into_values().collect();
    deliveries.sort_by(|one, other| (one.first, &one.attempt.guid).cmp(&(other.first, &other.attempt.guid)));
    deliveries
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn attempt(id: u64, guid: &str, minute: u8, status_code: u64) -> Attempt {
        let time = format!("2026-11-22T12:{minute:02}:00Z");
        let item = json!({"id": id, "guid": guid, "delivered_at": time, "redelivery": minute > 10, "status": "x",
            "status_code": status_code, "event": "pull_request", "action": "closed"});
        Attempt::deserialize(item).expect("an attempt")
    }

    #[test]
    fn a_delivery_is_accepted_by_one_of_its_attempts() {
        let log = vec![
            attempt(5, "a", 30, 503),
            attempt(4, "c", 20, 0),
            attempt(3, "a", 15, 201),
            attempt(2, "b", 9, 401),
            attempt(1, "a", 8, 503),
            attempt(0, "c", 7, 500),
        ];
        let deliveries = group(log);
        let told: Vec<_> =
            deliveries.iter().map(|d| (d.attempt.guid.as_str(), d.attempt.id, d.is_accepted())).collect();
        assert_eq!(told, [("c", 4, false), ("a", 3, true), ("b", 2, false)], "oldest first, with the last attempt");
        assert!(deliveries.iter().all(|delivery| delivery.is_whole));
        assert!(!group(vec![attempt(5, "a", 30, 503)])[0].is_whole, "a repetition alone");
        assert_eq!(deliveries[0].first, attempt(0, "c", 7, 0).delivered_at);
    }

    #[test]
    fn says_how_an_attempt_ended() {
        assert_eq!(attempt(1, "a", 1, 503).end(), "503");
        assert_eq!(attempt(1, "a", 1, 0).end(), "no answer (x)");
        for (code, accepted) in [(0, false), (199, false), (200, true), (299, true), (302, false), (400, false)] {
            assert_eq!(attempt(1, "a", 1, code).is_accepted(), accepted, "{code}");
        }
    }
}
