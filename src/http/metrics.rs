//! Metrics of deliveries and requests.

use std::time::Duration;

use prometheus::Gauge;

use super::outcome::Reason;
use crate::delivery::token::TokenError;
use crate::delivery::{Algorithm, EventKind, Proof, SignatureError};
use crate::telemetry::metrics::{Counters, Histograms, Labels, Registry};

/// Buckets of `http.server.request.duration` in OpenTelemetry's semantic conventions, seconds.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Labels of secrets by their position; those after the fourth share one.
const SECRETS: [&str; 5] = ["0", "1", "2", "3", "more"];
/// Events with a label of their own.
const EVENTS: [&str; 5] = ["pull_request", "push", "release", "ping", "other"];

/// A delivery by event and reason.
struct DeliveryLabels {
    event: &'static str,
    reason: Reason,
}

impl Labels<3> for DeliveryLabels {
    const NAMES: [&'static str; 3] = ["event", "outcome", "reason"];

    fn values(&self) -> [&str; 3] {
        [self.event, self.reason.outcome().as_str(), self.reason.code()]
    }

    fn all() -> Vec<Self> {
        let reasons = |event| Reason::ALL.iter().map(move |&reason| Self { event, reason });
        EVENTS.into_iter().flat_map(reasons).collect()
    }
}

/// A request by its status.
struct RequestLabels(Reason);

impl Labels<3> for RequestLabels {
    const NAMES: [&'static str; 3] = ["http_request_method", "http_route", "http_response_status_code"];

    fn values(&self) -> [&str; 3] {
        // OpenTelemetry's name for methods that are not told apart, and no route where none matches.
        let (method, route) = match self.0 {
            Reason::Path | Reason::EventPath => ("_OTHER", ""),
            Reason::Method => ("_OTHER", "/"),
            _ => ("POST", "/"),
        };
        [method, route, self.0.status_label()]
    }

    fn all() -> Vec<Self> {
        Reason::ALL.iter().copied().map(Self).collect()
    }
}

/// A verified signature, or why it is not.
struct SignatureLabels(Result<Algorithm, SignatureError>);

impl Labels<2> for SignatureLabels {
    const NAMES: [&'static str; 2] = ["algorithm", "result"];

    fn values(&self) -> [&str; 2] {
        match self.0 {
            Ok(algorithm) => [algorithm.as_str(), "ok"],
            Err(SignatureError::Missing) => ["none", "missing"],
            Err(SignatureError::Sha1Only) => ["sha1", "refused"],
            Err(SignatureError::Malformed(algorithm)) => [algorithm.as_str(), "malformed"],
            Err(SignatureError::Mismatch(algorithm)) => [algorithm.as_str(), "mismatch"],
        }
    }

    fn all() -> Vec<Self> {
        let of_algorithm = |algorithm| {
            [Ok(algorithm), Err(SignatureError::Malformed(algorithm)), Err(SignatureError::Mismatch(algorithm))]
        };
        let algorithms = [Algorithm::Sha256, Algorithm::Sha1].into_iter().flat_map(of_algorithm);
        algorithms.chain([Err(SignatureError::Missing), Err(SignatureError::Sha1Only)]).map(Self).collect()
    }
}

/// A token's result.
struct TokenLabels(&'static str);

impl Labels<1> for TokenLabels {
    const NAMES: [&'static str; 1] = ["result"];

    fn values(&self) -> [&str; 1] {
        [self.0]
    }

    fn all() -> Vec<Self> {
        TokenError::CODES.iter().copied().chain(["ok"]).map(Self).collect()
    }
}

/// The position of a secret.
struct SecretLabels(usize);

impl Labels<1> for SecretLabels {
    const NAMES: [&'static str; 1] = ["secret"];

    fn values(&self) -> [&str; 1] {
        [SECRETS.get(self.0).copied().unwrap_or("more")]
    }

    fn all() -> Vec<Self> {
        (0..SECRETS.len()).map(Self).collect()
    }
}

/// Metrics of deliveries and requests.
pub(super) struct HttpMetrics {
    deliveries: Counters<DeliveryLabels, 3>,
    requests: Histograms<RequestLabels, 3>,
    signatures: Counters<SignatureLabels, 2>,
    tokens: Counters<TokenLabels, 1>,
    secrets: Counters<SecretLabels, 1>,
    in_flight: Gauge,
    buffered: Gauge,
}

/// One request in flight, as long as it is held.
pub(super) struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl HttpMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let help = "Time from a request's first byte to its answer.";
        Self {
            deliveries: registry.counters("deliveries_total", "Deliveries by event, outcome and reason."),
            requests: registry.histograms("http_server_request_duration_seconds", help, &BUCKETS),
            signatures: registry.counters("signature_checks_total", "Signatures by algorithm and result."),
            tokens: registry.counters("token_checks_total", "Bearer tokens by result."),
            secrets: registry
                .counters("secret_matches_total", "Valid signatures by the secret's position among its team's."),
            in_flight: registry.gauge("in_flight", "Deliveries that are not answered yet."),
            buffered: registry.gauge("buffered_bytes", "Bytes of request bodies in memory."),
        }
    }

    /// Counts an answered delivery.
    pub(super) fn answered(&self, event: Option<&EventKind>, reason: Reason, took: Duration) {
        let named = EVENTS.into_iter().find(|name| event.is_some_and(|event| event.as_str() == *name));
        self.deliveries.with(&DeliveryLabels { event: named.unwrap_or("other"), reason }).inc();
        self.requests.with(&RequestLabels(reason)).observe(took.as_secs_f64());
    }

    /// Counts a verified signature.
    pub(super) fn signature_verified(&self, proof: Proof<'_>) {
        self.signatures.with(&SignatureLabels(Ok(proof.algorithm))).inc();
        self.secrets.with(&SecretLabels(proof.key.number())).inc();
    }

    /// Counts a signature that is missing, malformed or wrong.
    pub(super) fn signature_rejected(&self, error: SignatureError) {
        self.signatures.with(&SignatureLabels(Err(error))).inc();
    }

    /// Counts a token: `ok`, or the code of its error.
    pub(super) fn token(&self, result: &'static str) {
        self.tokens.with(&TokenLabels(result)).inc();
    }

    /// Counts a request as in flight until the guard is dropped.
    pub(super) fn begin_request(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Sets the bytes of request bodies in memory.
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 bytes")]
    pub(super) fn set_buffered(&self, bytes: u64) {
        self.buffered.set(bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Key, Keyring};
    use crate::team::Team;

    #[test]
    fn has_every_series_from_the_start() {
        let registry = Registry::default();
        let metrics = HttpMetrics::register(&registry);
        let names = |text: &str| -> Vec<String> {
            text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
        };
        let before = registry.to_text();
        metrics.answered(Some(&EventKind::PullRequest), Reason::Created, Duration::from_millis(7));
        metrics.answered(EventKind::parse("made_up").as_ref(), Reason::NotAMerge, Duration::ZERO);
        let keys = vec![Key::new(b"s"); 6];
        let keyring = Keyring::new([(&Team::TOP, &keys[..])]);
        let key = keyring.iter().last().expect("a key");
        metrics.signature_verified(Proof { algorithm: Algorithm::Sha1, key });
        metrics.signature_rejected(SignatureError::Sha1Only);
        metrics.token("ok");
        metrics.set_buffered(7);
        let in_flight = metrics.begin_request();
        let after = registry.to_text();
        assert_eq!(names(&before), names(&after));
        for line in [
            "github_trigger_deliveries_total{event=\"pull_request\",outcome=\"created\",reason=\"created\"} 1",
            "github_trigger_deliveries_total{event=\"other\",outcome=\"ignored\",reason=\"not_a_merge\"} 1",
            "github_trigger_deliveries_total{event=\"push\",outcome=\"ignored\",reason=\"not_a_merge\"} 0",
            "github_trigger_signature_checks_total{algorithm=\"sha1\",result=\"ok\"} 1",
            "github_trigger_secret_matches_total{secret=\"more\"} 1",
            "github_trigger_in_flight 1",
            "github_trigger_buffered_bytes 7",
        ] {
            assert!(after.contains(line), "{line}\n{after}");
        }
        drop(in_flight);
        assert!(registry.to_text().contains("github_trigger_in_flight 0"));
    }
}
