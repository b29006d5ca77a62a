//! The one page of a Kubernetes API server by which an agent sees whether the mesh is installed. A double:
//! what the page says is the scenario's choice. That a real API server has such a page, and serves it to
//! any account, is checked on a real one.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::{Authority, Validity};
use crate::namespace::Namespace;
use crate::sandbox::WORK;

/// What is answered to `GET /apis`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apis {
    /// These groups.
    Groups(Vec<&'static str>),
    /// Nothing but a status.
    Status(u16),
}

impl Apis {
    /// Of a cluster with the mesh.
    pub fn installed() -> Self {
        Self::Groups(vec!["apps", "ambit.dev", "networking.k8s.io"])
    }

    /// Of a cluster without it.
    pub fn gone() -> Self {
        Self::Groups(vec!["apps", "networking.k8s.io"])
    }

    fn answer(&self) -> String {
        let (status, body) = match self {
            Self::Groups(names) => {
                let groups: Vec<_> = names.iter().map(|name| serde_json::json!({ "name": name })).collect();
                let list =
                    serde_json::json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups });
                (200, list.to_string())
            }
            Self::Status(status) => (*status, String::new()),
        };
        let length = body.len();
        format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
    }
}

/// The API server.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    apis: Arc<Mutex<Apis>>,
    asked: Arc<AtomicU64>,
}

impl ApiServer {
    /// Serves at `address` in `namespace`.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(namespace: &Namespace, address: SocketAddr, apis: Apis) -> Result<Self> {
        fs::write(token_path(), "the agent's token\n")?;
        let authority = Authority::generate("an API server")?;
        fs::write(root_path(), authority.certificate())?;
        let credentials = authority.issue(&address.ip().to_string(), Validity::Current)?;
        let chain = vec![CertificateDer::from_pem_slice(credentials.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes())?;
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        let listener = namespace.listen(address.port())?;
        let server = Self { address, apis: Arc::new(Mutex::new(apis)), asked: Arc::default() };
        let (apis, asked) = (Arc::clone(&server.apis), Arc::clone(&server.asked));
        thread::spawn(move || serve(&listener, &Arc::new(config), &apis, &asked));
        Ok(server)
    }

    /// The agent's arguments to ask here.
    pub fn arguments(&self) -> Vec<String> {
        let file = |path: PathBuf| path.display().to_string();
        [
            ("--uninstall-check", format!("https://{}", self.address)),
            ("--api-token-file", file(token_path())),
            ("--api-root-file", file(root_path())),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }

    /// Answers otherwise from now on.
    pub fn set(&self, apis: Apis) {
        *lock(&self.apis) = apis;
    }

    /// How often it was asked with the right token.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

fn serve(listener: &TcpListener, config: &Arc<ServerConfig>, apis: &Mutex<Apis>, asked: &AtomicU64) {
    while let Ok((stream, _)) = listener.accept() {
        // Who hangs up or speaks nonsense gets no answer.
        let _answered = answer(stream, config, apis, asked);
    }
}

fn answer(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    apis: &Mutex<Apis>,
    asked: &AtomicU64,
) -> Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, stream);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        request.extend(octet);
    }
    let request = String::from_utf8(request).context("a request in UTF-8")?.to_ascii_lowercase();
    let is_right = request.starts_with("get /apis http/1.1")
        && request.contains("authorization: bearer the agent's token");
    let text = if is_right {
        asked.fetch_add(1, Ordering::Relaxed);
        lock(apis).answer()
    } else {
        Apis::Status(401).answer()
    };
    stream.write_all(text.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}

fn token_path() -> PathBuf {
    Path::new(WORK).join("api-token")
}

fn root_path() -> PathBuf {
    Path::new(WORK).join("api-root.pem")
}

fn lock(apis: &Mutex<Apis>) -> MutexGuard<'_, Apis> {
    apis.lock().unwrap_or_else(PoisonError::into_inner)
}
