//! A gRPC channel to the control plane, for xDS and for certificates alike.
//!
//! It connects when first used, and again after a failure, with the roots that are in the file at
//! that moment.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::roots::{self, RootsError};

/// For the TCP connection and the handshake, each.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How often an idle connection is probed, and how long an answer may take; Istio's values.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(10);
/// The port of `https` addresses that name none.
const HTTPS_PORT: u16 = 443;

/// A channel to `address` (`https://host:port`) whose server must have a certificate for that host
/// from a root in `roots_file`.
///
/// # Errors
/// When the address is not an `https` address with a host. Connecting happens later.
pub fn to_control_plane(address: &Uri, roots_file: PathBuf) -> Result<Channel, BadAddress> {
    let target = Target::from_uri(address)?;
    // tonic adds TLS of its own to `https` endpoints, with roots fixed once; so the endpoint is
    // dialled as `http` through the connector below, which always speaks TLS.
    let mut parts = address.clone().into_parts();
    parts.scheme = Some(tonic::codegen::http::uri::Scheme::HTTP);
    let dialled = Uri::from_parts(parts).map_err(|_| BadAddress { address: address.clone() })?;
    Ok(Endpoint::from(dialled)
        .origin(address.clone())
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_DEADLINE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(Connector { target: Arc::new(target), roots_file }))
}

/// The address of the control plane cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{address} is not of the form https://HOST:PORT, which the control plane's address must be")]
pub struct BadAddress {
    /// What was given.
    pub address: Uri,
}

#[derive(Debug)]
struct Target {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Target {
    fn from_uri(address: &Uri) -> Result<Self, BadAddress> {
        let bad = || BadAddress { address: address.clone() };
        let host = address.host().filter(|_| address.scheme_str() == Some("https")).ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
        if !matches!(address.path(), "" | "/") || address.query().is_some() {
            return Err(bad());
        }
        Ok(Self { host, port: address.port_u16().unwrap_or(HTTPS_PORT), name })
    }
}

#[derive(Clone)]
struct Connector {
    target: Arc<Target>,
    roots_file: PathBuf,
}

impl Connector {
    async fn connect(self) -> Result<TokioIo<TlsStream<TcpStream>>, ConnectError> {
        let Target { host, port, name } = &*self.target;
        let failed = |step, source| ConnectError::Io { step, host: host.clone(), port: *port, source };
        let config = roots::client_config(&self.roots_file).await?;
        let tcp = timeout(CONNECT_DEADLINE, TcpStream::connect((host.as_str(), *port)))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| failed(Step::Connect, source))?;
        tcp.set_nodelay(true).map_err(|source| failed(Step::Connect, source))?;
        let handshake = TlsConnector::from(config).connect(name.clone(), tcp);
        let tls = timeout(CONNECT_DEADLINE, handshake)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|source| failed(Step::Handshake, source))?;
        Ok(TokioIo::new(tls))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// Why there is no connection to the control plane.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error("{step} the control plane at {host}:{port} failed")]
    Io { step: Step, host: String, port: u16, source: io::Error },
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Connect,
    Handshake,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connect => "connecting to",
            Self::Handshake => "the TLS handshake with",
        })
    }
}
