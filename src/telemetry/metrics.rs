//! Metrics in Prometheus' text form. Label values come from closed sets only; every series is there from the start, so
//! that a rate over the first event is right.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::levels;

/// The media type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Events of GitHub that are counted by name.
const EVENTS: [&str; 5] = ["pull_request", "push", "release", "ping", "other"];
/// Secrets that are counted by their place; what comes after them is `more`.
const SECRETS: [&str; 5] = ["0", "1", "2", "3", "more"];
/// The buckets of `http.server.request.duration` in OpenTelemetry's semantic conventions, seconds.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// What the API server can answer to a call; everything else is `other`.
const API_CODES: [u16; 14] = [200, 201, 400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504];

type CounterFamily<L> = Family<L, Counter<u64, AtomicU64>>;

macro_rules! labels {
    ($($name:ident { $($label:ident),+ })+) => {$(
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: &'static str),+ }
    )+};
}

labels! {
    DeliveryLabels { event, outcome, reason }
    SignatureLabels { algorithm, result }
    TokenLabels { result }
    SecretLabels { secret }
    ApiLabels { code }
    RequestLabels { http_request_method, http_route, http_response_status_code }
    ConfigLabels { config }
}

/// What is counted.
pub struct Metrics {
    registry: Registry,
    deliveries: CounterFamily<DeliveryLabels>,
    signatures: CounterFamily<SignatureLabels>,
    tokens: CounterFamily<TokenLabels>,
    secrets: CounterFamily<SecretLabels>,
    api: CounterFamily<ApiLabels>,
    requests: Family<RequestLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    buffered: Gauge,
    stale: Family<ConfigLabels, Gauge>,
    generation: Family<ConfigLabels, Gauge>,
    reloaded: Family<ConfigLabels, Gauge<f64, AtomicU64>>,
    statuses: Vec<(u16, &'static str)>,
}

/// What is known of a configuration that can change.
#[derive(Debug, Clone, Copy)]
pub struct ConfigState {
    /// Whether a change is refused.
    pub stale: bool,
    /// How often it was taken up, the start included.
    pub generation: u64,
    /// When it was last taken up.
    pub since: SystemTime,
}

/// One more request in flight, as long as it is held.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// All series at zero. `outcomes` are all pairs of outcome and reason, `statuses` all statuses of an answer, and
    /// `configs` all configurations that there will ever be.
    pub fn new(
        outcomes: &[(&'static str, &'static str)],
        statuses: Vec<(u16, &'static str)>,
        configs: &[&'static str],
    ) -> Self {
        let mut all = Registry::default();
        let requests: Family<RequestLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        all.register_with_unit(
            "http_server_request_duration",
            "From the first byte of a request to its answer",
            Unit::Seconds,
            requests.clone(),
        );
        let ours = all.sub_registry_with_prefix("github_trigger");
        let metrics = Self {
            deliveries: Family::default(),
            signatures: Family::default(),
            tokens: Family::default(),
            secrets: Family::default(),
            api: Family::default(),
            requests,
            in_flight: Gauge::default(),
            buffered: Gauge::default(),
            stale: Family::default(),
            generation: Family::default(),
            reloaded: Family::default(),
            statuses,
            registry: Registry::default(),
        };
        ours.register("deliveries", "Deliveries by what became of them", metrics.deliveries.clone());
        ours.register("signature_checks", "Signatures by hash and what they came to", metrics.signatures.clone());
        ours.register("token_checks", "Tokens by what they came to", metrics.tokens.clone());
        ours.register("secret_matches", "Signatures that matched, by the secret's place", metrics.secrets.clone());
        ours.register("api_calls", "Calls of the API server by its answer", metrics.api.clone());
        ours.register("in_flight", "Deliveries that are not answered yet", metrics.in_flight.clone());
        let buffered = metrics.buffered.clone();
        ours.register_with_unit("buffered", "Bodies in memory", Unit::Bytes, buffered);
        let help = "1 while a changed ConfigMap or Secret is refused and the last good one is in use";
        ours.register("config_stale", help, metrics.stale.clone());
        let help = "How often a ConfigMap or Secret was taken up, the start included";
        ours.register("config_generation", help, metrics.generation.clone());
        let reloaded = metrics.reloaded.clone();
        ours.register_with_unit("config_last_reload_timestamp", "When it was last taken up", Unit::Seconds, reloaded);
        ours.register("log_events", "Log lines by level", levels::Counters);
        ours.register("build", "The program's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let metrics = Self { registry: all, ..metrics };
        metrics.begin(outcomes, configs);
        metrics
    }

    /// Makes every series, at zero.
    fn begin(&self, outcomes: &[(&'static str, &'static str)], configs: &[&'static str]) {
        for event in EVENTS {
            for &(outcome, reason) in outcomes {
                drop(self.deliveries.get_or_create(&DeliveryLabels { event, outcome, reason }));
            }
        }
        for algorithm in ["sha256", "sha1"] {
            for result in ["ok", "malformed", "mismatch"] {
                drop(self.signatures.get_or_create(&SignatureLabels { algorithm, result }));
            }
        }
        drop(self.signatures.get_or_create(&SignatureLabels { algorithm: "sha1", result: "refused" }));
        drop(self.signatures.get_or_create(&SignatureLabels { algorithm: "none", result: "missing" }));
        for result in ["ok", "missing", "malformed", "unknown_key", "invalid", "subject"] {
            drop(self.tokens.get_or_create(&TokenLabels { result }));
        }
        for secret in SECRETS {
            drop(self.secrets.get_or_create(&SecretLabels { secret }));
        }
        for code in API_CODES.map(api_code).into_iter().chain(["other", "error"]) {
            drop(self.api.get_or_create(&ApiLabels { code }));
        }
        for &(_, code) in &self.statuses {
            drop(self.requests.get_or_create(&RequestLabels {
                http_request_method: "POST",
                http_route: "/",
                http_response_status_code: code,
            }));
        }
        for &config in configs {
            let labels = ConfigLabels { config };
            drop(self.stale.get_or_create(&labels));
            drop(self.generation.get_or_create(&labels));
            drop(self.reloaded.get_or_create(&labels));
        }
    }

    /// One more delivery.
    pub fn delivery(&self, event: Option<&str>, outcome: &'static str, reason: &'static str) {
        let named = EVENTS.into_iter().find(|name| event == Some(name));
        let labels = DeliveryLabels { event: named.unwrap_or("other"), outcome, reason };
        self.deliveries.get_or_create(&labels).inc();
    }

    /// A delivery's status, and how long it took.
    pub fn request(&self, status: u16, took: Duration) {
        let code = self.statuses.iter().find(|(code, _)| *code == status).map_or("other", |(_, text)| text);
        let labels = RequestLabels { http_request_method: "POST", http_route: "/", http_response_status_code: code };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A signature that was looked at; `secret` is the place of the one that matched.
    pub fn signature(&self, algorithm: &'static str, result: &'static str, secret: Option<usize>) {
        self.signatures.get_or_create(&SignatureLabels { algorithm, result }).inc();
        if let Some(place) = secret {
            let secret = SECRETS.get(place).copied().unwrap_or("more");
            self.secrets.get_or_create(&SecretLabels { secret }).inc();
        }
    }

    /// A token that was looked at.
    pub fn token(&self, result: &'static str) {
        self.tokens.get_or_create(&TokenLabels { result }).inc();
    }

    /// What counts the calls of the API server.
    pub fn api_calls(&self) -> ApiCalls {
        ApiCalls(self.api.clone())
    }

    /// One more delivery that is not answered yet.
    pub fn begin_request(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Bytes of bodies in memory, now.
    pub fn set_buffered(&self, bytes: u64) {
        self.buffered.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// What a configuration is like, now.
    pub fn set_config(&self, config: &'static str, state: ConfigState) {
        let labels = ConfigLabels { config };
        self.stale.get_or_create(&labels).set(state.stale.into());
        self.generation.get_or_create(&labels).set(i64::try_from(state.generation).unwrap_or(i64::MAX));
        let since = state.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.reloaded.get_or_create(&labels).set(since.as_secs_f64());
    }

    /// All series as text.
    pub fn encode(&self) -> String {
        let mut encoded = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut encoded, &self.registry);
        encoded
    }
}

/// Counts the calls of the API server by their answers.
#[derive(Debug, Clone)]
pub struct ApiCalls(CounterFamily<ApiLabels>);

impl ApiCalls {
    /// An answer, or none.
    pub fn count(&self, status: Option<u16>) {
        let code = status.map_or("error", api_code);
        self.0.get_or_create(&ApiLabels { code }).inc();
    }
}

impl Default for ApiCalls {
    /// Counts for nobody.
    fn default() -> Self {
        Self(Family::default())
    }
}

fn api_code(status: u16) -> &'static str {
    match status {
        200 => "200",
        201 => "201",
        400 => "400",
        401 => "401",
        403 => "403",
        404 => "404",
        409 => "409",
        413 => "413",
        422 => "422",
        429 => "429",
        500 => "500",
        502 => "502",
        503 => "503",
        504 => "504",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_there_from_the_start_and_no_other_comes() {
        let outcomes = [("created", "created"), ("ignored", "not_a_merge")];
        let metrics = Metrics::new(&outcomes, vec![(201, "201"), (200, "200")], &["templates"]);
        let names = |text: &str| -> Vec<String> {
            text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
        };
        let before = metrics.encode();
        metrics.delivery(Some("pull_request"), "created", "created");
        metrics.delivery(Some("made up"), "ignored", "not_a_merge");
        metrics.request(201, Duration::from_millis(7));
        metrics.signature("sha256", "ok", Some(1));
        metrics.signature("sha1", "ok", Some(99));
        metrics.token("ok");
        metrics.api_calls().count(Some(201));
        metrics.api_calls().count(Some(418));
        metrics.api_calls().count(None);
        let held = metrics.begin_request();
        metrics.set_buffered(7);
        metrics.set_config("templates", ConfigState { stale: true, generation: 2, since: SystemTime::UNIX_EPOCH });
        let after = metrics.encode();
        assert_eq!(names(&before), names(&after));
        drop(held);
        for line in [
            "github_trigger_deliveries_total{event=\"pull_request\",outcome=\"created\",reason=\"created\"} 1",
            "github_trigger_deliveries_total{event=\"other\",outcome=\"ignored\",reason=\"not_a_merge\"} 1",
            "github_trigger_deliveries_total{event=\"push\",outcome=\"ignored\",reason=\"not_a_merge\"} 0",
            "github_trigger_signature_checks_total{algorithm=\"sha256\",result=\"ok\"} 1",
            "github_trigger_secret_matches_total{secret=\"more\"} 1",
            "github_trigger_api_calls_total{code=\"other\"} 1",
            "github_trigger_api_calls_total{code=\"error\"} 1",
            "github_trigger_in_flight 1",
            "github_trigger_buffered_bytes 7",
            "github_trigger_config_stale{config=\"templates\"} 1",
            "github_trigger_config_generation{config=\"templates\"} 2",
            "github_trigger_log_events_total{level=\"error\"}",
            "github_trigger_build_info{version=",
            "http_server_request_duration_seconds_bucket{le=\"0.01\",http_request_method=\"POST\",http_route=\"/\",http_response_status_code=\"201\"} 1",
        ] {
            assert!(after.contains(line), "{line}\n{after}");
        }
        assert!(metrics.encode().contains("github_trigger_in_flight 0"));
    }
}
