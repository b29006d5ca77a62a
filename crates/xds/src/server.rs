//! The gRPC shell around [`Subscriber`](crate::subscriber::Subscriber)s: `AggregatedDiscoveryService`.
//!
//! Who may connect is the owner's answer ([`Authenticator`]), what there is to send the owner's
//! generation of [`Resources`]; what each client is sent is decided in [`crate::subscriber`].

mod authenticator;
mod registry;
mod standing;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use ambit_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub use authenticator::{Authenticator, Known};
pub use registry::{Programmed, SubscriberStatus, Subscribers};
pub use standing::{Counts, Proxy, Standing};

use crate::ResourceType;
use crate::resources::Resources;

/// A silent client is asked for a sign of life this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Without a sign of life for this long, the client counts as gone.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets of one request: the first one can declare the name and version of everything.
const MAX_REQUEST: usize = 64 << 20;

/// At most one response of each type is unanswered, and one error ends the stream: never full.
const RESPONSE_QUEUE: usize = ResourceType::ALL.len() + 1;

/// The service. Register it with a [`transport`] beside others.
#[derive(Debug)]
pub struct DiscoveryService {
    resources: watch::Receiver<Arc<Resources>>,
    authenticator: Authenticator,
    subscribers: Subscribers,
}

impl DiscoveryService {
    /// A service of the generations that come through the channel.
    ///
    /// The channel's first value has to be a whole configuration: clients that come back are told
    /// to remove whatever is not in it. Streams end when the sender is dropped.
    pub fn new(resources: watch::Receiver<Arc<Resources>>, authenticator: Authenticator) -> Self {
        Self { resources, authenticator, subscribers: Subscribers::default() }
    }

    /// Who is connected, for dumps and statuses. Clones see the same.
    pub fn subscribers(&self) -> Subscribers {
        self.subscribers.clone()
    }

    /// The service as a server takes it.
    pub fn into_server(self) -> AggregatedDiscoveryServiceServer<Self> {
        AggregatedDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }
}

/// Calls of one connection at a time: an agent has one stream, and asks for eight certificates. More
/// wait at the client.
const MAX_CALLS_PER_CONNECTION: u32 = 64;

/// A gRPC server that notices dead clients. TLS and services are the caller's to add.
pub fn transport() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for DiscoveryService {
    type DeltaAggregatedResourcesStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let peer = request.remote_addr();
        let client = self.authenticator.authenticate(request.metadata(), peer).await?;
        let mut resources = self.resources.clone();
        let generation = resources.borrow_and_update().clone();
        let Some(subscribed) = self.subscribers.enter(client.clone(), &generation, peer) else {
            return Err(Status::resource_exhausted(format!("{} has too many streams", client.name)));
        };
        let (responses, outgoing) = mpsc::channel(RESPONSE_QUEUE);
        // Ends when the client is gone or `outgoing` is dropped, whichever is first.
        tokio::spawn(
            stream::Stream { requests: request.into_inner(), responses, resources, subscribed }.run(),
        );
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
