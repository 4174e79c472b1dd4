//! A running Prometheus.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time::sleep;

use super::http::HttpClient;

/// The window in which the alerts count errors.
const WINDOW: Duration = Duration::from_secs(60);
/// Evaluations of rules are a second apart, and take longer on a busy machine.
const EVALUATED: Duration = Duration::from_secs(30);
/// Attempts to have four errors counted within the window.
const ATTEMPTS: usize = 3;

/// A Prometheus that something else has started and ends.
pub struct Prometheus {
    pub address: SocketAddr,
    /// File with its log.
    pub log: PathBuf,
}

impl Prometheus {
    /// The samples of an instant query; empty while Prometheus is starting.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        let path = format!("/api/v1/query?query={}", utf8_percent_encode(expression, NON_ALPHANUMERIC));
        let Ok(reply) = HttpClient::new().send(Method::GET, self.address, &path, &[], Vec::new()).await else {
            return Vec::new();
        };
        let answer: Value = serde_json::from_str(&reply.body).unwrap_or_default();
        assert!(answer["status"] == "success" || answer.is_null(), "{expression}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// The value of the first sample of an instant query.
    pub async fn number(&self, expression: &str) -> Option<f64> {
        self.query(expression).await.first()?["value"][1].as_str()?.parse().ok()
    }

    /// Waits until a query returns this value. Panics if it does not within `limit`.
    pub async fn wait_for(&self, expression: &str, wanted: f64, limit: Duration) {
        let end = Instant::now() + limit;
        loop {
            let found = self.number(expression).await;
            if found == Some(wanted) {
                return;
            }
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(Instant::now() < end, "{expression} is {found:?}, not {wanted}\n{}", log());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asserts that three errors fire no alert, and that the fourth does. `count` is the recorded number of errors within
    /// a minute, `alert` the labels of the alert in braces, and `fail` makes one error. An attempt whose errors are not all
    /// seen within a minute, on a busy machine, says nothing and is repeated.
    pub async fn assert_fires_at_the_fourth(&self, count: &str, alert: &str, mut fail: impl AsyncFnMut()) {
        for _ in 0..ATTEMPTS {
            let end = Instant::now() + WINDOW + EVALUATED;
            while self.number(count).await.unwrap_or(0.0) != 0.0 {
                assert!(Instant::now() < end, "{count} does not become 0");
                sleep(Duration::from_millis(100)).await;
            }
            let end = Instant::now() + WINDOW;
            for _ in 0..3 {
                fail().await;
            }
            if !self.reaches(count, 3.0, end).await {
                continue;
            }
            self.next_evaluation(count).await;
            let firing = self.query(&format!("ALERTS{alert}")).await;
            assert!(firing.is_empty(), "three errors fire an alert: {firing:?}");
            fail().await;
            if self.reaches(count, 4.0, end).await {
                self.next_evaluation(count).await;
                // It may be over again.
                let fired = self.query(&format!("last_over_time(ALERTS{alert}[1m])")).await;
                assert!(!fired.is_empty(), "four errors fire no alert");
                return;
            }
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        panic!("{count} was not 3 and then 4 within a minute in {ATTEMPTS} attempts\n{log}");
    }

    async fn reaches(&self, expression: &str, wanted: f64, end: Instant) -> bool {
        while Instant::now() < end {
            if self.number(expression).await == Some(wanted) {
                return true;
            }
            sleep(Duration::from_millis(100)).await;
        }
        false
    }

    /// Waits until a recorded expression is evaluated again: then the alerts of the evaluation before are decided.
    async fn next_evaluation(&self, recorded: &str) {
        let at = format!("timestamp({recorded})");
        let seen = self.number(&at).await;
        let end = Instant::now() + EVALUATED;
        while self.number(&at).await <= seen {
            assert!(Instant::now() < end, "{recorded} is not evaluated again");
            sleep(Duration::from_millis(100)).await;
        }
    }
}
