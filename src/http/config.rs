//! What the service is started with.

use std::time::Duration;

use super::response::ReplyEvents;
use super::sink::Sink;
use crate::delivery::token::TokenPolicy;
use crate::delivery::{NetworkTrust, SignaturePolicy};
use crate::kube::TokenIssuer;
use crate::mounted::reload::Reloading;
use crate::mounted::secrets::SecretSources;
use crate::telemetry::spans::Tracer;
use crate::template::TemplateSource;

/// Limits of one request, and of all together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of one body.
    pub(crate) max_body: u64,
    /// Bytes of all bodies in memory.
    pub(crate) max_buffered: u64,
    /// Time from a request's first byte to its answer.
    pub(crate) deadline: Duration,
    /// Age of a merge from which on it is ignored; zero takes merges of any age.
    pub(crate) max_merge_age: Duration,
}

/// What the service is started with.
pub(crate) struct Config {
    /// The webhook secrets.
    pub(crate) secrets: Reloading<SecretSources>,
    /// The templates.
    pub(crate) templates: Reloading<TemplateSource>,
    /// Accepted signature algorithms.
    pub(crate) signatures: SignaturePolicy,
    /// The proof that CloudEvents need.
    pub(crate) cloud_events: CloudEventsAuth,
    /// Replies to CloudEvents with CloudEvents, if set.
    pub(crate) reply_events: Option<ReplyEvents>,
    /// The tracer of deliveries.
    pub(crate) tracer: Tracer,
    /// The destination of runs.
    pub(crate) sink: Sink,
    /// Namespace of runs whose template names none.
    pub(crate) namespace: String,
    /// Limits of requests.
    pub(crate) limits: Limits,
}

/// The proof that a CloudEvent needs. A webhook needs its signature in every case.
pub(crate) enum CloudEventsAuth {
    /// A signature over its body, like a webhook's.
    Hmac,
    /// A token of the cluster.
    Oidc {
        /// Accepted audience and subjects.
        policy: TokenPolicy,
        /// The issuer's keys.
        issuer: Box<TokenIssuer>,
    },
    /// None: the network is trusted.
    None(NetworkTrust),
}
