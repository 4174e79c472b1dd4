//! The flags that say how a CloudEvent proves itself.

use clap::{Args, ValueEnum};

use crate::cluster::Cluster;
use crate::delivery::NetworkTrust;
use crate::delivery::token::TokenPolicy;
use crate::server::CloudEventsAuth;

/// How a CloudEvent proves itself, and whose tokens are enough.
#[derive(Debug, Clone, Args)]
pub(super) struct AuthArgs {
    /// How a CloudEvent proves itself: a signature like a webhook's, a token of the cluster, or the network.
    #[arg(long = "cloudevents-auth", env = "CLOUDEVENTS_AUTH", value_enum, default_value_t = Mode::Hmac, hide_env_values = true)]
    mode: Mode,
    /// The audience that tokens must be for, as in the Trigger's subscriber.
    #[arg(long = "oidc-audience", env = "OIDC_AUDIENCE", value_name = "AUDIENCE", hide_env_values = true)]
    audience: Option<String>,
    /// Whose tokens are taken: a subject such as `system:serviceaccount:NAMESPACE:NAME`, or a glob.
    #[arg(
        long = "oidc-subject",
        env = "OIDC_SUBJECT",
        value_name = "SUBJECT",
        value_delimiter = ',',
        hide_env_values = true
    )]
    subjects: Vec<String>,
    /// The issuer's name in tokens [default: the one that the cluster announces].
    #[arg(long = "oidc-issuer", env = "OIDC_ISSUER", value_name = "URL", hide_env_values = true)]
    issuer: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Hmac,
    Oidc,
    None,
}

impl AuthArgs {
    /// Whether nothing could be verified without a webhook secret.
    pub(super) fn needs_secret(&self) -> bool {
        self.mode == Mode::Hmac
    }

    /// Whether tokens have to be verified with the cluster's keys.
    pub(super) fn needs_cluster(&self) -> bool {
        self.mode == Mode::Oidc
    }

    /// Finds what is missing or means nothing, and warns of what is dangerous.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) fn check(&self) -> Result<(), String> {
        match self.mode {
            Mode::Oidc => return self.policy().map(drop),
            Mode::None => tracing::warn!(
                "--cloudevents-auth=none: whoever can reach this service can start builds with a CloudEvent; it must not \
                 be reachable from outside the cluster"
            ),
            Mode::Hmac => {}
        }
        if self.audience.is_some() || !self.subjects.is_empty() || self.issuer.is_some() {
            tracing::warn!(
                "--oidc-audience, --oidc-subject and --oidc-issuer mean nothing without --cloudevents-auth=oidc"
            );
        }
        Ok(())
    }

    /// What the server is to ask of a CloudEvent.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) fn cloud_events(&self, cluster: Option<&Cluster>) -> Result<CloudEventsAuth, String> {
        match (self.mode, cluster) {
            (Mode::Hmac, _) => Ok(CloudEventsAuth::Hmac),
            (Mode::None, _) => Ok(CloudEventsAuth::None(NetworkTrust::by_operator())),
            (Mode::Oidc, Some(cluster)) => {
                let issuer = Box::new(cluster.issuer(self.issuer.clone()));
                Ok(CloudEventsAuth::Oidc { policy: self.policy()?, issuer })
            }
            (Mode::Oidc, None) => Err("--cloudevents-auth=oidc needs a cluster that has issued the tokens".to_owned()),
        }
    }

    fn policy(&self) -> Result<TokenPolicy, String> {
        let Some(audience) = self.audience.as_deref().filter(|audience| !audience.is_empty()) else {
            return Err(
                "--cloudevents-auth=oidc needs --oidc-audience: the audience of the Trigger's subscriber; a token \
                        for somebody else must not be good here"
                    .to_owned(),
            );
        };
        if self.subjects.iter().all(String::is_empty) {
            return Err("--cloudevents-auth=oidc needs --oidc-subject: whose events start builds, for example \
                        system:serviceaccount:NAMESPACE:TRIGGER-oidc-eventing.knative.dev-trigger; every pod of the \
                        cluster can get some token"
                .to_owned());
        }
        TokenPolicy::new(audience, &self.subjects).map_err(|error| format!("--oidc-subject: {error}"))
    }
}
