//! `istio.v1.auth.IstioCertificateService`: the shell around the three gates.
//!
//! Every certificate is logged, with who asked for whom, and refusals as far as they do not flood the
//! log; neither tokens nor requests are. It owns how much of the signing one caller can have.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant, SystemTime};

use ambit_identity::ca_client::IMPERSONATED_IDENTITY;
use ambit_mesh::identity::{InvalidSpiffeId, SpiffeId};
use ambit_proto::istio::v1::auth::istio_certificate_service_server::{
    IstioCertificateService, IstioCertificateServiceServer,
};
use ambit_proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::Struct;
use prost_types::value::Kind;
use tokio::sync::watch;
use tokio::task::{JoinError, spawn_blocking};
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};

use super::authentication::{Authentication, NotAuthenticated};
use super::authority::{Authority, IssueError, Issued};
use super::grant::{Caller, NodeIdentities, NotGranted, authorize};
use super::key_proof::{ProvenKey, RequestRefused};
use super::lifetime::Lifetimes;
use crate::limits::buckets::{Buckets, Rate};
use crate::limits::turns::{QueueIsFull, Turns};
use crate::telemetry::{self, Answered};

/// The longest request that is read, in octets: a CSR of the longest kind and some room.
const LONGEST_MESSAGE: usize = 32 * 1024;

/// Certificates for one caller. A node of 500 ServiceAccounts that has lost all of them gets them at
/// once; renewing those of an hour then takes one in four seconds.
const CERTIFICATES: Rate = Rate { burst: 500, every: Duration::from_millis(50) };

/// Requests of one caller that wait to be signed.
const WAITING_PER_CALLER: usize = 128;

/// Refusals that are told in the log, for each caller or address. Metrics count all of them.
const TOLD: Rate = Rate { burst: 10, every: Duration::from_secs(5) };

/// The certificate service of the mesh.
#[derive(Debug)]
pub struct CertificateService {
    authority: watch::Receiver<Arc<Authority>>,
    authentication: Authentication,
    identities: watch::Receiver<Arc<NodeIdentities>>,
    lifetimes: Lifetimes,
    asked_by: Mutex<Buckets<Caller>>,
    signing: Turns<Caller>,
    told: Mutex<Buckets<Teller>>,
}

impl CertificateService {
    /// A service that signs with `authority`, for callers known by `authentication`, what
    /// `identities` says runs on their nodes.
    pub fn new(
        authority: watch::Receiver<Arc<Authority>>,
        authentication: Authentication,
        identities: watch::Receiver<Arc<NodeIdentities>>,
        lifetimes: Lifetimes,
    ) -> Self {
        Self {
            authority,
            authentication,
            identities,
            lifetimes,
            asked_by: Mutex::new(Buckets::new(CERTIFICATES)),
            signing: Turns::new(signers(), WAITING_PER_CALLER),
            told: Mutex::new(Buckets::new(TOLD)),
        }
    }

    /// The service as tonic serves it, with its limits.
    pub fn into_server(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(LONGEST_MESSAGE)
    }

    async fn answer(
        &self,
        asked: &mut Asked,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Issued, Refused> {
        let caller = self.authentication.caller(request.metadata(), asked.peer).await?;
        asked.caller = Some(caller.clone());
        if !lock(&self.asked_by).admit(&caller, Instant::now()) {
            return Err(Refused::TooMany);
        }
        let message = request.into_inner();
        let identity = requested_identity(message.metadata.as_ref())?;
        asked.identity = Some(identity.clone());
        let grant = authorize(&caller, &identity, &self.identities.borrow())?;
        let turn = self.signing.next(&caller).await.map_err(|QueueIsFull| Refused::TooMany)?;
        let (authority, lifetimes) = (self.authority.borrow().clone(), self.lifetimes);
        let signed = spawn_blocking(move || {
            // One who has given up still holds the turn until the work is done.
            let _turn = turn;
            let key = ProvenKey::from_csr(&message.csr, &identity)?;
            let (now, ttl) = (SystemTime::now(), message.validity_duration);
            Ok(authority.issue(grant, &key, ttl, &lifetimes, now, &mut rand::rng())?)
        });
        signed.await.map_err(Refused::Died)?
    }

    /// Whether the log should tell of this refusal.
    fn is_told(&self, asked: &Asked) -> bool {
        let teller = match &asked.caller {
            Some(caller) => Teller::Caller(caller.clone()),
            None => Teller::Address(asked.peer.map(|peer| peer.ip())),
        };
        lock(&self.told).admit(&teller, Instant::now())
    }
}

/// Who is told of in the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Teller {
    Caller(Caller),
    Address(Option<IpAddr>),
}

/// Threads that sign. One processor is left to those who are served otherwise.
fn signers() -> usize {
    available_parallelism().map_or(1, |processors| processors.get().saturating_sub(1).max(1))
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let mut asked = Asked { peer: request.remote_addr(), ..Asked::default() };
        match self.answer(&mut asked, request).await {
            Ok(issued) => {
                telemetry::certificate_answered(Answered::Issued);
                asked.log_issued(&issued);
                Ok(Response::new(IstioCertificateResponse { cert_chain: issued.chain }))
            }
            Err(refused) => {
                telemetry::certificate_answered(refused.answered());
                if self.is_told(&asked) {
                    asked.log_refused(&refused);
                }
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
    NotAuthenticated(#[from] NotAuthenticated),
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
    #[error("this caller asks for more certificates than any node needs: try again later")]
    TooMany,
    #[error("the thread that signs has died")]
    Died(#[source] JoinError),
}

impl Refused {
    fn code(&self) -> Code {
        match self {
            Self::NotAuthenticated(error) => error.code(),
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
            Self::Issue(_) | Self::Died(_) => Code::Internal,
            Self::TooMany => Code::ResourceExhausted,
        }
    }
}

impl Refused {
    fn answered(&self) -> Answered {
        match self {
            Self::NotAuthenticated(NotAuthenticated::Unauthenticated(_) | NotAuthenticated::Refused(_)) => {
                Answered::Unauthenticated
            }
            Self::NotAuthenticated(NotAuthenticated::CannotTell(_)) => Answered::CannotTell,
            Self::NotAuthenticated(NotAuthenticated::TooManyAttempts) | Self::TooMany => Answered::TooMany,
            Self::NoIdentity | Self::Identity(_) | Self::NotGranted(_) | Self::Request(_) => {
                Answered::Refused
            }
            Self::Issue(_) | Self::Died(_) => Answered::Failed,
        }
    }
}

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        Self::new(refused.code(), refused.to_string())
    }
}

/// A panic elsewhere leaves whole values behind: every step ends before the next begins.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn requested_identity(metadata: Option<&Struct>) -> Result<SpiffeId, Refused> {
    let value = metadata.and_then(|metadata| metadata.fields.get(IMPERSONATED_IDENTITY));
    let Some(Kind::StringValue(text)) = value.and_then(|value| value.kind.as_ref()) else {
        return Err(Refused::NoIdentity);
    };
    Ok(text.parse()?)
}

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;
