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

/// Pause before what an alert counts happens once more.
const AGAIN: Duration = Duration::from_secs(10);

/// Lets one more of what an alert counts within a minute happen, until the alert is there: on a busy machine the first ones
/// may be older than a minute when the last one is seen. Panics with `what` if it is not there within `limit`.
pub async fn provoke(what: &str, limit: Duration, mut happen: impl AsyncFnMut(), is_there: impl AsyncFn() -> bool) {
    let end = Instant::now() + limit;
    loop {
        happen().await;
        let pause = Instant::now() + AGAIN;
        while Instant::now() < pause {
            if is_there().await {
                return;
            }
            assert!(Instant::now() < end, "{what} is not there after {limit:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }
}

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
}
