//! The only place that knows Kubernetes: creating a run, the keys of its tokens, and a Knative Service.

mod attempt;
mod client;
mod exchange;
mod issuer;
mod services;

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::telemetry::metrics::ApiCalls;
use crate::template::PipelineRun;
use crate::trace::TraceContext;
use attempt::{Attempt, Mode, attempt};
use exchange::Api;
pub use issuer::{Issuer, KeysUnavailable};
pub use services::ServiceError;

/// Who we are in an object's `managedFields`.
const FIELD_MANAGER: &str = "github-trigger";
/// The API server is asked again after this, doubled each time up to [`MAX_PAUSE`], with jitter.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause that we choose; an API server may ask for more.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// One attempt may take this long. A hung connection must leave time for a second one within the deadline.
const ATTEMPT: Duration = Duration::from_millis(3500);
/// A connection on the cluster's network is made in milliseconds or not at all.
const CONNECT: Duration = Duration::from_secs(2);

/// A Kubernetes API server and who we are to it.
#[derive(Clone)]
pub struct Cluster {
    api: Api,
}

/// What became of a create; either way the run exists now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// It was created.
    Created,
    /// A run of this name was there: the same merge, delivered before.
    Existed,
}

/// Why a run does not exist, as far as we know. What the API server said goes to the log only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The object is not one that the API server takes; asking again helps nobody.
    #[error("the API server refuses the object: {0}")]
    Invalid(String),
    /// Not now, or not us; the delivery can be sent again.
    #[error("the API server did not create the run: {0}")]
    Unavailable(String),
}

/// Why there is no cluster to create runs in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Neither a kubeconfig nor a pod's service account.
    #[error("no Kubernetes to create runs in: {0}; run in a pod, set KUBECONFIG, or use --dry-run")]
    Infer(#[from] Box<kube::config::InferConfigError>),
    /// The client cannot be built from it.
    #[error("the Kubernetes configuration cannot be used: {0}")]
    Client(#[from] Box<kube::Error>),
    /// A proxy is in between, which is nothing that a pod has.
    #[error("the kubeconfig asks for the proxy {0}, and proxies to the API server are not supported")]
    Proxy(String),
}

impl Cluster {
    /// Reads the kubeconfig or the pod's service account, the usual way; nothing is sent yet. `calls` counts what is.
    ///
    /// Returns the cluster and the namespace that the configuration names.
    ///
    /// # Errors
    /// When there is no configuration or it cannot be used.
    pub async fn connect(calls: ApiCalls) -> Result<(Self, String), ConfigError> {
        let mut config = kube::Config::infer().await.map_err(Box::new)?;
        if config.cluster_url.scheme_str() == Some("http") {
            // There is no TLS to verify, but building a verifier fails on an image without certificates.
            config.accept_invalid_certs = true;
        }
        let namespace = config.default_namespace.clone();
        Ok((Self { api: Api::new(client::clients(&config)?, calls) }, namespace))
    }

    /// The cluster as the issuer of tokens; `name` is its name in them where it is not the one that it announces.
    pub fn issuer(&self, name: Option<String>) -> Issuer {
        Issuer::new(self.api.clone(), name)
    }

    /// Opens a connection, so that the first delivery does not wait for it; what it finds is only logged.
    pub async fn warm(&self) {
        match self.api.probe(Instant::now() + ATTEMPT).await {
            Ok(status) => tracing::debug!(status = status.as_u16(), "the API server answers"),
            Err(error) => tracing::warn!(reason = error, "the API server does not answer yet"),
        }
    }

    /// Creates a run, trying again until `until` on what may pass: lost connections, 429 and 5xx.
    ///
    /// Safe to repeat in every case, because the name is derived from the merge.
    ///
    /// # Errors
    /// When the run was not created, or it is not known.
    pub async fn create(
        &self,
        run: &PipelineRun,
        trace: Option<&TraceContext>,
        until: Instant,
    ) -> Result<Creation, CreateError> {
        let body = serde_json::to_vec(&run.object).map_err(|error| CreateError::Invalid(error.to_string()))?;
        let mut pause = FIRST_PAUSE;
        let mut last = "no time was left to ask it".to_owned();
        while Instant::now() < until {
            let end = until.min(Instant::now() + ATTEMPT);
            let asked_for = match attempt(&self.api, run, &body, Mode::Create, trace, end).await {
                Attempt::Done(creation) => return Ok(creation),
                Attempt::Invalid(message) => return Err(CreateError::Invalid(message)),
                Attempt::Refused(message) => return Err(CreateError::Unavailable(message)),
                Attempt::Later { message, after } => {
                    last = message;
                    after
                }
            };
            let pause_now = asked_for.unwrap_or_else(|| pause.mul_f64(0.5 + fastrand::f64() / 2.0));
            if Instant::now() + pause_now >= until {
                break;
            }
            tracing::debug!(run = run.name, reason = last, "asking the API server again");
            sleep(pause_now).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        Err(CreateError::Unavailable(last))
    }

    /// Asks the API server whether it would take a run; nothing is created.
    ///
    /// # Errors
    /// When it would not, or cannot be asked.
    pub async fn dry_run(&self, run: &PipelineRun) -> Result<(), CreateError> {
        let body = serde_json::to_vec(&run.object).map_err(|error| CreateError::Invalid(error.to_string()))?;
        match attempt(&self.api, run, &body, Mode::DryRun, None, Instant::now() + ATTEMPT).await {
            Attempt::Done(_) => Ok(()),
            Attempt::Invalid(message) => Err(CreateError::Invalid(message)),
            Attempt::Refused(message) | Attempt::Later { message, .. } => Err(CreateError::Unavailable(message)),
        }
    }
}
