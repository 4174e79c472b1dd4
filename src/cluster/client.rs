//! The way to the API server: kube's configuration, credentials and TLS, directly on hyper's client.
//!
//! kube's own `Client` hands each request to a task that it shares with all others, and asks for nothing to be sent at
//! once; a delivery that waits for its run waits for both.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::Config;
use kube::client::ConfigExt;
use thread_local::ThreadLocal;
use tokio::sync::RwLock;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceBuilder, ServiceExt};

use super::{CONNECT, ConfigError};

/// Sends requests with a path to the API server; cheap to clone, and clones share their connections.
pub(super) type Client = BoxCloneSyncService<Request<Full<Bytes>>, Response<Answer>, BoxError>;

/// An answer's body, as it arrives.
pub(super) type Answer = UnsyncBoxBody<Bytes, hyper::Error>;

/// A client for each thread, made when it first needs one: a connection belongs to the runtime that has opened it, and a
/// thread that waits for another one's connection waits for that thread, too.
pub(super) struct Clients {
    make: Box<dyn Fn() -> Client + Send + Sync>,
    made: ThreadLocal<Line>,
}

/// One thread's way to the API server.
pub(super) struct Line {
    pub(super) client: Client,
    /// Held by whoever opens the first connection.
    pub(super) opening: RwLock<()>,
}

impl Clients {
    pub(super) fn new(make: impl Fn() -> Client + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), made: ThreadLocal::new() }
    }

    /// The calling thread's.
    pub(super) fn mine(&self) -> &Line {
        self.made.get_or(|| Line { client: (self.make)(), opening: RwLock::default() })
    }
}

/// Clients for a configuration; nothing is sent yet.
///
/// # Errors
/// When a certificate, a token or the address cannot be used, or the API server is behind a proxy.
pub(super) fn clients(config: &Config) -> Result<Clients, ConfigError> {
    if let Some(proxy) = &config.proxy_url {
        return Err(ConfigError::Proxy(proxy.to_string()));
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    let connector = config.rustls_https_connector_with_connector(connector).map_err(Box::new)?;
    // The token is read again in one place for all.
    let layers = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(Box::new)?)
        .layer(config.extra_headers_layer().map_err(Box::new)?)
        .map_err(|error: legacy::Error| BoxError::from(error));
    Ok(Clients::new(move || {
        let client: legacy::Client<_, Full<Bytes>> =
            legacy::Client::builder(TokioExecutor::new()).build(connector.clone());
        let service = layers.service(client.map_response(|response| response.map(Incoming::boxed_unsync)));
        BoxCloneSyncService::new(service)
    }))
}
