//! One client's stream: requests and generations in, responses out.

use std::sync::Arc;
use std::time::Instant;

use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};
use tracing::{debug, warn};

use super::registry::Subscribed;
use crate::ResourceType;
use crate::problems;
use crate::resources::Resources;

pub(super) struct Stream {
    pub(super) requests: Streaming<DeltaDiscoveryRequest>,
    pub(super) responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    pub(super) resources: watch::Receiver<Arc<Resources>>,
    pub(super) subscribed: Subscribed,
}

impl Stream {
    pub(super) async fn run(mut self) {
        loop {
            // Cancelling loses nothing: the arms receive, and a change that was not yet seen stays
            // marked as such.
            let responses = tokio::select! {
                () = self.responses.closed() => return,
                request = self.requests.message() => match request {
                    Ok(Some(request)) => self.on_request(&request),
                    Ok(None) => return,
                    Err(status) => {
                        debug!(node = self.subscribed.node(), %status, "subscriber is gone");
                        return;
                    }
                },
                changed = self.resources.changed() => match changed {
                    Ok(()) => self.on_change(),
                    Err(_) => {
                        let _ = self.responses.send(Err(Status::unavailable("the server is stopping"))).await;
                        return;
                    }
                },
            };
            for response in responses {
                // If nobody receives any more, the next turn ends the stream.
                let _ = self.responses.send(Ok(response)).await;
            }
        }
    }

    fn on_request(&mut self, request: &DeltaDiscoveryRequest) -> Vec<DeltaDiscoveryResponse> {
        if let Some(problems) = problems::told(request) {
            self.subscribed.has_problems(problems);
            return Vec::new();
        }
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            debug!(node = self.subscribed.node(), type_url = request.type_url, "asked for an unknown type");
            return Vec::new();
        };
        if let Some(error) = &request.error_detail {
            warn!(
                node = self.subscribed.node(),
                type_url = kind.type_url(),
                error = error.message,
                "a response was refused"
            );
        }
        self.subscribed.on_request(kind, request, Instant::now())
    }

    fn on_change(&mut self) -> Vec<DeltaDiscoveryResponse> {
        let resources = self.resources.borrow_and_update().clone();
        self.subscribed.on_change(&resources, Instant::now())
    }
}
