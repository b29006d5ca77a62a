//! Asks the control plane for certificates (`istio.v1.auth.IstioCertificateService`).
//!
//! One call is one attempt. Repeating it is `manager`'s business.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ambit_mesh::identity::SpiffeId;
use ambit_proto::istio::v1::auth::IstioCertificateRequest;
use ambit_proto::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::certificate::{CertificateRefused, WorkloadCertificate};
use crate::csr::{CertificateRequest, RequestFailed};
use crate::manager::Issuer;

/// For one attempt, connecting included.
const DEADLINE: Duration = Duration::from_secs(10);
/// The metadata key in which a node names the workload it asks for; Istio's.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// What a client needs to know of its CA and of itself.
#[derive(Debug, Clone)]
pub struct CaClientConfig {
    /// The file with this node's bearer token; read for every attempt, as tokens are rotated.
    pub token_file: PathBuf,
    /// The cluster's name (`clusterid` header).
    pub cluster_id: MetadataValue<Ascii>,
    /// The life to ask for; the CA may give less.
    pub certificate_ttl: Duration,
}

/// A client of the mesh's CA.
#[derive(Debug, Clone)]
pub struct CaClient {
    service: IstioCertificateServiceClient<Channel>,
    config: CaClientConfig,
}

impl CaClient {
    /// A client over `channel`; see [`crate::channel::to_control_plane`].
    pub fn new(channel: Channel, config: CaClientConfig) -> Self {
        Self { service: IstioCertificateServiceClient::new(channel), config }
    }

    /// Makes a key and obtains a certificate of `id` for it.
    ///
    /// # Errors
    /// See [`FetchError`]; nothing is retried here.
    pub async fn fetch(&self, id: &SpiffeId) -> Result<WorkloadCertificate, FetchError> {
        timeout(DEADLINE, self.attempt(id)).await.unwrap_or(Err(FetchError::Deadline))
    }

    async fn attempt(&self, id: &SpiffeId) -> Result<WorkloadCertificate, FetchError> {
        let CertificateRequest { key, pem } = CertificateRequest::new(id)?;
        let request = self.request(id, pem).await?;
        let answer = self.service.clone().create_certificate(request).await;
        let answer = answer.map_err(|status| FetchError::from_status(id, status))?.into_inner();
        Ok(WorkloadCertificate::from_issued(id, key, &answer.cert_chain, SystemTime::now())?)
    }

    async fn request(
        &self,
        id: &SpiffeId,
        csr: String,
    ) -> Result<Request<IstioCertificateRequest>, FetchError> {
        let validity_duration = i64::try_from(self.config.certificate_ttl.as_secs()).unwrap_or(i64::MAX);
        let identity = Value { kind: Some(Kind::StringValue(id.to_string())) };
        let metadata = Struct { fields: [(IMPERSONATED_IDENTITY.to_owned(), identity)].into() };
        let message = IstioCertificateRequest { csr, validity_duration, metadata: Some(metadata) };
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.authorization().await?);
        request.metadata_mut().insert("clusterid", self.config.cluster_id.clone());
        Ok(request)
    }

    async fn authorization(&self) -> Result<MetadataValue<Ascii>, FetchError> {
        let path = &self.config.token_file;
        let token = tokio::fs::read_to_string(path)
            .await
            .map_err(|source| FetchError::Token { path: path.clone(), source })?;
        let token = token.trim();
        let mut value = MetadataValue::try_from(format!("Bearer {token}"))
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| FetchError::TokenText { path: path.clone() })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Issuer for CaClient {
    type Error = FetchError;

    fn issue(&self, id: &SpiffeId) -> impl Future<Output = Result<WorkloadCertificate, FetchError>> + Send {
        self.fetch(id)
    }
}

/// Why an attempt brought no certificate.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The key or request could not be made.
    #[error(transparent)]
    Request(#[from] RequestFailed),
    /// The token cannot be read.
    #[error("cannot read this node's token from {path}: check that it is mounted", path = path.display())]
    Token {
        /// The token file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The token cannot be sent.
    #[error("{path} does not hold a token: it is empty or not one line of text", path = path.display())]
    TokenText {
        /// The token file.
        path: PathBuf,
    },
    /// The CA does not know the caller.
    #[error("the CA does not accept this node's token: check the token file and the node's name")]
    Unauthenticated {
        /// What it said.
        #[source]
        source: Box<Status>,
    },
    /// The CA does not give this identity to the caller.
    #[error("the CA refuses {id} to this node: check that a pod of that ServiceAccount runs here")]
    Denied {
        /// Who was asked for.
        id: SpiffeId,
        /// What it said.
        #[source]
        source: Box<Status>,
    },
    /// The call failed otherwise.
    #[error("the CA could not be asked for {id}: check the control plane's address, root file and health")]
    Call {
        /// Who was asked for.
        id: SpiffeId,
        /// What gRPC said.
        #[source]
        source: Box<Status>,
    },
    /// There was no answer in time.
    #[error("the CA did not answer within {} s: check that the control plane is reachable", DEADLINE.as_secs())]
    Deadline,
    /// The CA answered with something else than what was asked for.
    #[error("the CA's answer is not used")]
    Answer(#[from] CertificateRefused),
}

impl FetchError {
    fn from_status(id: &SpiffeId, status: Status) -> Self {
        let source = Box::new(status);
        if source.code() == Code::Unauthenticated {
            return Self::Unauthenticated { source };
        }
        if source.code() == Code::PermissionDenied {
            return Self::Denied { id: id.clone(), source };
        }
        Self::Call { id: id.clone(), source }
    }
}
