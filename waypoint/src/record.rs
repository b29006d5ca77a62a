//! What is kept of a request or a connection for its line in the access log and for the metrics.
//!
//! It is filled as things become known, and finished in one place.

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ambit_mesh::address::NetworkAddress;
use ambit_mesh::decide::{OutboundDecision, Transport};
use ambit_mesh::http::{Destination, Place};
use ambit_mesh::service::Service;
use ambit_mesh::workload::Workload;
use ambit_runtime::telemetry::http::RequestMetrics;
use ambit_runtime::telemetry::tcp::{ConnectionLabels, Reporter, SecurityPolicy};
use tracing::Level;

use crate::head::Refusal;
use crate::ingress::Caller;
use crate::worker::Worker;

mod connection;
mod flow;
mod request;

pub use connection::ConnectionRecord;
pub(crate) use flow::Flow;
pub use request::RequestRecord;

/// The ends of a request or a connection, as far as known.
struct Ends {
    caller: Rc<Caller>,
    source: Option<Arc<Workload>>,
    service: OnceLock<Arc<Service>>,
    endpoint: RefCell<Option<Arc<Workload>>>,
    upstream: RefCell<Option<OutboundDecision>>,
}

impl Ends {
    fn new(worker: &Worker, caller: &Rc<Caller>) -> Self {
        Self {
            caller: Rc::clone(caller),
            source: source(worker, caller),
            service: OnceLock::new(),
            endpoint: RefCell::new(None),
            upstream: RefCell::new(None),
        }
    }

    fn destination(&self, destination: &Destination) {
        match &destination.place {
            Place::Service(service) => {
                let _ = self.service.set(Arc::clone(service));
            }
            Place::Workload(workload) => *self.endpoint.borrow_mut() = Some(Arc::clone(workload)),
        }
    }

    fn endpoint(&self, decision: &OutboundDecision) {
        self.endpoint.borrow_mut().clone_from(&decision.endpoint);
        *self.upstream.borrow_mut() = Some(decision.clone());
    }

    /// What the client is called in logs.
    fn source_name(&self) -> Option<&str> {
        match (&self.source, &self.caller.claimed) {
            (Some(source), Some(claimed)) if Arc::ptr_eq(source, &claimed.workload) => Some(claimed.name()),
            (Some(source), _) => Some(&source.name),
            (None, _) => None,
        }
    }

    fn labels<'a>(&'a self, endpoint: Option<&'a Workload>) -> ConnectionLabels<'a> {
        ConnectionLabels {
            reporter: Reporter::Waypoint,
            source: self.source.as_deref(),
            source_identity: Some(&self.caller.identity),
            destination: endpoint,
            destination_identity: endpoint.map(|endpoint| &endpoint.identity),
            destination_service: self.service.get().map(|service| &**service),
            security_policy: SecurityPolicy::MutualTls,
        }
    }

    fn upstream_host(&self) -> Option<String> {
        let upstream = self.upstream.borrow();
        upstream.as_ref().map(|decision| match &decision.transport {
            Transport::Hbone { authority, .. } => authority.to_string(),
            Transport::Passthrough => decision.next_hop.to_string(),
        })
    }
}

/// The workload at the client's address, unless its certificate says that it is somebody else; of one that this waypoint
/// is not told of, what its node agent says.
fn source(worker: &Worker, caller: &Caller) -> Option<Arc<Workload>> {
    let known = || {
        let snapshot = worker.shared.snapshots.load()?;
        let network = snapshot.own()?.network.clone();
        let found = snapshot.mesh().workload_by_address(&NetworkAddress { network, ip: caller.client.ip })?;
        (found.identity == caller.identity).then(|| Arc::clone(found))
    };
    known().or_else(|| Some(Arc::clone(&caller.claimed.as_ref()?.workload)))
}

/// A head that could not be read.
pub(crate) fn refused_head(worker: &Worker, caller: &Rc<Caller>, refusal: Refusal) {
    let ends = Ends::new(worker, caller);
    let snapshot = worker.shared.snapshots.load();
    if let Some(Ok(destination)) = snapshot.map(|snapshot| snapshot.destination(&caller.authority)) {
        ends.destination(&destination);
    }
    let endpoint = ends.endpoint.borrow();
    RequestMetrics {
        connection: ends.labels(endpoint.as_deref()),
        grpc: false,
        response_code: refusal.status().as_u16(),
        grpc_status: None,
        response_flags: "DPE",
        duration: Duration::ZERO,
        request_bytes: 0,
        response_bytes: 0,
        request_messages: 0,
        response_messages: 0,
    }
    .record();
    metrics::counter!("ambit_requests_malformed_total").increment(1);
    tracing::event!(
        target: "access", parent: None, Level::WARN,
        response_code = refusal.status().as_u16(), response_flags = "DPE", error = %refusal,
        downstream_remote_address = %caller.address, src.identity = %caller.identity,
        dst.addr = %caller.authority, "request refused"
    );
}

/// A client whose connection of HTTP/2 was ended for what it did there.
pub(crate) fn cut_off(caller: &Caller, why: &dyn Display) {
    tracing::event!(
        target: "access", parent: None, Level::WARN,
        response_flags = "DPE", error = %why,
        downstream_remote_address = %caller.address, src.identity = %caller.identity,
        dst.addr = %caller.authority, "connection cut off"
    );
}
