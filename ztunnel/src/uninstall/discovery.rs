//! Asking the API server which API groups it serves, with the token of the agent's own ServiceAccount.
//!
//! Any authenticated account may ask (`system:discovery`): the agent needs no role for it. The token is
//! used for nothing else.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ambit_identity::roots::{self, RootsError};
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::inquiry::{Finding, finding};

/// Whom to ask, and with what.
#[derive(Clone, Debug)]
pub struct Discovery {
    host: String,
    port: u16,
    token_file: PathBuf,
    root_file: PathBuf,
}

/// The API server's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{address:?} is not of the form https://HOST:PORT, which the API server's address must be")]
pub struct BadAddress {
    /// What was given.
    pub address: String,
}

/// Why the API server was not asked.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("the token in {}: {source}", path.display())]
    Token { path: PathBuf, source: io::Error },
    #[error("the token in {} has characters that no header may have", path.display())]
    TokenText { path: PathBuf },
    #[error(transparent)]
    Roots(#[from] RootsError),
    #[error("{host} is no name that a certificate can have")]
    Name { host: String },
    #[error("no connection: {0}")]
    Connection(#[from] io::Error),
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("no request: {0}")]
    Request(#[from] http::Error),
    #[error("no whole answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

impl Discovery {
    /// The API server at `https://HOST:PORT`.
    ///
    /// # Errors
    /// When the address is something else.
    pub fn new(address: &str, token_file: PathBuf, root_file: PathBuf) -> Result<Self, BadAddress> {
        let bad = || BadAddress { address: address.to_owned() };
        let uri: Uri = address.parse().map_err(|_| bad())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(bad)?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(HTTPS_PORT), token_file, root_file })
    }

    /// Who is asked, for messages.
    pub fn server(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Asks once.
    pub async fn ask(&self) -> Finding {
        let answer = timeout(DEADLINE, self.groups()).await.unwrap_or(Err(AskError::Timeout));
        match answer {
            Ok((status, body)) => finding(status.as_u16(), &body),
            Err(error) => Finding::Unknown(error.to_string()),
        }
    }

    async fn groups(&self) -> Result<(StatusCode, Bytes), AskError> {
        let request = Request::get("/apis")
            .header(HOST, self.server())
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, self.authorization().await?)
            .body(Empty::<Bytes>::new())?;
        let mut config = ClientConfig::clone(&*roots::client_config(&self.root_file).await?);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(self.host.clone())
            .map_err(|_| AskError::Name { host: self.host.clone() })?;
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let tls = TlsConnector::from(std::sync::Arc::new(config)).connect(name, tcp).await?;
        let (mut sender, connection) = handshake(TokioIo::new(tls)).await?;
        let answer = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_OCTETS).collect().await.map_err(AskError::Body)?;
            Ok((head.status, body.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            // What it has delivered before its end is still to be read.
            ended = connection => {
                ended?;
                answer.await
            }
        }
    }

    /// The token is read each time: the kubelet replaces it.
    async fn authorization(&self) -> Result<HeaderValue, AskError> {
        let path = || self.token_file.clone();
        let token = tokio::fs::read_to_string(&self.token_file)
            .await
            .map_err(|source| AskError::Token { path: path(), source })?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
            .map_err(|_| AskError::TokenText { path: path() })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// For one question, connection and answer.
const DEADLINE: Duration = Duration::from_secs(3);

/// Of the answer. A cluster with a thousand groups sends a quarter of it.
const MAX_OCTETS: usize = 1024 * 1024;

const HTTPS_PORT: u16 = 443;
