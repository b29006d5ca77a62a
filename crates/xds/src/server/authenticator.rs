//! Who a client is: the owner's answer, which may take a question to somebody else.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::resources::Viewer;

type Answer = Pin<Box<dyn Future<Output = Result<Known, Status>> + Send>>;
type Authenticate = dyn Fn(&MetadataMap, Option<SocketAddr>) -> Answer + Send + Sync;

/// A client that has proved who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The name of its node, or its own where it serves none.
    pub name: Arc<str>,
    /// What it may see.
    pub viewer: Viewer,
}

/// The owner's answer to who opens a stream.
#[derive(Clone)]
pub struct Authenticator(Arc<Authenticate>);

impl Authenticator {
    /// An authenticator that asks `authenticate` who a request's metadata proves its sender to be. It is called once for each stream, with the sender's address where
    /// the transport knows one.
    ///
    /// Its refusals reach the client as they are: `UNAUTHENTICATED` for one who is not known,
    /// `UNAVAILABLE` when that cannot be told now, so that the client tries again.
    pub fn new<F>(
        authenticate: impl Fn(&MetadataMap, Option<SocketAddr>) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Known, Status>> + Send + 'static,
    {
        Self(Arc::new(move |metadata, peer| Box::pin(authenticate(metadata, peer))))
    }

    pub(super) async fn authenticate(
        &self,
        metadata: &MetadataMap,
        peer: Option<SocketAddr>,
    ) -> Result<Known, Status> {
        (self.0)(metadata, peer).await
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authenticator")
    }
}
