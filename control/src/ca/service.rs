//! `istio.v1.auth.IstioCertificateService`: the shell around the three gates.
//!
//! Every answer is logged once, with who asked for whom; neither tokens nor requests are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ambit_identity::ca_client::IMPERSONATED_IDENTITY;
use ambit_mesh::identity::{InvalidSpiffeId, SpiffeId};
use ambit_proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use ambit_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::Struct;
use prost_types::value::Kind;
use tokio::sync::watch;
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};

use super::authority::{Authority, IssueError, Issued};
use super::grant::{Caller, NodeIdentities, NotGranted, authorize};
use super::key_proof::{ProvenKey, RequestRefused};
use super::lifetime::Lifetimes;
use super::tokens::{NodeTokens, Unauthenticated};

/// The longest request that is read, in octets: a CSR of the longest kind and some room.
const LONGEST_MESSAGE: usize = 32 * 1024;

/// The certificate service of the mesh.
#[derive(Debug)]
pub struct CertificateService {
    /// Who signs.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// Who may call.
    pub tokens: watch::Receiver<Arc<NodeTokens>>,
    /// What runs where.
    pub identities: watch::Receiver<Arc<NodeIdentities>>,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
}

impl CertificateService {
    /// The service as tonic serves it, with its limits.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(LONGEST_MESSAGE)
    }

    fn answer(
        &self,
        asked: &mut Asked,
        request: &Request<IstioCertificateRequest>,
    ) -> Result<Issued, Refused> {
        let caller = self.tokens.borrow().authenticate(request.metadata())?;
        asked.caller = Some(caller.clone());
        let message = request.get_ref();
        let identity = requested_identity(message.metadata.as_ref())?;
        asked.identity = Some(identity.clone());
        let grant = authorize(&caller, &identity, &self.identities.borrow())?;
        let key = ProvenKey::from_csr(&message.csr, &identity)?;
        let (now, ttl) = (SystemTime::now(), message.validity_duration);
        Ok(self.authority.borrow().issue(grant, &key, ttl, &self.lifetimes, now, &mut rand::rng())?)
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let mut asked = Asked { peer: request.remote_addr(), ..Asked::default() };
        match self.answer(&mut asked, &request) {
            Ok(issued) => {
                asked.log_issued(&issued);
                Ok(Response::new(IstioCertificateResponse { cert_chain: issued.chain }))
            }
            Err(refused) => {
                asked.log_refused(&refused);
                Err(refused.into())
            }
        }
    }
}

/// What is known of a call, for the log.
#[derive(Default)]
struct Asked {
    peer: Option<SocketAddr>,
    caller: Option<Caller>,
    identity: Option<SpiffeId>,
}

impl Asked {
    fn log_issued(&self, issued: &Issued) {
        info!(
            src.addr = self.peer.map(tracing::field::display),
            caller.node = self.caller.as_ref().map(Caller::node),
            identity = self.identity.as_ref().map(tracing::field::display),
            serial = issued.serial,
            not_after = %time::OffsetDateTime::from(issued.not_after),
            "certificate issued"
        );
    }

    fn log_refused(&self, refused: &Refused) {
        warn!(
            src.addr = self.peer.map(tracing::field::display),
            caller.node = self.caller.as_ref().map(Caller::node),
            identity = self.identity.as_ref().map(tracing::field::display),
            error = refused as &dyn std::error::Error,
            "certificate refused"
        );
    }
}

/// Why a call brings no certificate.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    #[error("the request's metadata has no text {IMPERSONATED_IDENTITY}: name the workload there")]
    NoIdentity,
    #[error(transparent)]
    Identity(#[from] InvalidSpiffeId),
    #[error(transparent)]
    NotGranted(#[from] NotGranted),
    #[error(transparent)]
    Request(#[from] RequestRefused),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Refused {
    fn code(&self) -> Code {
        match self {
            Self::Unauthenticated(_) => Code::Unauthenticated,
            Self::NotGranted(_) => Code::PermissionDenied,
            // A CSR that names another identity asks for what was not granted.
            Self::Request(RequestRefused::OtherName { .. }) => Code::PermissionDenied,
            Self::NoIdentity
            | Self::Identity(_)
            | Self::Request(
                RequestRefused::TooLong { .. }
                | RequestRefused::Unreadable
                | RequestRefused::Key
                | RequestRefused::NotProven,
            ) => Code::InvalidArgument,
            Self::Issue(_) => Code::Internal,
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        Self::new(refused.code(), refused.to_string())
    }
}

fn requested_identity(metadata: Option<&Struct>) -> Result<SpiffeId, Refused> {
    let value = metadata.and_then(|metadata| metadata.fields.get(IMPERSONATED_IDENTITY));
    let Some(Kind::StringValue(text)) = value.and_then(|value| value.kind.as_ref()) else {
        return Err(Refused::NoIdentity);
    };
    Ok(text.parse()?)
}

#[cfg(test)]
mod tests;
