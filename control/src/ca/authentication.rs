//! Who calls, for xDS and for certificates alike.
//!
//! It tells "nobody that is known" from "that cannot be told now": on the latter a proxy tries again
//! with what it has. Calls whose token is not known already are counted by address, and an address
//! that makes too many of them is not looked at any more for a while.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::grant::Caller;
use super::tokens::{self, NodeTokens, Unauthenticated};
use crate::kube::token_review::decide::Refusal;
use crate::kube::token_review::{CannotTell, NoCaller, TokenReviews};
use crate::limits::buckets::{Buckets, Rate};

/// Calls of one address with a token that is not known. Several nodes may share an address, behind a
/// gateway; each of them is unknown once a minute.
const ATTEMPTS: Rate = Rate { burst: 100, every: Duration::from_millis(50) };

/// How callers prove who they are.
#[derive(Clone, Debug)]
pub enum Proof {
    /// By the token of their node, which control has made.
    NodeTokens(watch::Receiver<Arc<NodeTokens>>),
    /// By the token of their ServiceAccount, which the API server has made.
    TokenReviews(Arc<TokenReviews>),
}

/// Knows callers. Clones count together.
#[derive(Clone, Debug)]
pub struct Authentication {
    proof: Proof,
    attempts: Arc<Mutex<Buckets<Option<IpAddr>>>>,
}

impl Authentication {
    /// Callers are known by `proof`.
    pub fn by(proof: Proof) -> Self {
        Self { proof, attempts: Arc::new(Mutex::new(Buckets::new(ATTEMPTS))) }
    }

    /// The caller whose token is in the `authorization` metadata of a call from `peer`.
    ///
    /// # Errors
    /// When there is none, it is nobody's, or that cannot be told now.
    pub fn caller(
        &self,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
    ) -> impl Future<Output = Result<Caller, NotAuthenticated>> + Send + use<> {
        let (this, token) = (self.clone(), tokens::bearer(metadata).map(str::to_owned));
        let peer = peer.map(|peer| peer.ip().to_canonical());
        async move {
            let token = match token {
                Ok(token) => token,
                Err(none) => return Err(this.attempt(peer).err().unwrap_or_else(|| none.into())),
            };
            let known = this.known(&token);
            if let Some(Ok(caller)) = known {
                return Ok(caller);
            }
            this.attempt(peer)?;
            match (known, &this.proof) {
                (Some(refused), _) => refused,
                (None, Proof::NodeTokens(_)) => Err(Unauthenticated::Unknown.into()),
                (None, Proof::TokenReviews(reviews)) => Ok(reviews.ask(&token, peer).await?),
            }
        }
    }

    /// What is known of a token without asking anybody.
    fn known(&self, token: &str) -> Option<Result<Caller, NotAuthenticated>> {
        match &self.proof {
            Proof::NodeTokens(known) => known.borrow().caller(token).map(Ok),
            Proof::TokenReviews(reviews) => {
                reviews.known(token).map(|known| known.map_err(|refusal| NoCaller::from(refusal).into()))
            }
        }
    }

    fn attempt(&self, peer: Option<IpAddr>) -> Result<(), NotAuthenticated> {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.admit(&peer, Instant::now()).then_some(()).ok_or(NotAuthenticated::TooManyAttempts)
    }
}

/// Why a caller is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthenticated {
    /// It has not shown a token that counts.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// The API server, or the state of the cluster, says that the token does not count.
    #[error(transparent)]
    Refused(Refusal),
    /// Whether the token counts cannot be told now.
    #[error(transparent)]
    CannotTell(CannotTell),
    /// The address has shown too many tokens that do not count.
    #[error("too many calls of this address have shown tokens that are not known: try again later")]
    TooManyAttempts,
}

impl NotAuthenticated {
    /// What gRPC calls it.
    pub fn code(&self) -> Code {
        match self {
            Self::Unauthenticated(_) | Self::Refused(_) => Code::Unauthenticated,
            Self::CannotTell(_) => Code::Unavailable,
            Self::TooManyAttempts => Code::ResourceExhausted,
        }
    }
}

impl From<NoCaller> for NotAuthenticated {
    fn from(error: NoCaller) -> Self {
        match error {
            NoCaller::Refused(refusal) => Self::Refused(refusal),
            NoCaller::CannotTell(why) => Self::CannotTell(why),
        }
    }
}

impl From<NotAuthenticated> for Status {
    fn from(error: NotAuthenticated) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
