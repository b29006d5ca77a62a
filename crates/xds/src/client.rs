//! The gRPC shell around a [`Session`]: connects, moves messages, reconnects.
//!
//! What messages mean is decided in [`crate::session`]; what becomes of the changes is the
//! owner's business.

mod connect;
mod metrics;

use std::convert::Infallible;
use std::path::PathBuf;

use ambit_mesh::snapshot::Change;
use ambit_proto::envoy::config::core::v3::Node;
use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use http::Uri;
use tokio::sync::{mpsc, watch};
use tonic::Streaming;
use tracing::{info, warn};

pub use connect::ConnectError;

use crate::backoff::Backoff;
use crate::problems;
use crate::resource_type::Role;
use crate::session::{Interest, Session};
use metrics::Termination;

/// Where the server is and who we are.
#[derive(Clone, Debug)]
pub struct Config {
    /// `https://<host>:<port>` of the server; the host is what its certificate has to name.
    pub address: Uri,
    /// PEM file of the roots that the server's certificate chains to. Read for each connection.
    pub root_file: PathBuf,
    /// File of the bearer token that authenticates us. Read for each stream.
    pub token_file: PathBuf,
    /// Our Kubernetes cluster, in the header `clusterid`.
    pub cluster_id: String,
    /// Who we are, for the server's records.
    pub node: Node,
    /// Whether to ask for all workloads and services, or only for those in demand.
    pub addresses: Interest,
    /// Which types to ask for.
    pub role: Role,
    /// What a person should know of us: told when it changes, and on each stream. Without any, drop the sender.
    pub problems: watch::Receiver<Vec<String>>,
}

/// What one response brought.
#[derive(Debug)]
pub struct Batch {
    /// To be applied in this order.
    pub changes: Vec<Change>,
    /// Once this batch is applied, everything that was asked for as a whole has been received
    /// once, and nothing is received in half: decisions may be taken from here on.
    pub synced: bool,
}

/// One client, for the life of the process.
#[derive(Debug)]
pub struct Client {
    config: Config,
    session: Session,
    backoff: Backoff,
}

/// An open stream.
struct Stream {
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl Client {
    /// A client that has received nothing yet.
    pub fn new(config: Config) -> Self {
        let session = Session::new(config.node.clone(), config.addresses, config.role);
        Self { config, session, backoff: Backoff::default() }
    }

    /// Follows the server until the future is dropped, which closes the stream.
    ///
    /// Each batch is acknowledged when `apply` has returned, so that an acknowledgement means
    /// "in force". Names that come in through `demand` are subscribed to (see
    /// [`Session::subscribe`]); without demand, drop the sender.
    pub async fn run(
        mut self,
        mut demand: mpsc::Receiver<Vec<String>>,
        mut apply: impl FnMut(Batch),
    ) -> Infallible {
        loop {
            let termination = self.connect_and_follow(&mut demand, &mut apply).await;
            self.session.on_disconnect();
            metrics::terminated(termination);
            self.wait_before_reconnect(&mut demand).await;
        }
    }

    async fn connect_and_follow(
        &mut self,
        demand: &mut mpsc::Receiver<Vec<String>>,
        apply: &mut impl FnMut(Batch),
    ) -> Termination {
        let address = self.config.address.clone();
        let mut stream = match connect::open(&self.config, self.session.connect()).await {
            Ok(stream) => stream,
            Err(error) => {
                warn!(%address, error = %error.with_causes(), "cannot connect to the configuration server");
                return Termination::ConnectionError;
            }
        };
        info!(%address, "connected to the configuration server");
        match self.follow(&mut stream, demand, apply).await {
            Ok(()) => {
                info!(%address, "the configuration server has closed the stream");
                Termination::Complete
            }
            Err(status) => {
                warn!(%address, %status, "lost the configuration server");
                Termination::Error
            }
        }
    }

    async fn follow(
        &mut self,
        stream: &mut Stream,
        demand: &mut mpsc::Receiver<Vec<String>>,
        apply: &mut impl FnMut(Batch),
    ) -> Result<(), tonic::Status> {
        if !self.config.problems.borrow().is_empty() {
            self.config.problems.mark_changed();
        }
        loop {
            // The arms lose nothing when cancelled: they only receive.
            let requests = tokio::select! {
                response = stream.responses.message() => match response? {
                    Some(response) => self.on_response(response, apply),
                    None => return Ok(()),
                },
                Some(names) = demand.recv() => self.session.subscribe(names).into_iter().collect(),
                Ok(()) = self.config.problems.changed() => {
                    vec![problems::request(&self.config.node, &self.config.problems.borrow_and_update())]
                }
            };
            for request in requests {
                // If the stream is gone, receiving from it says why.
                let _ = stream.requests.send(request).await;
            }
        }
    }

    fn on_response(
        &mut self,
        response: DeltaDiscoveryResponse,
        apply: &mut impl FnMut(Batch),
    ) -> Vec<DeltaDiscoveryRequest> {
        metrics::received(&response);
        self.backoff.reset();
        let type_url = response.type_url.clone();
        let reaction = self.session.on_response(response);
        for rejected in &reaction.rejected {
            warn!(type_url, %rejected, "refused a resource; its last good version stays");
        }
        apply(Batch { changes: reaction.changes, synced: self.session.synced() });
        reaction.answer.into_iter().chain(reaction.further).collect()
    }

    async fn wait_before_reconnect(&mut self, demand: &mut mpsc::Receiver<Vec<String>>) {
        let delay = self.backoff.after_failure(&mut rand::rng());
        let deadline = tokio::time::sleep(delay);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = &mut deadline => return,
                // Without a stream there is nothing to send: the next one begins with the names.
                Some(names) = demand.recv() => drop(self.session.subscribe(names)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
