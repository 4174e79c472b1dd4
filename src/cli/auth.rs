//! The flags for the authentication of CloudEvents.

use clap::{Args, ValueEnum};

use super::args::non_empty;
use crate::delivery::NetworkTrust;
use crate::delivery::token::TokenPolicy;
use crate::http::CloudEventsAuth;
use crate::kube::Cluster;

/// How CloudEvents are authenticated, and which tokens are accepted.
#[derive(Debug, Clone, Args)]
pub(super) struct AuthArgs {
    /// How CloudEvents are authenticated: by a signature like a webhook's, by a token of the cluster, or not at all.
    #[arg(long = "cloudevents-auth", env = "CLOUDEVENTS_AUTH", value_enum, default_value_t = Mode::Hmac, hide_env_values = true)]
    mode: Mode,
    /// Audience of accepted tokens, as in the Trigger's subscriber.
    #[arg(long = "oidc-audience", env = "OIDC_AUDIENCE", value_name = "AUDIENCE", hide_env_values = true)]
    audience: Option<String>,
    /// Subject of accepted tokens, such as `system:serviceaccount:NAMESPACE:NAME`, or a glob.
    #[arg(
        long = "oidc-subject",
        env = "OIDC_SUBJECT",
        value_name = "SUBJECT",
        value_delimiter = ',',
        hide_env_values = true
    )]
    subjects: Vec<String>,
    /// Name of the issuer in tokens [default: the one that the cluster announces].
    #[arg(long = "oidc-issuer", env = "OIDC_ISSUER", value_name = "URL", hide_env_values = true)]
    issuer: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Hmac,
    Oidc,
    None,
}

/// A flag that is missing or invalid.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuthError {
    #[error(
        "--cloudevents-auth=oidc needs --oidc-audience: the audience of the Trigger's subscriber; a token for another \
         service must not be accepted here"
    )]
    Audience,
    #[error(
        "--cloudevents-auth=oidc needs --oidc-subject: whose events start builds, for example \
         system:serviceaccount:NAMESPACE:TRIGGER-oidc-eventing.knative.dev-trigger, or a file `subjects` in a team's folder; \
         every pod of the cluster can get a token"
    )]
    Subject,
    #[error("--oidc-subject: {0}")]
    Glob(#[from] globset::Error),
    #[error("--cloudevents-auth=oidc needs a cluster that has issued the tokens")]
    Cluster,
}

impl AuthArgs {
    /// Whether nothing can be verified without a webhook secret.
    pub(super) fn needs_secret(&self) -> bool {
        self.mode == Mode::Hmac
    }

    /// Whether tokens are verified with the cluster's keys.
    pub(super) fn needs_cluster(&self) -> bool {
        self.mode == Mode::Oidc
    }

    /// Whether tokens are accepted, and no subject is named; then each team must name its own.
    pub(super) fn needs_subjects(&self) -> bool {
        self.mode == Mode::Oidc && self.subjects.iter().all(String::is_empty)
    }

    /// Checks that the flags are complete, and warns of dangerous or unused ones.
    /// Fails when a flag is missing or invalid.
    pub(super) fn check(&self) -> Result<(), AuthError> {
        match self.mode {
            Mode::Oidc => return self.policy().map(drop),
            Mode::None => tracing::warn!(
                "--cloudevents-auth=none: CloudEvents are not authenticated, and every client that can reach this service can \
                 start builds; it must not be reachable from outside the cluster"
            ),
            Mode::Hmac => {}
        }
        let given = [&self.audience, &self.issuer].into_iter().flatten().chain(&self.subjects);
        if given.into_iter().any(|value| !value.is_empty()) {
            tracing::warn!(
                "--oidc-audience, --oidc-subject and --oidc-issuer have no effect without --cloudevents-auth=oidc"
            );
        }
        Ok(())
    }

    /// The proof that the server asks of a CloudEvent.
    /// Fails when a flag is missing or invalid, or there is no cluster to verify tokens with.
    pub(super) fn cloud_events(&self, cluster: Option<&Cluster>) -> Result<CloudEventsAuth, AuthError> {
        match (self.mode, cluster) {
            (Mode::Hmac, _) => Ok(CloudEventsAuth::Hmac),
            (Mode::None, _) => Ok(CloudEventsAuth::None(NetworkTrust::from_operator())),
            (Mode::Oidc, Some(cluster)) => {
                let issuer = Box::new(cluster.token_issuer(non_empty(self.issuer.clone())));
                Ok(CloudEventsAuth::Oidc { policy: self.policy()?, issuer })
            }
            (Mode::Oidc, None) => Err(AuthError::Cluster),
        }
    }

    fn policy(&self) -> Result<TokenPolicy, AuthError> {
        let audience = self.audience.as_deref().filter(|audience| !audience.is_empty()).ok_or(AuthError::Audience)?;
        let subjects = self.subjects.iter().map(|subject| subject.trim().to_owned());
        let subjects: Vec<String> = subjects.filter(|subject| !subject.is_empty()).collect();
        Ok(TokenPolicy::new(audience, &subjects)?)
    }
}
