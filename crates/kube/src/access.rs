//! Which API server, and a client for it.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, Client, ConfigExt};
use kube::config::{InClusterError, InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Config, Error};
use tower::{BoxError, ServiceBuilder};

use crate::connector::Connector;
use crate::credentials::{self, CredentialsError};

/// How often an idle HTTP/2 connection is probed, and how long the answer may take. A watch on a
/// connection that died in silence is noticed after both.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(10);

/// Where the API server's address and our credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The ServiceAccount that Kubernetes mounts into the pod.
    InCluster,
    /// A kubeconfig file; without a path that of `KUBECONFIG`, or `~/.kube/config`.
    Kubeconfig {
        /// The file.
        file: Option<PathBuf>,
        /// One of its contexts; without it the current one.
        context: Option<String>,
    },
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// This is no pod, or its ServiceAccount is not mounted.
    #[error("this is not a pod with a ServiceAccount token: name a kubeconfig file, or run in a cluster")]
    InCluster(#[source] InClusterError),
    /// The file cannot be used.
    #[error("the kubeconfig file cannot be used: check its path and its current context")]
    Kubeconfig(#[source] KubeconfigError),
    /// Neither a file nor a pod.
    #[error("no Kubernetes cluster is configured: name a kubeconfig file, or run in a cluster")]
    Nowhere(#[source] Box<InferConfigError>),
    /// The credentials it names cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The credentials cannot be sent.
    #[error("the credentials for the API server cannot be used")]
    Unusable(#[source] Box<Error>),
}

/// A client for the API server. It connects when first used, and again after a failure.
///
/// # Errors
/// When the configuration or the credentials cannot be read.
pub async fn connect(access: &Access) -> Result<Client, ConnectError> {
    let config = configuration(access).await?;
    let tls = credentials::client_config(&config)?;
    let http = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(KEEP_ALIVE_DEADLINE)
        .http2_keep_alive_while_idle(true)
        .build::<_, Body>(Connector::new(tls, config.tls_server_name.clone()));
    let unusable = |error| ConnectError::Unusable(Box::new(error));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(unusable)?)
        .layer(config.extra_headers_layer().map_err(unusable)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

async fn configuration(access: &Access) -> Result<Config, ConnectError> {
    match access {
        Access::InCluster => Config::incluster().map_err(ConnectError::InCluster),
        Access::Kubeconfig { file: Some(file), context } => {
            let file = Kubeconfig::read_from(file).map_err(ConnectError::Kubeconfig)?;
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            Config::from_custom_kubeconfig(file, &options).await.map_err(ConnectError::Kubeconfig)
        }
        Access::Kubeconfig { file: None, context: None } => {
            Config::infer().await.map_err(|error| ConnectError::Nowhere(Box::new(error)))
        }
        Access::Kubeconfig { file: None, context } => {
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            Config::from_kubeconfig(&options).await.map_err(ConnectError::Kubeconfig)
        }
    }
}
