//! One connection that is no HTTP.

use std::cell::Cell;
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;

use ambit_mesh::decide::{OutboundDecision, ResponseFlag};
use ambit_mesh::http::Destination;
use ambit_mesh::workload::Workload;
use ambit_runtime::telemetry::access_log::{AccessLog, End};
use ambit_runtime::telemetry::tcp::{ConnectionMetrics, Reporter};
use tokio::time::Instant;

use super::Ends;
use crate::ingress::Caller;
use crate::opaque::Meter;
use crate::worker::Worker;

/// One connection that is no HTTP.
pub struct ConnectionRecord {
    ends: Ends,
    started: Instant,
    server_name: Option<String>,
    open: Option<ConnectionMetrics>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
}

impl ConnectionRecord {
    pub(crate) fn new(worker: &Worker, caller: &Rc<Caller>) -> Self {
        Self {
            ends: Ends::new(worker, caller),
            started: Instant::now(),
            server_name: None,
            open: None,
            request_bytes: Cell::new(0),
            response_bytes: Cell::new(0),
        }
    }

    pub(crate) fn destination(&mut self, destination: &Destination) {
        self.ends.destination(destination);
    }

    /// The name that the client's TLS asks for.
    pub(crate) fn server_name(&mut self, name: Option<&str>) {
        self.server_name = name.map(str::to_owned);
    }

    pub(crate) fn endpoint(&mut self, decision: &OutboundDecision) {
        self.ends.endpoint(decision);
    }

    pub(crate) fn opened(&mut self) {
        let endpoint = self.ends.endpoint.borrow();
        self.open = Some(ConnectionMetrics::open(&self.ends.labels(endpoint.as_deref())));
    }

    pub(crate) fn fail(self, flag: ResponseFlag, error: &dyn Display) {
        {
            let endpoint = self.ends.endpoint.borrow();
            ConnectionMetrics::failed(&self.ends.labels(endpoint.as_deref()), flag);
        }
        self.emit(Some(&error.to_string()), flag);
    }

    pub(crate) fn finish(mut self) {
        self.close(ResponseFlag::None);
        self.emit(None, ResponseFlag::None);
    }

    pub(crate) fn cut(mut self, flag: ResponseFlag, error: &dyn Display) {
        self.close(flag);
        self.emit(Some(&error.to_string()), flag);
    }

    fn close(&mut self, flag: ResponseFlag) {
        if let Some(open) = self.open.take() {
            open.close(flag);
        }
    }

    fn emit(&self, error: Option<&str>, flag: ResponseFlag) {
        let caller = &self.ends.caller;
        let endpoint = self.ends.endpoint.borrow();
        let upstream = self.ends.upstream.borrow();
        let authority = self.ends.upstream_host();
        let end = |address, workload: Option<&Arc<Workload>>| (address, workload.cloned());
        let (source, destination) = (
            end(caller.address, self.ends.source.as_ref()),
            end(upstream.as_ref().map_or(caller.local, |decision| decision.next_hop), endpoint.as_ref()),
        );
        AccessLog {
            reporter: Reporter::Waypoint,
            source: End {
                address: source.0,
                workload: self.ends.source_name(),
                namespace: Some(caller.identity.namespace()),
                identity: Some(&caller.identity),
                cluster: source.1.as_ref().map(|workload| &*workload.cluster_id),
            },
            destination: End {
                address: destination.0,
                workload: destination.1.as_ref().map(|workload| &*workload.name),
                namespace: destination.1.as_ref().map(|workload| &*workload.namespace),
                identity: destination.1.as_ref().map(|workload| &workload.identity),
                cluster: destination.1.as_ref().map(|workload| &*workload.cluster_id),
            },
            hbone_authority: authority.as_deref(),
            service: self.ends.service.get().map(|service| &*service.name.hostname),
            requested_server_name: self.server_name.as_deref(),
            request_bytes: self.request_bytes.get(),
            response_bytes: self.response_bytes.get(),
            duration: self.started.elapsed(),
            error,
            flag,
            bypass: None,
        }
        .emit();
    }
}

impl Meter for ConnectionRecord {
    // Counted as it goes: such a connection may last for days.
    fn forth(&self, octets: u64) {
        self.request_bytes.set(self.request_bytes.get() + octets);
        if let Some(open) = &self.open {
            open.record_request_bytes(octets);
        }
    }

    fn back(&self, octets: u64) {
        self.response_bytes.set(self.response_bytes.get() + octets);
        if let Some(open) = &self.open {
            open.record_response_bytes(octets);
        }
    }

    fn carried(&self) -> u64 {
        self.request_bytes.get() + self.response_bytes.get()
    }
}
