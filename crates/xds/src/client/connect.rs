//! Opening a stream: TLS to the server's name, our token, the first requests.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use ambit_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::{Config, Stream};

/// TCP, TLS and HTTP/2 together have to be there within this time. Istio's agents wait as long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent server is asked for a sign of life this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Without a sign of life for this long, the server counts as gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets of one response: the first one holds the whole mesh.
const MAX_RESPONSE: usize = 200 << 20;

/// Requests that wait for the stream: the first ones, answers one at a time, and demand.
const REQUEST_QUEUE: usize = 16;

/// Opens a stream that begins with the given requests.
pub(super) async fn open(
    config: &Config,
    first_requests: Vec<DeltaDiscoveryRequest>,
) -> Result<Stream, ConnectError> {
    let channel = connect(config).await?;
    let (requests, outgoing) = mpsc::channel(REQUEST_QUEUE.max(first_requests.len()));
    for request in first_requests {
        // There is room for all of them, and the receiver lives.
        let _ = requests.send(request).await;
    }
    let mut call = Request::new(ReceiverStream::new(outgoing));
    call.metadata_mut().insert("authorization", bearer(&config.token_file).await?);
    call.metadata_mut().insert("clusterid", cluster_id(&config.cluster_id)?);
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
    let responses = client.delta_aggregated_resources(call).await.map_err(ConnectError::refused)?;
    Ok(Stream { requests, responses: responses.into_inner() })
}

async fn connect(config: &Config) -> Result<Channel, ConnectError> {
    let failed = |source| ConnectError::Connect { address: config.address.to_string(), source };
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(roots(&config.root_file).await?));
    let endpoint = Endpoint::from(config.address.clone())
        .tls_config(tls)
        .map_err(failed)?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    // The endpoint's own timeout ends with TCP.
    match tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
        Ok(channel) => channel.map_err(failed),
        Err(_) => Err(ConnectError::Timeout { address: config.address.to_string() }),
    }
}

async fn roots(path: &Path) -> Result<String, ConnectError> {
    let pem = read(path).await?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") {
        return Err(ConnectError::Roots { path: path.into() });
    }
    Ok(pem)
}

async fn bearer(path: &Path) -> Result<AsciiMetadataValue, ConnectError> {
    let token = read(path).await?;
    let invalid = || ConnectError::Token { path: path.into() };
    if token.trim().is_empty() {
        return Err(invalid());
    }
    let mut value: AsciiMetadataValue = format!("Bearer {}", token.trim()).parse().map_err(|_| invalid())?;
    value.set_sensitive(true);
    Ok(value)
}

async fn read(path: &Path) -> Result<String, ConnectError> {
    tokio::fs::read_to_string(path).await.map_err(|source| ConnectError::Read { path: path.into(), source })
}

fn cluster_id(id: &str) -> Result<AsciiMetadataValue, ConnectError> {
    id.parse().map_err(|_| ConnectError::ClusterId { id: id.into() })
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of roots holds none.
    #[error("{path} holds no PEM certificate: it should be the root that the server's certificate chains to", path = path.display())]
    Roots {
        /// The file.
        path: PathBuf,
    },
    /// The file of the token holds none.
    #[error("{path} does not hold a bearer token", path = path.display())]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// The cluster's name cannot be sent.
    #[error("cluster id {id:?} cannot be sent in a header: visible ASCII is allowed")]
    ClusterId {
        /// The name.
        id: String,
    },
    /// The server did not answer in time.
    #[error("{address} has not answered within {CONNECT_TIMEOUT:?}")]
    Timeout {
        /// The server.
        address: String,
    },
    /// There is no connection.
    #[error(
        "no connection to {address}: check that it is reachable and that its certificate chains to our roots and names this host"
    )]
    Connect {
        /// The server.
        address: String,
        /// Why.
        source: tonic::transport::Error,
    },
    /// The server does not want us.
    #[error("the server refused the stream: {code}: {message}")]
    Refused {
        /// gRPC's status code.
        code: tonic::Code,
        /// The server's words.
        message: String,
    },
}

impl ConnectError {
    /// The error with all its causes, for one line of text.
    pub fn with_causes(&self) -> String {
        let causes = std::iter::successors(self.source(), |&error| error.source());
        causes.fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    fn refused(status: tonic::Status) -> Self {
        Self::Refused { code: status.code(), message: status.message().into() }
    }
}
